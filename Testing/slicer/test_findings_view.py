"""The findings in words, bars, rows and rich text."""

from __future__ import annotations

import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from COVIDMultitaskModule.findings import COLUMNS, FindingsView
from COVIDMultitaskModule.findings_html import findingsHtml, researchHtml
from COVIDMultitaskModule.lobe_picture import HEIGHT, SCALE, UNKNOWN, WIDTH, affectedColor, lobePicture
from hypothesis import given
from hypothesis import strategies as st
from slicer_host.chest import findings

from COVIDMultitaskLib.findings import LobeFindings

LESION = {
    "number": 1,
    "volume_ml": 12.34,
    "point_lps_mm": [10.0, 20.0, -30.0],
    "lobe_percent": {"right_middle": 15.0, "right_lower": 80.0, "right_upper": 5.0},
    "lesion_class": "ground_glass",
    "consolidation_percent": 12.4,
}
LESIONS = {
    "count": 3,
    "bilateral": True,
    "peripheral_percent": 61.4,
    "dorsal_percent": 70.0,
    "lower_third_percent": None,
    "components": [LESION],
}


def corrected() -> dict:
    record = {**findings(), "worst_lung_percent": 20.0, "ct_severity_score": 12, "diagnosis": None}
    record["lobes"] = [{**lobe, "lesion_percent": 55.5} for lobe in record["lobes"]]
    record["correction"] = {"kinds": ["lesions"], "by": "Dr <Who>", "time": "2026-03-04T05:06:07"}
    return record


def scores(view: FindingsView) -> dict[str, str]:
    return {score.title: score.model for score in view.scores}


def words(rich: str) -> str:
    """The text of rich text."""
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append
    parser.feed(rich)
    return re.sub(r"\s+", " ", " ".join(parts))


def test_the_most_probable_diagnosis_comes_first():
    bars = FindingsView(findings()).diagnosis
    assert [(bar.name, bar.probability) for bar in bars] == [
        ("COVID-19", 0.8),
        ("Other pneumonia", 0.15),
        ("No pneumonia", 0.05),
    ]
    assert FindingsView(findings()).severe == 0.2


def test_the_extent_is_worded_as_radiologists_write_it():
    text = scores(FindingsView(findings()))
    assert text["Worse lung"] == "13.2 %"
    assert text["CT severity score"] == "10 / 25"
    assert text["CT grade"] == "CT-1"


def test_what_an_engine_does_not_assess_is_said():
    record = {**findings(), "severity": None, "diagnosis": None, "worst_lung_percent": None, "total": None}
    view = FindingsView(record)
    assert view.diagnosis is None and view.severe is None
    for title in ("Worse lung", "Affected lung"):
        assert scores(view)[title] == "not assessed by this engine"
    assert len(view.rows) == 5
    assert words(findingsHtml(view)).count("not assessed by this engine") == 4


def ofTriage() -> dict:
    """As of an engine that knows lungs and lesions, and COVID-19 from everything else; no lobes."""
    record = {**findings(), "lobes": None, "severity": None, "diagnosis": None, "ct_severity_score": None}
    record["engine"] = {"engine": "triage", "bundle": "triage-small", "version": "0.1.0", "trained_on": "nothing"}
    total = {**record["total"], "score": None}
    return {**record, "total": total, "covid_probability": 0.83}


def test_covid_19_alone_is_an_answer():
    view = FindingsView(ofTriage())
    assert [(bar.name, bar.probability) for bar in view.diagnosis] == [("COVID-19", 0.83)]
    text = words(findingsHtml(view))
    assert "83 % This engine does not tell other diagnoses apart. Severity" in text
    assert "tell other diagnoses apart" not in words(findingsHtml(FindingsView(findings())))
    never = FindingsView({**findings(), "diagnosis": None, "covid_probability": 0.0})
    assert [bar.probability for bar in never.diagnosis] == [0.0]


def test_probabilities_are_named_and_missing_ones_are_missing():
    everything = {"severe": 0.2, "covid_19": 0.8, "other_pneumonia": 0.15, "no_pneumonia": 0.05}
    assert FindingsView(findings()).probabilities == everything
    assert FindingsView(ofTriage()).probabilities == {**dict.fromkeys(everything), "covid_19": 0.83}


def test_missing_lobes_are_said_to_be_missing_though_the_lungs_are_measured():
    text = words(findingsHtml(FindingsView(ofTriage())))
    assert "Lobes: not assessed by this engine Lungs ml affected GGO consol. Both lungs 4515 11.5" in text
    assert "% of the lungs" in text and "score: 0 to 5" not in text and "% of the lobe" not in text
    assert "Lobes: not assessed" not in words(findingsHtml(FindingsView(findings())))


def test_missing_lesions_are_one_line_and_no_columns_of_dashes():
    figures = {column.key: None for column in COLUMNS[1:]}
    lobes = [{**lobe, **figures} for lobe in findings()["lobes"]]
    total = {**findings()["total"], **figures}
    nothing = dict.fromkeys(("worst_lung_percent", "ct_severity_score", "ct_grade", "lesions", "diagnosis"))
    text = words(findingsHtml(FindingsView({**findings(), "lobes": lobes, "total": total, **nothing})))
    assert "Lesions and extent not assessed by this engine" in text
    assert text.count("not assessed by this engine") == 2, "diagnosis, and all that needs lesions"
    assert "Lobe ml " in text and "GGO" not in text and "–" not in text


def test_how_unlike_the_training_data_is_said_quietly_unless_it_is_a_warning():
    line = "How unlike the training data: 0.4 (a warning comes above 3.0)."
    quiet = {**findings(), "unlikeness": {"score": 0.44, "threshold": 3.0}}
    assert line in words(findingsHtml(FindingsView(quiet))) and line not in FindingsView(quiet).warnings
    assert FindingsView({**findings(), "unlikeness": {"score": 3.1, "threshold": 3.0}}).unlikeness == ""
    assert FindingsView(findings()).unlikeness == ""


def test_the_origin_says_who_supplied_what():
    joint = {"engine": "joint", "bundle": "joint", "version": "0.3.0"}
    lungs = FindingsView({**ofTriage(), "sources": {"lungs": joint}})
    filled = FindingsView({**ofTriage(), "sources": {"lungs": joint, "lobes": joint}})
    assert lungs.origin == "triage, triage-small, 0.1.0; lungs by joint, joint, 0.3.0"
    assert filled.origin == "triage, triage-small, 0.1.0; lungs and lobes by joint, joint, 0.3.0"
    assert filled.originOf("lobes") == "joint, joint, 0.3.0" and filled.originOf("lesions").startswith("triage")
    assert filled.origin in words(researchHtml(filled))


@pytest.mark.parametrize(
    ("name", "key", "title"),
    [
        ("slices", "contribution", "Slice, contribution 0.70"),
        ("patches", "contribution", "Patch, contribution 0.70"),
        ("slice_probabilities", "probability", "Slice, probability of COVID-19 0.70"),
    ],
)
def test_a_slices_probability_is_no_contribution(name, key, title):
    (part,) = FindingsView({}, None, {"parts": {name: [{"point_lps_mm": [0.0, 0.0, 8.0], key: 0.7}]}}).parts
    assert part.title == title


def test_empty_findings_are_shown_without_fuss():
    view = FindingsView({})
    assert view.rows == [] and view.warnings == [] and view.origin == "" and view.places == [] and view.pattern == ""
    assert set(scores(view).values()) == {"not assessed by this engine"}
    assert "research" in view.notice
    assert "not assessed by this engine" in findingsHtml(view)


def test_rows_are_the_lobes_and_the_total():
    rows = FindingsView(findings()).rows
    assert [row.name for row in rows][-2:] == ["Right lower lobe", "Both lungs"]
    assert rows[0].value("mean_lesion_hu") is None
    assert rows[-1].value("volume_ml") == 4515.0
    assert [row.value("score") for row in rows] == [2, 2, 2, 2, 2, 10], "the total of five lobes"


def test_columns_are_those_that_the_library_writes():
    assert {column.key for column in COLUMNS} <= {field.name for field in dataclasses.fields(LobeFindings)}


def test_warnings_and_hints_are_told_apart():
    record = {**findings(), "quality": [{"level": "info", "message": "a"}, {"level": "warning", "message": "b"}]}
    view = FindingsView(record)
    assert (view.warnings, view.hints) == (["b"], ["a"])


def test_places_lead_to_the_lesions_in_slicers_coordinates():
    (place,) = FindingsView({"lesions": LESIONS}).places
    assert place.title == "12.3 ml Ground-glass opacity, Right lower lobe, Right middle lobe"
    assert place.detail == "12 % consolidation"
    assert place.ras == (-10.0, -20.0, -30.0)


def test_the_pattern_is_one_sentence():
    assert FindingsView({"lesions": LESIONS}).pattern == "3 lesion(s), both lungs, 61 % peripheral, 70 % dorsal."
    assert FindingsView({"lesions": {**LESIONS, "count": 0}}).pattern == "No lesion was found."


def test_corrected_findings_stand_beside_the_models():
    view = FindingsView(findings(), corrected())
    worse = next(score for score in view.scores if score.title == "Worse lung")
    assert (worse.model, worse.corrected) == ("13.2 %", "20.0 %")
    assert view.correction.by == "Dr <Who>" and view.correction.kinds == ("lesions",)
    assert view.diagnosis[0].name == "COVID-19", "a correction of masks does not change what the network thinks"
    assert view.affected["left_upper"] == 55.5 and view.modelRows["left_upper"].value("lesion_percent") == 10.0
    text = words(findingsHtml(view))
    assert "Corrected: lesions by Dr <Who> 2026-03-04 05:06" in text
    assert "Model Corrected" in text and "10.0 55.5" in text


def test_without_a_correction_nothing_is_said_of_one():
    assert "orrected" not in findingsHtml(FindingsView(findings()))


@given(st.text(), st.text())
def test_text_of_findings_cannot_become_markup(grade, message):
    record = {"ct_grade": f"<b>{grade}", "quality": [{"level": "warning", "message": f"<script>{message}"}]}
    rich = findingsHtml(FindingsView(record)) + researchHtml(FindingsView({"notice": f"<i>{message}"}))
    assert "<script>" not in rich and "CT-<b>" not in rich and "<i>" not in rich


@pytest.mark.parametrize("isDark", [False, True])
def test_the_research_line_names_the_engine(isDark):
    line = words(researchHtml(FindingsView(findings()), isDark))
    assert "research" in line and "joint, toy, 0" in line


def picture(affected: dict, scale: int = 1) -> np.ndarray:
    from PIL import Image

    return np.array(Image.open(io.BytesIO(lobePicture(affected, scale))))


def test_the_picture_shows_each_lobe_in_its_place_and_colour():
    shares = {"right_upper": 0.0, "right_middle": 10.0, "right_lower": 90.0, "left_upper": 30.0, "left_lower": None}
    pixels = picture(shares)
    assert pixels.shape == (HEIGHT, WIDTH, 4) and pixels[0, 0, 3] == 0
    spots = {  # (x, y) in 0..1, the patient's right on the left
        "right_upper": (0.25, 0.25),
        "right_middle": (0.35, 0.6),
        "right_lower": (0.08, 0.85),
        "left_upper": (0.75, 0.3),
        "left_lower": (0.9, 0.85),
    }
    for key, (x, y) in spots.items():
        red, green, blue, alpha = (int(v) for v in pixels[int(y * HEIGHT), int(x * WIDTH)])
        assert alpha == 255 and (red, green, blue) == affectedColor(shares[key]), key
    assert picture(shares, scale=2).shape == (2 * HEIGHT, 2 * WIDTH, 4)


def test_more_disease_is_redder():
    shown = [affectedColor(percent) for percent, _ in SCALE]
    assert shown == [color for _, color in SCALE] and affectedColor(200.0) == SCALE[-1][1]
    greens = [affectedColor(float(percent))[1] for percent in range(5, 101, 5)]
    assert greens == sorted(greens, reverse=True)
    assert affectedColor(None) == UNKNOWN


DIFFERENTIAL = [
    {
        "key": "count",
        "name": "Lesions above 50 mm³",
        "unit": "",
        "value": 3.0,
        "reference": {"covid_19": {"cases": 9, "p5": 2.0, "p25": 4.0, "p50": 8.0, "p75": 12.0, "p95": 31.4}},
    },
    {"key": "left_lower_percent", "name": "In the left lower lobe", "unit": "%", "value": 5.0, "reference": {}},
    {"key": "mean_hu", "name": "Mean density", "unit": "HU", "value": None, "reference": {}},
]


def test_lesions_stand_beside_those_of_known_cases():
    view = FindingsView({**findings(), "differential": DIFFERENTIAL})
    count, density = view.differential
    assert (count.title, count.value, count.ranges) == ("Lesions above 50 mm³", "3", {"COVID-19": "2 to 31"})
    assert (density.title, density.value, density.ranges) == ("Mean density, HU", "–", {})
    text = words(findingsHtml(view))
    assert (
        "Here COVID-19" in text
        and "Lesions above 50 mm³ 3 2 to 31" in text
        and "middle 90 % of held-out scans," in text
    )
    count = {**DIFFERENTIAL[0], "reference": {"covid_19": {**DIFFERENTIAL[0]["reference"]["covid_19"], "simulated": 9}}}
    simulated = FindingsView({**findings(), "differential": [count, *DIFFERENTIAL[1:]]})
    assert "middle 90 % of held-out simulated scans," in words(findingsHtml(simulated))
    assert "middle 90 %" not in words(findingsHtml(FindingsView(findings())))
