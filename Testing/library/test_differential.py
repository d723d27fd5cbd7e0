"""Statistics of the lesions for the differential, and the distributions shown beside them."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from COVIDMultitaskLib.findings import Findings
from COVIDMultitaskLib.labels import DIAGNOSES, LOBES
from COVIDMultitaskLib.measuring import measure, measure_masks
from COVIDMultitaskLib.measuring.differential import (
    LEAST_CASES,
    STATISTICS,
    KnownCase,
    compare,
    lesion_statistics,
    reference_of,
)
from COVIDMultitaskLib.reference_ranges import read_reference
from COVIDMultitaskLib.reporting.table import print_findings
from COVIDMultitaskLib.volume import Geometry
from Testing.library.lung_scenes import STORAGES, Ball, answer, draw, grid, stored, stored_geometry

SCENE = draw(grid((5.0, 4.0, 4.0)))


def measured(lesions: tuple[Ball, ...] | None = None) -> Findings:
    volume, lobes, lesion_map = SCENE if lesions is None else draw(grid((5.0, 4.0, 4.0)), lesions)
    return measure(volume, answer(lobes, lesion_map))


def test_statistics_are_what_the_findings_say() -> None:
    found = measured()
    got = lesion_statistics(found)
    assert list(got) == [statistic.key for statistic in STATISTICS]
    assert got["count"] == found.lesions.count == 3
    assert got["volume_ml"] == found.total.lesion_volume_ml and got["bilateral"] == 1.0
    assert got["mean_hu"] == found.total.mean_lesion_hu
    in_lobes = [got[f"{lobe.key}_percent"] for lobe in LOBES]
    assert sum(in_lobes) == pytest.approx(100, abs=0.1)
    assert got["left_percent"] == pytest.approx(sum(in_lobes[:2]), abs=0.1)
    solid = found.total.consolidation_volume_ml / found.total.lesion_volume_ml
    assert got["consolidation_percent"] == pytest.approx(100 * solid, abs=1e-3)


def test_high_lesions_lie_high() -> None:
    low, high = (measured((Ball((75.0, 10.0, z), 10),)).lesions.height_percent for z in (-90.0, 80.0))
    # the lung reaches from -115 to 105 mm
    assert low == pytest.approx(100 * 25 / 220, abs=2) and high == pytest.approx(100 * 195 / 220, abs=2)


def test_without_lesions_only_counts_and_volumes_are_known() -> None:
    got = lesion_statistics(measured(()))
    assert {key for key, value in got.items() if value is not None} == {
        "count",
        "volume_ml",
        "affected_percent",
        "bilateral",
    }


# -- the boundary


def block(spacing: tuple[float, float, float], inside: float, outside: float, noise: float = 0.0):
    """A cuboid lesion in the middle of a lung that fills the field of view."""
    geometry = Geometry((20, 24, 24), spacing, (0, 0, 0))
    lobes, lesions = np.full(geometry.shape, 1, np.uint8), np.zeros(geometry.shape, np.uint8)
    lesions[6:14, 8:16, 8:16] = 1
    hu = np.where(lesions > 0, inside, outside) + np.random.default_rng(0).normal(0, noise, geometry.shape)
    return lobes, lesions, geometry, hu.astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (1.25, 2.0, 0.5)])
def test_the_rise_at_the_boundary_is_per_millimetre_and_by_area(spacing: tuple[float, float, float]) -> None:
    faces = [np.prod(np.delete(spacing, axis)) for axis in range(3)]
    expected = 300 * np.average([1 / step for step in spacing], weights=faces)
    got = measure_masks(*block(spacing, -500.0, -800.0)).lesions.boundary_gradient_hu_per_mm
    assert got == pytest.approx(expected, rel=1e-3)


def test_noise_makes_no_boundary() -> None:
    got = measure_masks(*block((1.0, 1.0, 1.0), -800.0, -800.0, noise=60.0)).lesions.boundary_gradient_hu_per_mm
    assert abs(got) < 15


def test_a_softer_boundary_rises_less() -> None:
    from scipy import ndimage

    lobes, lesions, geometry, hu = block((1.0, 1.0, 1.0), -500.0, -800.0)
    sharp, soft = (
        measure_masks(lobes, lesions, geometry, values).lesions.boundary_gradient_hu_per_mm
        for values in (hu, ndimage.gaussian_filter(hu, 1.5))
    )
    assert 0 < soft < 0.5 * sharp


def test_the_pleura_is_no_boundary() -> None:
    lobes, lesions, geometry, hu = block((1.0, 1.0, 1.0), -500.0, -800.0)
    before = measure_masks(lobes, lesions, geometry, hu).lesions.boundary_gradient_hu_per_mm
    lobes[14:], hu[14:] = 0, 2000.0  # bone touches the lesion from above
    after = measure_masks(lobes, lesions, geometry, hu).lesions.boundary_gradient_hu_per_mm
    assert after == pytest.approx(before, abs=0.01)


def test_slabs_hide_no_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    case = block((1.0, 1.3, 0.9), -500.0, -800.0, noise=30.0)
    whole = measure_masks(*case).lesions.boundary_gradient_hu_per_mm
    monkeypatch.setattr("COVIDMultitaskLib.measuring.masks._SLAB_VOXELS", 24 * 24)
    assert measure_masks(*case).lesions.boundary_gradient_hu_per_mm == pytest.approx(whole, abs=0.01)


def test_it_is_unknown_without_lobes_lesions_or_hu() -> None:
    lobes, lesions, geometry, hu = block((1.0, 1.0, 1.0), -500.0, -800.0)
    for case in ((None, lesions, geometry, hu), (lobes, lesions * 0, geometry, hu), (lobes, lesions, geometry, None)):
        assert measure_masks(*case).lesions.boundary_gradient_hu_per_mm is None


@pytest.mark.parametrize("storage", [STORAGES[n] for n in (3, 10, 21, 40)])
def test_how_the_scan_is_stored_makes_no_difference(storage) -> None:
    volume, lobes, lesions = SCENE
    arrays = [stored(array, storage) for array in (lobes, lesions)]
    geometry = stored_geometry(volume.geometry, storage)
    got = measure_masks(*arrays, geometry, stored(volume.array, storage)).lesions
    expected = measured().lesions
    assert got.boundary_gradient_hu_per_mm == pytest.approx(expected.boundary_gradient_hu_per_mm, abs=0.02)
    assert got.height_percent == pytest.approx(expected.height_percent, abs=0.02)


# -- reference distributions


def with_count(count: int) -> Findings:
    found = measured()
    return dataclasses.replace(found, lesions=dataclasses.replace(found.lesions, count=count))


FOUND = measured()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=LEAST_CASES, max_size=40))
def test_percentiles_are_the_cases_own(counts: list[int]) -> None:
    cases = [dataclasses.replace(FOUND, lesions=dataclasses.replace(FOUND.lesions, count=n)) for n in counts]
    got = reference_of(KnownCase("covid_19", case) for case in cases)["covid_19"]["count"]
    assert got.cases == len(counts) and got.p50 == pytest.approx(np.median(counts))
    assert min(counts) <= got.p5 <= got.p25 <= got.p50 <= got.p75 <= got.p95 <= max(counts)


def test_a_handful_of_cases_is_no_distribution() -> None:
    cases = [KnownCase("covid_19", FOUND)] * LEAST_CASES + [KnownCase("other_pneumonia", FOUND)] * (LEAST_CASES - 1)
    reference = reference_of(cases)
    assert reference["covid_19"] and not reference["other_pneumonia"]
    rows = compare(FOUND, reference)
    assert {tuple(row.reference) for row in rows} == {("covid_19",)}


def test_a_diagnosis_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no diagnosis 'influenza'"):
        reference_of([KnownCase("influenza", FOUND)])


def test_the_case_stands_beside_every_class() -> None:
    cases = [KnownCase(name, with_count(n)) for n in range(10) for name in ("covid_19", "no_pneumonia")]
    rows = {row.key: row for row in compare(with_count(42), reference_of(cases))}
    assert rows["count"].value == 42 and rows["count"].reference["covid_19"].p95 < 10
    assert list(rows["count"].reference) == ["no_pneumonia", "covid_19"]
    assert rows["peripheral_percent"].value == pytest.approx(FOUND.lesions.peripheral_percent)


def test_a_statistic_that_cannot_be_told_stays_empty() -> None:
    reference = reference_of([KnownCase("covid_19", FOUND)] * LEAST_CASES)
    rows = {row.key: row for row in compare(measured(()), reference)}
    assert rows["peripheral_percent"].value is None and rows["count"].value == 0


def test_distributions_survive_a_bundles_json() -> None:
    reference = reference_of([KnownCase("covid_19", with_count(n)) for n in range(8)])
    told = {name: {key: dataclasses.asdict(one) for key, one in of.items()} for name, of in reference.items()}
    assert read_reference(json.loads(json.dumps(told))) == reference


GOOD = {"cases": 9, "p5": 1.0, "p25": 2.0, "p50": 3.0, "p75": 4.0, "p95": 5.0}


@pytest.mark.parametrize(
    "told",
    [
        {"influenza": {"count": GOOD}},
        {"covid_19": {"count": {**GOOD, "p5": 9.0}}},
        {"covid_19": {"count": {**GOOD, "cases": 0}}},
        {"covid_19": {"count": {**GOOD, "p95": float("nan")}}},
        {"covid_19": {"count": {"cases": 9}}},
        {"covid_19": {"count": {**GOOD, "simulated": 10}}},
        {"covid_19": {"count": 3}},
    ],
)
def test_a_bundles_distributions_must_make_sense(told) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_reference(told)


@pytest.mark.parametrize(
    ("simulated", "words"),
    [
        (0, "held-out scans:"),
        (LEAST_CASES, "held-out simulated scans:"),
        (1, "held-out scans, some of them simulated:"),
    ],
)
def test_what_the_known_cases_are_is_said(simulated: int, words: str) -> None:
    reference = reference_of([KnownCase("covid_19", FOUND, n < simulated) for n in range(LEAST_CASES)])
    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    print_findings(dataclasses.replace(FOUND, differential=compare(FOUND, reference)), console)
    assert f"Lesions beside those of {words}" in console.file.getvalue()


def test_findings_with_a_differential_survive_json() -> None:
    reference = reference_of([KnownCase("covid_19", FOUND)] * LEAST_CASES)
    found = dataclasses.replace(FOUND, differential=compare(FOUND, reference))
    assert Findings.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert "differential" not in FOUND.to_dict()


def test_a_terminal_of_80_columns_shows_every_figure_of_the_case() -> None:
    reference = reference_of(
        [KnownCase(diagnosis, FOUND, is_simulated=True) for diagnosis in DIAGNOSES for _ in range(LEAST_CASES)]
    )
    wide = dataclasses.replace(reference["covid_19"]["volume_ml"], p5=12345.6, p50=23456.7, p95=34567.8)
    reference = {name: {**one, "volume_ml": wide} for name, one in reference.items()}
    found = dataclasses.replace(FOUND, differential=compare(FOUND, reference))
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    print_findings(found, console)
    table = console.file.getvalue().split("Lesions beside those of held-out simulated scans")[1]
    assert "…" not in table and f"{FOUND.total.lesion_volume_ml:.1f}" in table


def test_an_engines_reference_comes_with_the_findings() -> None:
    volume, lobes, lesions = SCENE
    reference = reference_of([KnownCase("covid_19", FOUND)] * LEAST_CASES)
    found = measure(volume, answer(lobes, lesions, lesion_reference=reference))
    assert found.differential == compare(FOUND, reference)
    assert measure(volume, answer(lobes, None, lesion_reference=reference)).differential is None
