"""findings.json: what is written is read back the same, and is what the published schema says."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from COVIDMultitaskLib.engines.contract import AffectedShare, EngineIdentity, Unlikeness
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.findings import (
    AffectedEstimate,
    CreatedBy,
    Findings,
    InputSummary,
    LesionComponent,
    LesionFindings,
    LesionStatistic,
    LobeFindings,
    PictureFindings,
    QualityFlag,
    RegionFindings,
)
from COVIDMultitaskLib.labels import DIAGNOSES, LESIONS, LOBES, SEVERITIES
from COVIDMultitaskLib.measuring import measure
from COVIDMultitaskLib.reference_ranges import ReferenceRange
from COVIDMultitaskLib.resources import resource
from COVIDMultitaskLib.volume import IntensityKind, Provenance
from Testing.library.lung_scenes import answer, draw, grid

SCENE = draw(grid((5.0, 4.0, 4.0)))


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    return json.loads(resource("Schemas", "findings-1.0.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def validator(schema) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema)


def measured() -> Findings:
    volume, lobes, lesions = SCENE
    return measure(volume, answer(lobes, lesions))


# -- arbitrary findings

ml = st.floats(0, 1e5)
percent = st.floats(0, 100)
hu = st.floats(-1024, 3071)
place = st.tuples(*[st.floats(-3000, 3000)] * 3)
text = st.text(max_size=20)


def maybe(strategy):
    return st.none() | strategy


def regions(kind, keys: list[str], **others):
    figures = {
        "volume_ml": maybe(ml),
        "lesion_volume_ml": maybe(ml),
        "lesion_percent": maybe(percent),
        "ground_glass_volume_ml": maybe(ml),
        "ground_glass_percent": maybe(percent),
        "consolidation_volume_ml": maybe(ml),
        "consolidation_percent": maybe(percent),
        "mean_lesion_hu": maybe(hu),
    }
    return st.tuples(*[st.builds(kind, st.just(key), text, **figures, **others) for key in keys])


components = st.builds(
    LesionComponent,
    number=st.integers(1, 50),
    volume_ml=ml,
    centroid_lps_mm=place,
    point_lps_mm=place,
    start_zyx=st.tuples(*[st.integers(0, 500)] * 3),
    stop_zyx=st.tuples(*[st.integers(1, 600)] * 3),
    lobe_percent=maybe(st.dictionaries(st.sampled_from([lobe.key for lobe in LOBES]), percent)),
    lesion_class=st.sampled_from([lesion.key for lesion in LESIONS]),
    consolidation_percent=percent,
    mean_hu=maybe(hu),
)
lesion_findings = st.builds(
    LesionFindings,
    count=st.integers(0, 10**6),
    largest_volume_ml=ml,
    **{name.name: maybe(percent) for name in dataclasses.fields(LesionFindings) if name.name.endswith("_percent")},
    bilateral=maybe(st.booleans()),
    boundary_gradient_hu_per_mm=maybe(st.floats(-3000, 3000)),
    components=st.lists(components, max_size=3).map(tuple),
)
identities = st.builds(
    EngineIdentity, text, text, text, st.text("0123456789abcdef", min_size=64, max_size=64), text, text
)
inputs = st.builds(
    InputSummary,
    text,
    st.tuples(*[st.integers(1, 5000)] * 3),
    maybe(st.tuples(*[st.floats(0.01, 20)] * 3)),
    st.sampled_from([kind.value for kind in IntensityKind]),
    maybe(text),
    maybe(text),
    maybe(st.floats(0, 20)),
    st.integers(0, 999),
    maybe(st.booleans()),
    st.lists(text, max_size=2).map(tuple),
)
figure = st.floats(-1e6, 1e6)
statistics = st.builds(
    LesionStatistic,
    st.from_regex("[a-z0-9_]+", fullmatch=True),
    text,
    text,
    maybe(figure),
    st.dictionaries(
        st.sampled_from(DIAGNOSES),
        st.builds(ReferenceRange, st.integers(1, 10**6), figure, figure, figure, figure, figure),
    ),
)
any_findings = st.builds(
    Findings,
    engine=identities,
    input=inputs,
    lobes=maybe(regions(LobeFindings, [lobe.key for lobe in LOBES], score=maybe(st.integers(0, 5)))),
    lungs=maybe(regions(RegionFindings, ["left", "right"])),
    total=maybe(regions(RegionFindings, ["total"]).map(lambda found: found[0])),
    worst_lung_percent=maybe(percent),
    ct_severity_score=maybe(st.integers(0, 25)),
    ct_grade=maybe(st.integers(0, 4)),
    severity=maybe(st.fixed_dictionaries({key: st.floats(0, 1) for key in SEVERITIES})),
    diagnosis=maybe(st.fixed_dictionaries({key: st.floats(0, 1) for key in DIAGNOSES})),
    lesions=maybe(lesion_findings),
    quality=st.lists(
        st.builds(QualityFlag, st.from_regex("[a-z0-9_]+", fullmatch=True), st.sampled_from(["info", "warning"]), text),
        max_size=2,
    ).map(tuple),
    notice=text,
    created_by=st.builds(CreatedBy, text, text),
    picture=maybe(
        st.builds(
            PictureFindings,
            st.integers(1, 9999),
            st.integers(1, 9999),
            maybe(st.integers(0, 999)),
            maybe(percent),
            maybe(percent),
        )
    ),
    differential=maybe(st.lists(statistics, max_size=2).map(tuple)),
    created=maybe(st.just("2024-05-01T12:00:00+00:00")),
    covid_probability=maybe(st.floats(0, 1)),
    unlikeness=maybe(st.builds(Unlikeness, figure, figure)),
    sources=maybe(st.dictionaries(st.sampled_from(["lungs", "lobes", "lesions"]), identities, min_size=1)),
    affected_estimate=maybe(
        st.dictionaries(
            st.sampled_from(["left_upper", "right_middle", "left", "total"]),
            st.builds(AffectedEstimate, percent, percent, percent),
            min_size=1,
        )
    ),
)


@settings(max_examples=60, deadline=None)
@given(any_findings)
def test_findings_survive_json(findings: Findings) -> None:
    assert Findings.from_dict(json.loads(json.dumps(findings.to_dict()))) == findings


@settings(max_examples=60, deadline=None)
@given(findings=any_findings)
def test_any_findings_are_what_the_schema_says(validator, findings: Findings) -> None:
    validator.validate(json.loads(json.dumps(findings.to_dict())))


# -- measured findings


@pytest.mark.parametrize("lobes", [True, False])
@pytest.mark.parametrize("lesions", [True, False])
@pytest.mark.parametrize("answers", [{}, {"severity": None, "diagnosis": None}], ids=["scores", "no scores"])
def test_measured_findings_are_what_the_schema_says(validator, lobes: bool, lesions: bool, answers) -> None:
    volume, lobe_map, lesion_map = SCENE
    found = measure(volume, answer(lobe_map if lobes else None, lesion_map if lesions else None, **answers))
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    validator.validate(data)
    assert Findings.from_dict(data) == found


def test_the_time_is_written_only_when_given() -> None:
    found = measured()
    assert "created" not in found.to_dict()
    assert dataclasses.replace(found, created="2024-05-01T12:00:00+00:00").to_dict()["created"].startswith("2024")
    assert json.dumps(found.to_dict()) == json.dumps(measured().to_dict())


def test_the_notice_says_what_it_is_for_and_what_it_learned_from() -> None:
    notice = measured().notice
    assert notice == "Research use only; not a medical device. Trained on: simulated chest CTs."


def test_what_reading_noticed_is_kept() -> None:
    volume, lobes, lesions = SCENE
    provenance = Provenance("DICOM", "CT", "FC52", 1.0, 3, True, ("Three slices are missing.",))
    summary = measure(dataclasses.replace(volume, provenance=provenance), answer(lobes, lesions)).input
    assert (summary.format, summary.kernel, summary.missing_slices, summary.contrast) == ("DICOM", "FC52", 3, True)
    assert summary.notes == ("Three slices are missing.",)
    assert summary.shape_zyx == volume.geometry.shape


def test_affected_shares_by_probability_are_written_in_per_cent(validator) -> None:
    volume, lobes, lesions = SCENE
    shares = {"total": AffectedShare(0.125, 0.1, 0.2), "left": AffectedShare(0.0, 0.0, 0.01)}
    found = measure(volume, answer(lobes, lesions, affected=shares)).to_dict()
    validator.validate(json.loads(json.dumps(found)))
    total = found["affected_estimate"]["total"]
    assert total == {"expected_percent": 12.5, "low_percent": 10.0, "high_percent": 20.0}
    assert set(found["affected_estimate"]) == {"total", "left"}
    assert "affected_estimate" not in measured().to_dict()


def test_how_unlike_the_training_data_a_scan_is_is_kept_also_without_a_warning(validator) -> None:
    volume, lobes, lesions = SCENE
    found = measure(volume, answer(lobes, lesions, unlikeness=Unlikeness(-0.25, 3.0))).to_dict()
    validator.validate(json.loads(json.dumps(found)))
    assert found["unlikeness"] == {"score": -0.25, "threshold": 3.0}
    assert "unlike_training_data" not in [flag["flag"] for flag in found["quality"]]
    assert "unlikeness" not in measured().to_dict()


# -- what must be refused


def places_of_objects(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        yield data
        for value in data.values():
            yield from places_of_objects(value)
    elif isinstance(data, list):
        for value in data:
            yield from places_of_objects(value)


def test_no_object_takes_a_property_that_is_not_declared(validator) -> None:
    good = json.loads(json.dumps(measured().to_dict()))
    number = len(list(places_of_objects(good)))
    assert number > 15
    for which in range(number):
        bad = copy.deepcopy(good)
        list(places_of_objects(bad))[which]["patient_name"] = "x"
        assert not validator.is_valid(bad), f"object {which} takes unknown properties"


def test_no_required_key_may_be_left_out(validator) -> None:
    good = json.loads(json.dumps(measured().to_dict()))
    for key in good:
        assert not validator.is_valid({k: v for k, v in good.items() if k != key}), key


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ct_severity_score",), 26),
        (("ct_grade",), 5),
        (("worst_lung_percent",), 101),
        (("schema_version",), "2.0"),
        (("lobes", 0, "key"), "lingula"),
        (("lobes", 0, "volume_ml"), -1),
        (("lobes", 0, "score"), 6),
        (("severity", "severe"), 1.1),
        (("engine", "sha256"), "not hexadecimal"),
        (("input", "spacing_zyx_mm"), [1, 1, 0]),
        (("lesions", "components", 0, "lesion_class"), "tumour"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(validator, path, value) -> None:
    data = json.loads(json.dumps(measured().to_dict()))
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    assert not validator.is_valid(data)


@pytest.mark.parametrize("data", [{}, {"schema_version": "9.9"}, {"schema_version": "1.0"}, [], None], ids=str)
def test_reading_other_records_says_what_to_do(data) -> None:
    with pytest.raises(InputError, match="analyse the scan again"):
        Findings.from_dict(data)


def test_reading_damaged_records_says_what_to_do() -> None:
    data = measured().to_dict()
    del data["lobes"][0]["key"]
    with pytest.raises(InputError, match="damaged"):
        Findings.from_dict(data)


# -- the schema itself


def test_the_schema_is_a_schema_with_a_plain_name(schema) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == "urn:covid-multitask:schema:findings:1.0"


def test_every_object_is_closed_and_every_property_described(schema) -> None:
    for node in places_of_objects(schema):
        if "properties" in node and isinstance(node["properties"], dict) and "additionalProperties" in node:
            assert node["additionalProperties"] is False
            for name, declared in node["properties"].items():
                assert declared.get("description") or name in {lobe.key for lobe in LOBES}, name


def test_schema_and_records_have_the_same_names(schema) -> None:
    pairs = [
        (Findings, schema),
        (InputSummary, schema["properties"]["input"]),
        (EngineIdentity, schema["$defs"]["identity"]),
        (CreatedBy, schema["properties"]["created_by"]),
        (LobeFindings, schema["$defs"]["lobe"]),
        (RegionFindings, schema["$defs"]["lung"]),
        (RegionFindings, schema["$defs"]["total"]),
        (LesionFindings, schema["$defs"]["lesions"]),
        (LesionComponent, schema["$defs"]["component"]),
        (QualityFlag, schema["$defs"]["quality_flag"]),
        (LesionStatistic, schema["$defs"]["lesion_statistic"]),
        (ReferenceRange, schema["$defs"]["reference_range"]),
        (PictureFindings, schema["$defs"]["picture"]),
        (AffectedEstimate, schema["$defs"]["affected_estimate"]),
        (Unlikeness, schema["$defs"]["unlikeness"]),
    ]
    for kind, declared in pairs:
        assert {field.name for field in dataclasses.fields(kind)} == set(declared["properties"]), kind.__name__
