"""The engine deepsc-covid from a scan to lesions, diagnosis, evidence and comparison on the scan's own grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.bundles import open_bundle
from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.engines.deepsc_covid import DeepSCCovidEngine, lung_box
from COVIDMultitaskLib.engines.registry import ENGINES, make_engine
from COVIDMultitaskLib.engines.support import Support
from COVIDMultitaskLib.errors import BundleError, NotChestCTError
from COVIDMultitaskLib.measuring import measure
from COVIDMultitaskLib.networks.deepsc_covid import normalise
from COVIDMultitaskLib.preparation.grid import resample
from COVIDMultitaskLib.progress import Event, Progress
from COVIDMultitaskLib.reference_ranges import ReferenceRange
from COVIDMultitaskLib.volume import Geometry, Volume
from Testing.library.cancelling import assert_cancelled_in, each_stage
from Testing.library.lung_scenes import IDENTITY, STORAGES, draw, grid, stored, stored_geometry
from Testing.library.tiny_bundle import write_random_bundle, write_tiny_bundle

pytestmark = pytest.mark.usefixtures("one_thread")


class OracleOfLungs:
    """Knows where the lungs of the drawn patient are, on any grid."""

    identity = IDENTITY
    name, takes = "joint", "scan"
    answers = frozenset({"lobes"})

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, volume: Volume, progress: Progress) -> Prediction:
        self.asked += 1
        return Prediction(IDENTITY, lobes=draw(volume.geometry)[1])


SCAN, LOBES, _ = draw(grid((8.0, 6.0, 6.0)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("deepsc") / "bundle", "deepsc-covid")


@pytest.fixture(scope="module")
def engine(bundle: Path) -> DeepSCCovidEngine:
    """To its random network half of the lung box is lesion."""
    return curious(bundle)


def curious(bundle: Path, **told: object) -> DeepSCCovidEngine:
    opened = open_bundle(bundle)
    middle = float(np.median(_probabilities(DeepSCCovidEngine(opened, "cpu"))))
    told = {**opened.inference, "lesion_threshold": middle, **told}
    return DeepSCCovidEngine(dataclasses.replace(opened, inference=told), "cpu", Support(OracleOfLungs()))


def _probabilities(engine: DeepSCCovidEngine) -> np.ndarray:
    """What the network says of the drawn scan's lung box."""
    box = lung_box(LOBES, SCAN.geometry, engine.settings.shape, engine.settings.margin_mm)
    with torch.inference_mode():
        found = engine.load()(normalise(torch.from_numpy(resample(SCAN, box)))[None, None])
    return found.lesion_logits[0].sigmoid().numpy()


@pytest.fixture(scope="module")
def prediction(engine: DeepSCCovidEngine) -> Prediction:
    return engine.predict(SCAN, Progress())


def test_lesions_diagnosis_and_evidence_on_the_scans_grid(prediction: Prediction) -> None:
    assert prediction.lesions.shape == SCAN.array.shape and prediction.lesions.dtype == np.uint8
    assert set(np.unique(prediction.lesions)) == {0, labels.GROUND_GLASS, labels.CONSOLIDATION}
    assert list(prediction.diagnosis) == list(labels.DIAGNOSES)
    assert sum(prediction.diagnosis.values()) == pytest.approx(1)
    assert prediction.lobes is None and prediction.severity is None and prediction.covid is None
    assert prediction.lungs is not None and prediction.sources == {"lungs": IDENTITY}
    evidence = prediction.evidence["class_activation"]
    assert evidence.shape == SCAN.array.shape and 0 <= evidence.min() < evidence.max() <= 1


def test_nothing_lies_outside_the_lungs(prediction: Prediction) -> None:
    outside = LOBES == 0
    assert not prediction.lesions[outside].any() and not prediction.evidence["class_activation"][outside].any()


def test_dense_lesions_are_consolidation(prediction: Prediction) -> None:
    dense = SCAN.array[prediction.lesions == labels.CONSOLIDATION]
    thin = SCAN.array[prediction.lesions == labels.GROUND_GLASS]
    assert np.median(dense) > -300 > np.median(thin)


@pytest.mark.parametrize("storage", [STORAGES[n] for n in (5, 12, 29, 46)])
def test_how_the_scan_is_stored_makes_no_difference(engine, prediction, storage) -> None:
    other = Volume(stored(SCAN.array, storage), stored_geometry(SCAN.geometry, storage))
    got = engine.predict(other, Progress())
    assert np.mean(got.lesions != stored(prediction.lesions, storage)) < 1e-3
    expected = stored(prediction.evidence["class_activation"], storage).astype(float)
    np.testing.assert_allclose(got.evidence["class_activation"].astype(float), expected, atol=2e-3)
    assert got.diagnosis == pytest.approx(prediction.diagnosis, abs=1e-3)


@pytest.mark.parametrize(
    "geometry",
    [
        grid((8.0, 6.0, 6.0), (12, -8, 20), (330.0, 330.0, 400.0)),
        grid((16.0, 4.0, 5.0)),
        grid((8.0, 6.0, 6.0), shear=0.25),
    ],
    ids=["oblique", "anisotropic", "sheared"],
)
def test_evidence_lies_where_the_upright_scan_has_it(engine, prediction, geometry: Geometry) -> None:
    """The same patient on another grid: the map is the same at the same place of the patient."""
    scan, lobes, _ = draw(geometry)
    evidence = engine.predict(scan, Progress()).evidence["class_activation"].astype(float)
    assert evidence.shape == geometry.shape
    upright = prediction.evidence["class_activation"].astype(float)
    places = np.stack(np.nonzero(lobes))
    lps = geometry.affine[:3, :3] @ places + geometry.affine[:3, 3:]
    same, shifted, mirrored = (
        _correlation(evidence, places, upright, moved) for moved in (lps, lps + 20.0, lps * [[-1], [1], [1]])
    )
    assert same > 0.55 and same > 0.2 + max(shifted, mirrored)


def _correlation(evidence: np.ndarray, places: np.ndarray, upright: np.ndarray, lps: np.ndarray) -> float:
    """Between the map at voxels and the upright scan's at positions in LPS mm, where it reaches them."""
    to_index = np.linalg.inv(SCAN.geometry.affine)
    index = np.rint(to_index[:3, :3] @ lps + to_index[:3, 3:]).astype(int)
    within = ((index >= 0) & (index < np.array(upright.shape)[:, None])).all(0)
    return float(np.corrcoef(evidence[tuple(places[:, within])], upright[tuple(index[:, within])])[0, 1])


def test_temperature_softens(tmp_path: Path) -> None:
    answers = []
    for name, temperature in (("sharp", 0.05), ("soft", 50.0)):
        folder = write_random_bundle(
            tmp_path / name, "deepsc-covid", inference={"temperature": {"diagnosis": temperature}}
        )
        engine = DeepSCCovidEngine(open_bundle(folder), "cpu", Support(OracleOfLungs()))
        answers.append(engine.predict(SCAN, Progress()).diagnosis)
    sharp, soft = answers
    assert max(sharp.values()) > max(soft.values()) and max(soft.values()) == pytest.approx(1 / 3, abs=0.02)
    assert max(sharp, key=sharp.get) == max(soft, key=soft.get)


def test_the_bundles_distributions_stand_beside_the_case(tmp_path: Path) -> None:
    one = ReferenceRange(12, 1.0, 2.0, 3.0, 4.0, 5.0)
    told = {"covid_19": {"count": dataclasses.asdict(one)}}
    engine = curious(write_random_bundle(tmp_path / "b", "deepsc-covid"), lesion_reference=told)
    (row,) = measure(SCAN, engine.predict(SCAN, Progress())).differential
    assert row.key == "count" and row.reference == {"covid_19": one} and row.value is not None


def test_without_distributions_there_is_no_comparison(prediction: Prediction) -> None:
    assert measure(SCAN, prediction).differential is None


@each_stage
def test_it_can_be_cancelled_in_every_stage(engine, stage: str, monkeypatch) -> None:
    assert_cancelled_in(stage, engine, SCAN, monkeypatch)


def test_it_stops_between_layers(engine, monkeypatch) -> None:
    """A pass over a full-size box takes many seconds."""
    monkeypatch.setattr("COVIDMultitaskLib.progress.QUIET_S", 0.0)
    steps: list[float] = []

    def listen(event: Event) -> None:
        if event.stage == "predict":
            steps.append(event.fraction)

    engine.predict(SCAN, Progress(listen))
    assert len(steps) > 40 and steps == sorted(steps)


def test_hardly_any_lung_is_no_chest_ct(bundle: Path) -> None:
    class Lungless(OracleOfLungs):
        def predict(self, volume: Volume, progress: Progress) -> Prediction:
            return Prediction(IDENTITY, lobes=np.zeros(volume.array.shape, np.uint8))

    engine = DeepSCCovidEngine(open_bundle(bundle), "cpu", Support(Lungless()))
    with pytest.raises(NotChestCTError, match=r"Hardly any lung was found \(0 ml\)"):
        engine.predict(SCAN, Progress())


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [96, 160]},
        {"shape": [96, 150, 160]},
        {"shape": [8, 16, 16]},
        {"shape": None},
        {"margin_mm": -1},
        {"lesion_threshold": 0},
        {"temperature": {}},
        {"lesion_reference": {"influenza": {}}},
        {"lesion_reference": {"covid_19": {"count": {"cases": 3}}}},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, bundle: Path, wrong) -> None:
    import json

    from COVIDMultitaskLib import bundles

    told = {**json.loads((bundle / bundles.INFERENCE).read_text()), **wrong}
    opened = dataclasses.replace(open_bundle(bundle), inference=told)
    with pytest.raises(BundleError, match="lacks a setting or holds a wrong one"):
        DeepSCCovidEngine(opened, "cpu", Support(OracleOfLungs()))


def test_a_bundle_of_another_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is for the engine joint, not for deepsc-covid"):
        make_engine("deepsc-covid", write_tiny_bundle(tmp_path / "b"), "cpu")


def test_it_is_listed() -> None:
    assert ENGINES["deepsc-covid"] is DeepSCCovidEngine
    assert DeepSCCovidEngine.answers == {"lesions", "diagnosis"} and DeepSCCovidEngine.takes == "lung_box"
