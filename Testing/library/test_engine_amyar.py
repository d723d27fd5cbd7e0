"""The engine amyar: a scan slice by slice, and a single picture with what little it allows."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from COVIDMultitaskLib import labels
from COVIDMultitaskLib.bundles import open_bundle
from COVIDMultitaskLib.engines.amyar import TOP_SHARE, AmyarEngine, lung_box, scan_probability
from COVIDMultitaskLib.engines.contract import Prediction, Unlikeness
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.engines.support import FilledEngine, Support
from COVIDMultitaskLib.errors import BundleError, InputError
from COVIDMultitaskLib.findings import Findings
from COVIDMultitaskLib.measuring import measure
from COVIDMultitaskLib.pipeline import analyze_to_folder, read_scan
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading.picture import read_picture
from COVIDMultitaskLib.reporting import print_findings
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Volume
from Testing.library.lung_scenes import IDENTITY, STORAGES, draw, grid, stored, stored_geometry
from Testing.library.test_engine_deepsc_covid import OracleOfLungs
from Testing.library.test_reading_picture import chest_picture, write_grey
from Testing.library.tiny_bundle import write_random_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

SCAN, LOBES, _ = draw(grid((8.0, 6.0, 6.0)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("amyar") / "bundle", "amyar", seed=1)


@pytest.fixture(scope="module")
def engine(bundle: Path) -> AmyarEngine:
    """With a threshold in the middle of what its random network says of the scan."""
    opened = open_bundle(bundle)
    curious = AmyarEngine(opened, "cpu", Support(OracleOfLungs()))
    lesion = _raw(curious)
    told = {**opened.inference, "lesion_threshold": float(np.median(lesion))}
    return AmyarEngine(dataclasses.replace(opened, inference=told), "cpu", Support(OracleOfLungs()))


def _raw(engine: AmyarEngine) -> np.ndarray:
    """What the network says of the drawn scan, slice by slice."""
    from COVIDMultitaskLib.preparation.grid import resample

    box = lung_box(LOBES, SCAN.geometry, engine.settings.side, engine.settings.slice_mm, engine.settings.margin_mm)
    with torch.inference_mode():
        return engine._read(engine._device, resample(SCAN, box), Progress()).lesion.numpy()


@pytest.fixture(scope="module")
def prediction(engine: AmyarEngine) -> Prediction:
    return engine.predict(SCAN, Progress())


def test_a_scan_slice_by_slice(prediction: Prediction) -> None:
    assert prediction.lesions.shape == SCAN.array.shape and prediction.lesions.any()
    assert set(np.unique(prediction.lesions)) <= {0, labels.GROUND_GLASS, labels.CONSOLIDATION}
    assert not prediction.lesions[LOBES == 0].any()
    assert 0 <= prediction.covid <= 1 and prediction.diagnosis is None and prediction.lobes is None
    assert prediction.sources == {"lungs": IDENTITY}
    assert prediction.unlikeness.threshold == 3.0


def test_each_slice_has_its_probability_where_it_lies(prediction: Prediction) -> None:
    """Twelve millimetres apart over 220 mm of lungs and a margin of ten at both ends."""
    assert list(prediction.evidence) == ["slice_probabilities"], "no contributions, which would add up"
    rows = prediction.evidence["slice_probabilities"]
    assert len(rows) == 20
    assert np.diff(rows[:, 2]) == pytest.approx(12.0, abs=0.5)
    middle = (rows[0, 2] + rows[-1, 2]) / 2
    assert middle == pytest.approx(-5.0, abs=5) and ((rows[:, 3] > 0) & (rows[:, 3] < 1)).all()
    assert prediction.covid == pytest.approx(scan_probability(rows[:, 3]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=120))
def test_the_most_suspicious_slices_speak_for_the_scan(by_slice: list[float]) -> None:
    got = scan_probability(np.array(by_slice))
    top = sorted(by_slice)[-max(1, round(TOP_SHARE * len(by_slice))) :]
    assert got == pytest.approx(np.mean(top), abs=1e-9) and np.mean(by_slice) - 1e-9 <= got <= max(by_slice) + 1e-9


@pytest.mark.parametrize("storage", [STORAGES[n] for n in (6, 19, 33)])
def test_how_the_scan_is_stored_makes_no_difference(engine, prediction, storage) -> None:
    other = Volume(stored(SCAN.array, storage), stored_geometry(SCAN.geometry, storage))
    got = engine.predict(other, Progress())
    assert np.mean(got.lesions != stored(prediction.lesions, storage)) < 2e-3
    assert got.covid == pytest.approx(prediction.covid, abs=1e-3)
    np.testing.assert_allclose(
        got.evidence["slice_probabilities"], prediction.evidence["slice_probabilities"], atol=0.01
    )


@pytest.mark.parametrize(
    "geometry", [grid((9.0, 6.0, 6.0), degrees=(10, -8, 20)), grid((20.0, 5.0, 5.0))], ids=["oblique", "thick"]
)
def test_any_grid_comes_back(engine: AmyarEngine, geometry: Geometry) -> None:
    scan, lobes, _ = draw(geometry)
    found = engine.predict(scan, Progress())
    assert found.lesions.shape == geometry.shape and found.lesions.any() and not found.lesions[lobes == 0].any()
    steps = np.diff(found.evidence["slice_probabilities"][:, 2])
    assert steps == pytest.approx(max(12.0, geometry.spacing_mm[0]), rel=0.06)


def test_what_is_reconstructed_badly_is_unlike_the_training_data(bundle: Path) -> None:
    """The z-score of the squared error against that of held-out slices."""
    opened = open_bundle(bundle)
    scores = []
    for mean, deviation in ((0.0, 0.01), (0.0, 0.02), (0.05, 0.02)):
        told = {**opened.inference, "unlikeness": {"mean": mean, "deviation": deviation, "threshold": 3.0}}
        engine = AmyarEngine(dataclasses.replace(opened, inference=told), "cpu", Support(OracleOfLungs()))
        scores.append(engine.predict(SCAN, Progress()).unlikeness.score)
    error = 0.01 * scores[0]
    assert 0 < error < 1
    assert scores[1:] == pytest.approx([error / 0.02, (error - 0.05) / 0.02])


def with_side(bundle: Path, side: int) -> AmyarEngine:
    opened = open_bundle(bundle)
    told = {**opened.inference, "side": side, "lesion_threshold": 0.01}
    return AmyarEngine(dataclasses.replace(opened, inference=told), "cpu", Support(OracleOfLungs()))


@pytest.mark.parametrize("side", [64, 112])
def test_a_bundle_may_ask_for_smaller_slices(bundle: Path, prediction: Prediction, side: int) -> None:
    """Than the 256 pixels that are published; each answer is still on the scan's own grid."""
    small = with_side(bundle, side)
    assert _raw(small).shape[1:] == (side, side)
    found = small.predict(SCAN, Progress())
    assert found.lesions.shape == SCAN.array.shape and found.lesions.any() and not found.lesions[LOBES == 0].any()
    np.testing.assert_allclose(
        found.evidence["slice_probabilities"][:, :3], prediction.evidence["slice_probabilities"][:, :3], atol=3.0
    )


def test_slices_that_cannot_be_halved_so_often_are_refused(bundle: Path) -> None:
    with pytest.raises(BundleError):
        with_side(bundle, 68).predict(SCAN, Progress())


# -- pictures


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_grey(chest_picture((150, 200)), tmp_path / "slice.png")


def test_a_picture_gives_only_what_it_allows(engine: AmyarEngine, picture: Path) -> None:
    volume = read_picture(picture)
    prediction = engine.predict(volume, Progress())
    assert prediction.lesions.shape == (1, 150, 200) and 0 <= prediction.covid <= 1
    found = measure(volume, prediction)
    assert found.input.spacing_zyx_mm is None and found.input.intensity == "picture"
    nothing = ("lobes", "lungs", "total", "worst_lung_percent", "ct_severity_score", "ct_grade", "lesions", "severity")
    assert all(getattr(found, name) is None for name in nothing)
    assert found.picture.lesion_percent_of_picture == pytest.approx(100 * (prediction.lesions > 0).mean(), abs=1e-3)
    assert found.picture.lesion_percent_of_lungs is None
    assert {"picture", "lungs_unknown"} <= {flag.flag for flag in found.quality}
    assert found.unlikeness.score == pytest.approx(prediction.unlikeness.score, abs=1e-4)
    assert Findings.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_picture_unlike_the_training_data_is_called_a_picture(engine: AmyarEngine, picture: Path) -> None:
    volume = read_picture(picture)
    prediction = engine.predict(volume, Progress())
    found = measure(volume, dataclasses.replace(prediction, unlikeness=Unlikeness(9.0, 3.0)))
    assert [flag.flag for flag in found.quality] == ["picture", "unlike_training_data", "lungs_unknown"]
    assert found.quality[1].message.startswith("The picture is unlike the training data (9.0, limit 3.0);")
    quiet = measure(volume, dataclasses.replace(prediction, unlikeness=Unlikeness(0.5, 3.0)))
    assert [flag.flag for flag in quiet.quality] == ["picture", "lungs_unknown"]
    assert quiet.remarks[-1].message == "How unlike the training data: 0.5 (a warning comes above 3.0)."


def test_what_a_picture_does_not_tell_is_said(engine: AmyarEngine, picture: Path) -> None:
    volume = read_picture(picture)
    prediction = engine.predict(volume, Progress())
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    for lesions in (prediction.lesions, None):
        print_findings(measure(volume, dataclasses.replace(prediction, lesions=lesions)), console)
    words = re.sub(r" +", " ", console.file.getvalue())
    assert "Affected share of the lungs not assessed by this engine" in words
    assert "Lesions not assessed by this engine" in words and words.count("Pieces of lesion") == 1
    assert "–" not in words


def test_where_the_lungs_are_known_their_share_is_told(engine: AmyarEngine, picture: Path) -> None:
    volume = read_picture(picture)
    lungs = np.zeros(volume.array.shape, np.uint8)
    lungs[0, 50:100, 40:90] = 1
    lesions = np.zeros_like(lungs)
    lesions[0, 50:75, 40:90], lesions[0, :10] = 1, 1
    found = measure(volume, dataclasses.replace(engine.predict(volume, Progress()), lungs=lungs, lesions=lesions))
    assert found.picture.lesion_percent_of_lungs == pytest.approx(50.0) and found.picture.lesion_count == 2
    assert "lungs_unknown" not in [flag.flag for flag in found.quality]


def test_lesions_lie_within_the_part_that_was_read(engine: AmyarEngine) -> None:
    """A picture with a wide black border: what the network says is put back where it looked."""
    from COVIDMultitaskLib.preparation.picture import lung_part

    inner = chest_picture((150, 200))
    wide = np.zeros((300, 500), np.uint8)
    wide[80:230, 200:400] = inner
    volume = Volume(wide[None], Geometry(wide[None].shape, (1, 1, 1), (0, 0, 0)), IntensityKind.PICTURE)
    told = {**engine._bundle.inference, "lesion_threshold": 0.01}
    eager = AmyarEngine(dataclasses.replace(engine._bundle, inference=told), "cpu", Support(OracleOfLungs()))
    lesions = eager.predict(volume, Progress()).lesions[0]
    expected = np.zeros_like(lesions)
    expected[lung_part(wide)] = 1
    assert np.array_equal(lesions, expected) and 0 < expected.mean() < 0.2


def test_a_picture_from_file_to_files(bundle: Path, picture: Path, tmp_path: Path) -> None:
    engine = AmyarEngine(open_bundle(bundle), "cpu")
    output = tmp_path / "out"
    analyze_to_folder(lambda progress: read_scan(picture, engine, progress), engine, output, False, Progress())
    assert sorted(file.name for file in output.iterdir()) == ["findings.json", "lesions.png", "overview.png"]
    written = read_mask(output / "lesions.png")
    assert written.shape == (150, 200) and set(np.unique(written)) <= {0, 255}
    assert (output / "overview.png").read_bytes().startswith(b"\x89PNG")


def read_mask(path: Path) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_a_scan_after_a_picture_leaves_no_mixture(engine: AmyarEngine, picture: Path, tmp_path: Path) -> None:
    read = {"picture": lambda progress: read_scan(picture, engine, progress), "scan": lambda progress: SCAN}
    for which, names in (("picture", {"lesions.png"}), ("scan", {"lungs.nrrd", "lesions.nrrd", "evidence.json"})):
        analyze_to_folder(read[which], engine, tmp_path / "out", True, Progress(), overview=False)
        assert {file.name for file in (tmp_path / "out").iterdir()} == {"findings.json", *names}


# -- wrong combinations


def test_a_picture_is_refused_by_engines_of_scans(picture: Path) -> None:
    with pytest.raises(InputError) as refusal:
        read_scan(picture, OracleOfLungs(), Progress())
    assert str(refusal.value) == (
        "slice.png is a picture, and the engine joint needs a whole chest CT; choose the engine amyar, or give DICOM "
        "or NIfTI."
    )


def test_nobody_fills_in_the_lobes_of_a_picture(engine: AmyarEngine, picture: Path) -> None:
    filled = FilledEngine(engine, Support(OracleOfLungs()))
    with pytest.raises(InputError, match="in which no other engine finds lobes; choose amyar by itself"):
        read_scan(picture, filled, Progress())
    assert filled.predict(SCAN, Progress()).lobes is not None


def test_a_picture_as_a_volume_is_refused_too(picture: Path) -> None:
    from COVIDMultitaskLib.pipeline import analyze

    with pytest.raises(InputError, match="The input is a picture"):
        analyze(read_picture(picture), OracleOfLungs(), Progress())


def test_a_bundle_of_another_engine_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match="is for the engine amyar, not for triage"):
        make_engine("triage", bundle, "cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"slice_mm": 0},
        {"margin_mm": "wide"},
        {"unlikeness": {"mean": 0.1, "deviation": 0.0, "threshold": 3.0}},
        {"unlikeness": None},
        {"temperature": {"diagnosis": 1.0}},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bundle: Path, wrong) -> None:
    opened = open_bundle(bundle)
    with pytest.raises(BundleError, match="lacks a setting or holds a wrong one"):
        AmyarEngine(dataclasses.replace(opened, inference={**opened.inference, **wrong}), "cpu")


def test_a_network_too_deep_for_its_slices_is_refused(bundle: Path) -> None:
    opened = open_bundle(bundle)
    told = {**opened.inference, "network": {"channels": [1] * 10}}
    with pytest.raises(BundleError, match="do not fit its network"):
        AmyarEngine(dataclasses.replace(opened, inference=told), "cpu").load()


@settings(max_examples=8, deadline=None)
@given(height=st.integers(64, 300), width=st.integers(64, 300), seed=st.integers(0, 99))
def test_pictures_of_any_size(engine: AmyarEngine, height: int, width: int, seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (1, height, width), np.uint8)
    volume = Volume(grey, Geometry(grey.shape, (1, 1, 1), (0, 0, 0)), IntensityKind.PICTURE)
    found = engine.predict(volume, Progress())
    assert found.lesions.shape == grey.shape and np.isfinite(found.unlikeness.score)
