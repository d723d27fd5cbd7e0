"""The engine triage: lesions and COVID-19 in the box around the lungs, and what each slice adds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.bundles import open_bundle
from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.engines.support import Support
from COVIDMultitaskLib.engines.triage import TriageEngine
from COVIDMultitaskLib.errors import BundleError
from COVIDMultitaskLib.measuring import measure
from COVIDMultitaskLib.networks.triage import VARIANTS, SliceMaps
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume
from Testing.library.cancelling import assert_cancelled_in, each_stage
from Testing.library.lung_scenes import IDENTITY, STORAGES, Ball, draw, grid, stored, stored_geometry
from Testing.library.test_engine_deepsc_covid import OracleOfLungs
from Testing.library.tiny_bundle import write_random_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

SCAN, LOBES, KINDS = draw(grid((8.0, 6.0, 6.0)))


class OneWhoKnows(nn.Module):
    """In place of the network: what is denser than lung is lesion, and COVID-19 the more of it there is."""

    def __init__(self) -> None:
        super().__init__()
        self.needed = nn.Parameter(torch.zeros(1))

    def read_slices(self, slices: torch.Tensor) -> SliceMaps:
        dense = ((slices - 0.2) * 40).clamp(-4, 4)
        return SliceMaps(dense, dense)

    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        is_lesion = (maps > 0).float()
        return (maps * is_lesion).sum((1, 2, 3, 4))[:, None] / 1e4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("triage") / "bundle", "triage")


def made(bundle: Path, network: nn.Module | None = None, **told: object) -> TriageEngine:
    opened = open_bundle(bundle)
    inference = {**opened.inference, **told}
    engine = TriageEngine(dataclasses.replace(opened, inference=inference), "cpu", Support(OracleOfLungs()))
    engine._network = network  # type: ignore[assignment]
    return engine


@pytest.fixture(scope="module")
def engine(bundle: Path) -> TriageEngine:
    return made(bundle, OneWhoKnows())


@pytest.fixture(scope="module")
def prediction(engine: TriageEngine) -> Prediction:
    return engine.predict(SCAN, Progress())


def test_lesions_on_the_scans_grid_and_in_its_lungs(prediction: Prediction) -> None:
    found, true = prediction.lesions > 0, KINDS > 0
    assert prediction.lesions.shape == SCAN.array.shape and not found[LOBES == 0].any()
    deep = true & (SCAN.array > -700)
    assert found[deep].mean() > 0.95
    assert (prediction.lesions[KINDS == labels.CONSOLIDATION] == labels.CONSOLIDATION).mean() > 0.6
    assert (prediction.lesions[KINDS == labels.GROUND_GLASS] == labels.GROUND_GLASS).mean() > 0.8
    assert prediction.lobes is None and prediction.severity is None and prediction.diagnosis is None
    assert 0.5 < prediction.covid <= 1 and prediction.sources == {"lungs": IDENTITY}


def test_its_two_keys_for_a_work_list_are_measured(prediction: Prediction) -> None:
    findings = measure(SCAN, prediction)
    by_lung = {region.key: region.lesion_percent for region in findings.lungs}
    assert findings.worst_lung_percent == max(by_lung.values()) > 0
    assert findings.covid_probability == pytest.approx(prediction.covid)


def test_what_the_slices_add_makes_up_the_log_odds(prediction: Prediction) -> None:
    """The stand-in's answer is a sum over slices: their parts add up to it, each where the slice lies."""
    rows = prediction.evidence["slices"]
    assert np.allclose(np.diff(rows[:, 2]), 8.0, atol=0.6) and len(rows) == LOBES.any((1, 2)).sum()
    log_odds = np.log(prediction.covid / (1 - prediction.covid))
    assert rows[:, 3].sum() == pytest.approx(log_odds, rel=1e-3)


def test_a_lesion_adds_where_it_lies(engine: TriageEngine) -> None:
    healthy, ill = (
        engine.predict(draw(SCAN.geometry, lesions)[0], Progress()).evidence["slices"]
        for lesions in ([], [Ball((-85.0, 25.0, -50.0), 24)])
    )
    np.testing.assert_array_equal(ill[:, :3], healthy[:, :3])
    added = ill[:, 3] - healthy[:, 3]
    near = np.abs(ill[:, 2] - -50) < 20
    assert added[near].min() > 0.01 and np.abs(added[np.abs(ill[:, 2] - -50) > 32]).max() < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_networks_variants_answer(bundle: Path, variant: str, tmp_path: Path) -> None:
    network = {"width": 2, "hidden": 8, "variant": variant}
    engine = made(write_random_bundle(tmp_path / "b", "triage", network=network))
    found = engine.predict(SCAN, Progress())
    assert 0 < found.covid < 1 and np.abs(found.evidence["slices"][:, 3]).max() > 0


@pytest.mark.parametrize("storage", [STORAGES[n] for n in (4, 18, 37)])
def test_how_the_scan_is_stored_makes_no_difference(engine, prediction, storage) -> None:
    other = Volume(stored(SCAN.array, storage), stored_geometry(SCAN.geometry, storage))
    got = engine.predict(other, Progress())
    assert np.mean(got.lesions != stored(prediction.lesions, storage)) < 1e-3
    assert got.covid == pytest.approx(prediction.covid, abs=1e-3)
    np.testing.assert_allclose(got.evidence["slices"], prediction.evidence["slices"], atol=0.01)


@pytest.mark.parametrize(
    "geometry",
    [grid((9.0, 6.0, 6.0), (10, -8, 20), (330.0, 330.0, 400.0)), grid((20.0, 5.0, 5.0)), grid((3.0, 9.0, 9.0))],
    ids=["oblique", "thick", "thin"],
)
def test_any_grid_comes_back(engine: TriageEngine, geometry: Geometry) -> None:
    scan, lobes, kinds = draw(geometry)
    found = engine.predict(scan, Progress())
    assert found.lesions.shape == geometry.shape and not found.lesions[lobes == 0].any()
    assert (found.lesions[kinds > 0] > 0).mean() > 0.7


def test_the_threshold_is_the_bundles(bundle: Path, prediction: Prediction) -> None:
    strict = made(bundle, OneWhoKnows(), lesion_threshold=0.97).predict(SCAN, Progress()).lesions > 0
    assert 0 < strict.sum() < (prediction.lesions > 0).sum()


def test_temperature_softens(bundle: Path, prediction: Prediction) -> None:
    soft = made(bundle, OneWhoKnows(), temperature={"covid": 10.0}).predict(SCAN, Progress()).covid
    assert np.log(soft / (1 - soft)) * 10 == pytest.approx(np.log(prediction.covid / (1 - prediction.covid)), rel=1e-3)


@each_stage
def test_it_can_be_cancelled_in_every_stage(engine, stage: str, monkeypatch) -> None:
    assert_cancelled_in(stage, engine, SCAN, monkeypatch)


@pytest.mark.parametrize(
    "wrong", [{"spacing_mm": 0}, {"slice_mm": "thin"}, {"lesion_threshold": 1}, {"temperature": {}}], ids=str
)
def test_settings_that_make_no_sense_are_refused(bundle: Path, wrong) -> None:
    with pytest.raises(BundleError, match="lacks a setting or holds a wrong one"):
        made(bundle, **wrong)
