"""The engine m2unet: lobes of whole slices, a bag of patches, and what each patch adds, at its place in the patient."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.bundles import open_bundle
from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.engines.m2unet import M2UNetEngine
from COVIDMultitaskLib.errors import BundleError, NotChestCTError
from COVIDMultitaskLib.networks.m2unet import Reading
from COVIDMultitaskLib.preparation.grid import upright_grid
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Geometry, Volume
from Testing.library.cancelling import assert_cancelled_in, each_stage
from Testing.library.lung_scenes import STORAGES, Ball, draw, grid, positions, stored, stored_geometry
from Testing.library.tiny_bundle import write_random_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

LESION = Ball((-85.0, 25.0, -30.0), 28)
INSTANCES, PATCH_MM = 40, 32 * 4.0


class OneWhoKnows(nn.Module):
    """In place of the network: air is lung, left and right; what is as dense as ground-glass speaks for severe."""

    def __init__(self) -> None:
        super().__init__()
        self.needed = nn.Parameter(torch.zeros(1))

    def segment(self, slices: torch.Tensor) -> torch.Tensor:
        lung = slices[:, 0] < 0.7
        is_left = torch.arange(slices.shape[-1]) >= slices.shape[-1] // 2
        found = torch.where(lung, torch.where(is_left, labels.LEFT_LOWER, labels.RIGHT_LOWER), 0)
        return 9.0 * F.one_hot(found, 6).permute(0, 3, 1, 2).float()

    def encode(self, slices: torch.Tensor) -> list[torch.Tensor]:
        return [F.avg_pool2d(((slices > 0.38) & (slices < 0.5)).float(), 4)]

    def embed(self, bottom: torch.Tensor) -> torch.Tensor:
        return bottom.mean((2, 3))

    def read(self, embeddings: torch.Tensor) -> Reading:
        severe = embeddings.sum(1)
        return Reading(torch.cat([-severe, severe], 1), embeddings[..., 0])

    def relevance(self, bottom: torch.Tensor) -> torch.Tensor:
        return bottom[:, 0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = {"instances": INSTANCES}
    return write_random_bundle(tmp_path_factory.mktemp("m2unet") / "bundle", "m2unet", inference=told)


@pytest.fixture(scope="module")
def engine(bundle: Path) -> M2UNetEngine:
    knowing = M2UNetEngine(open_bundle(bundle), "cpu")
    knowing._network = OneWhoKnows()  # type: ignore[assignment]
    return knowing


SCAN, LOBES, _ = draw(grid((8.0, 6.0, 6.0)), [LESION])
LUNGS = LOBES > 0


@pytest.fixture(scope="module")
def prediction(engine: M2UNetEngine) -> Prediction:
    return engine.predict(SCAN, Progress())


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def centre_mm(evidence: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Centre of mass of a map in LPS."""
    return (positions(geometry) * evidence.astype(float)).sum((1, 2, 3)) / evidence.astype(float).sum()


def test_lobes_of_the_whole_volume(prediction: Prediction) -> None:
    assert prediction.lobes.shape == SCAN.array.shape and prediction.lobes.dtype == np.uint8
    assert dice(prediction.lobes > 0, LUNGS) > 0.93
    assert dice(prediction.lobes == labels.LEFT_LOWER, (LOBES > 0) & (LOBES <= 2)) > 0.9
    assert prediction.lesions is None and prediction.diagnosis is None and prediction.sources == {}


def test_the_bag_has_as_many_patches_as_the_bundle_says(prediction: Prediction) -> None:
    rows = prediction.evidence["patches"]
    assert rows.shape == (INSTANCES, 4) and (rows[:, 3] >= 0).all() and rows[:, 3].max() > 0
    inside = positions(SCAN.geometry)[:, LUNGS]
    assert (rows[:, 2] > inside[2].min() - 8).all() and (rows[:, 2] < inside[2].max() + 8).all()


def test_patches_that_see_the_lesion_add_to_the_severity(prediction: Prediction) -> None:
    rows = prediction.evidence["patches"]
    far = np.abs(rows[:, :3] - LESION.center_mm)
    beside = (far[:, :2] > PATCH_MM / 2 + LESION.radius_mm + 8).any(1) | (far[:, 2] > LESION.radius_mm + 8)
    over = (far[:, :2] < PATCH_MM / 2 - LESION.radius_mm).all(1) & (far[:, 2] < LESION.radius_mm / 2)
    assert over.any() and beside.any()
    assert rows[over, 3].min() > 3 * rows[beside, 3].max()
    assert prediction.severity["severe"] > 0.5


def test_evidence_lies_on_the_lesion_and_in_the_lungs(prediction: Prediction) -> None:
    evidence = prediction.evidence["severity"]
    assert evidence.shape == SCAN.array.shape and evidence.min() >= 0 and 0.5 < evidence.max() <= 1
    assert not evidence[prediction.lobes == 0].any()
    away = np.linalg.norm(positions(SCAN.geometry) - np.reshape(LESION.center_mm, (3, 1, 1, 1)), axis=0)
    strong = evidence > 0.5
    assert np.median(away[strong]) < LESION.radius_mm and (away[strong] < 2 * LESION.radius_mm).mean() > 0.9


class OneWhoSeesHealth(OneWhoKnows):
    """Everything that it sees speaks against severe disease."""

    def read(self, embeddings: torch.Tensor) -> Reading:
        scores = -1.0 - embeddings[..., 0]
        severe = scores.sum(1, keepdim=True)
        return Reading(torch.cat([-severe, severe], 1), scores)


def test_where_no_patch_speaks_for_severe_disease_there_is_no_map_of_it(bundle: Path) -> None:
    """An empty map would look like one that failed; the patches say that they speak against it."""
    engine = M2UNetEngine(open_bundle(bundle), "cpu")
    engine._network = OneWhoSeesHealth()  # type: ignore[assignment]
    found = engine.predict(SCAN, Progress())
    assert set(found.evidence) == {"patches"} and (found.evidence["patches"][:, 3] < 0).all()
    assert found.severity["severe"] < 0.5


@pytest.mark.parametrize("storage", [STORAGES[n] for n in (7, 21, 40)])
def test_how_the_scan_is_stored_makes_no_difference(engine, prediction, storage) -> None:
    other = Volume(stored(SCAN.array, storage), stored_geometry(SCAN.geometry, storage))
    got = engine.predict(other, Progress())
    assert np.mean(got.lobes != stored(prediction.lobes, storage)) < 1e-3
    np.testing.assert_allclose(got.evidence["patches"], prediction.evidence["patches"], atol=0.02)
    assert got.severity == pytest.approx(prediction.severity, abs=1e-4)


@pytest.mark.parametrize(
    "geometry",
    [grid((9.0, 6.0, 6.0), (8, -6, 15), (330.0, 330.0, 400.0)), grid((16.0, 5.0, 5.0)), grid((3.0, 9.0, 9.0))],
    ids=["oblique", "thick", "thin"],
)
def test_any_grid_has_its_lobes_and_evidence_where_they_are(engine: M2UNetEngine, geometry: Geometry) -> None:
    scan, lobes, _ = draw(geometry, [LESION])
    found = engine.predict(scan, Progress())
    assert dice(found.lobes > 0, lobes > 0) > 0.85
    assert np.linalg.norm(centre_mm(found.evidence["severity"] ** 4, geometry) - LESION.center_mm) < 30


def test_the_real_network_runs_and_its_order_of_patches_is_no_matter(bundle: Path, monkeypatch) -> None:
    """A bag is a set: read in another order, the severity is the same."""
    from COVIDMultitaskLib.engines import m2unet

    engine = M2UNetEngine(open_bundle(bundle), "cpu")
    network = engine.load()
    monkeypatch.setattr(network, "segment", OneWhoKnows().segment)
    there = engine.predict(SCAN, Progress())
    in_order = m2unet.patches_on_grid
    monkeypatch.setattr(m2unet, "patches_on_grid", lambda *given: in_order(*given)[::-1].copy())
    back = engine.predict(SCAN, Progress())
    assert back.severity == pytest.approx(there.severity, abs=1e-4)
    np.testing.assert_allclose(back.evidence["patches"][::-1], there.evidence["patches"], atol=1e-2)


def test_temperature_softens(bundle: Path, prediction: Prediction) -> None:
    opened = open_bundle(bundle)
    softer = M2UNetEngine(
        dataclasses.replace(opened, inference={**opened.inference, "temperature": {"severity": 50.0}}), "cpu"
    )
    softer._network = OneWhoKnows()  # type: ignore[assignment]
    assert softer.predict(SCAN, Progress()).severity["severe"] == pytest.approx(0.5, abs=0.05)
    assert abs(prediction.severity["severe"] - 0.5) > 0.05


def test_hardly_any_lung_is_no_chest_ct(engine: M2UNetEngine) -> None:
    water = SCAN.with_array(np.full_like(SCAN.array, 30))
    with pytest.raises(NotChestCTError, match="Hardly any lung was found"):
        engine.predict(water, Progress())


@each_stage
def test_it_can_be_cancelled_in_every_stage(engine, stage: str, monkeypatch) -> None:
    assert_cancelled_in(stage, engine, SCAN, monkeypatch)


@pytest.mark.parametrize(
    "wrong",
    [{"patch": 40}, {"patch": 0}, {"instances": 0}, {"spacing_mm": None}, {"temperature": {"diagnosis": 1.0}}],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bundle: Path, wrong) -> None:
    opened = open_bundle(bundle)
    with pytest.raises(BundleError, match="lacks a setting or holds a wrong one"):
        M2UNetEngine(dataclasses.replace(opened, inference={**opened.inference, **wrong}), "cpu")


def test_a_patient_smaller_than_a_patch_gets_air_around(engine: M2UNetEngine) -> None:
    """A scan cut close to a child's lungs: its slices are narrower than a patch."""
    geometry = Geometry((26, 18, 30), (8.0, 6.0, 6.0), (-87.0, -50.0, -100.0))
    assert upright_grid(geometry, 4.0).shape[1] < 32
    x, y, z = positions(geometry)
    inside = ((np.abs(x) - 45) / 35) ** 2 + (y / 45) ** 2 + (z / 90) ** 2 < 1
    found = engine.predict(Volume(np.where(inside, -850, 40).astype(np.int16), geometry), Progress())
    assert dice(found.lobes > 0, inside) > 0.8 and len(found.evidence["patches"]) == INSTANCES
