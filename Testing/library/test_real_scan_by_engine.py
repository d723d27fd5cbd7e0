"""Every engine with its shipped weights on a whole real chest, from files to files; and on real pictures of slices.

Where the lungs are is the joint engine's answer for most of the others: it is asked once for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from COVIDMultitaskLib.bundles import shipped_bundle
from COVIDMultitaskLib.engines.contract import UNCERTAINTY, Prediction
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.engines.registry import ENGINES, make_engine
from COVIDMultitaskLib.labels import LOBES, LUNGS
from COVIDMultitaskLib.pipeline import analyze_to_folder, read_scan
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_label_map
from COVIDMultitaskLib.resources import resource
from COVIDMultitaskLib.volume import Geometry, Volume
from training.metrics import dice

pytestmark = pytest.mark.usefixtures("one_thread")

MAPS = {"joint": "uncertainty", "m2unet": "severity", "deepsc-covid": "class_activation"}
"""Engines' evidence maps; that of m2unet is there only where some patch speaks for severe disease."""

PARTS = {"m2unet": "patches", "triage": "slices", "amyar": "slice_probabilities"}
"""Engines' figures of parts in evidence.json."""

MOST_MEMORY = 4e9
"""Bytes; what a computer of radiologists may be expected to have free."""


@dataclass(frozen=True)
class Analysed:
    """What an engine wrote about a scan.

    :param peak: bytes of memory that this process held at most meanwhile; ``None`` where the system does not tell.
    """

    engine: str
    folder: Path
    scan: Geometry
    peak: int | None

    @property
    def findings(self) -> dict[str, Any]:
        return json.loads((self.folder / "findings.json").read_text(encoding="utf-8"))

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The figures of parts, none where the engine gives none."""
        told = json.loads((self.folder / "evidence.json").read_text()) if self.engine in PARTS else {}
        assert list(told) == ([PARTS[self.engine]] if self.engine in PARTS else [])
        return next(iter(told.values()), [])

    @property
    def evidence_map(self) -> str | None:
        """The file of the evidence map; ``None`` where there should be none."""
        if self.engine == "m2unet" and all(part["contribution"] <= 0 for part in self.parts):
            return None
        return f"evidence_{MAPS[self.engine]}.nrrd" if self.engine in MAPS else None

    def mask(self, name: str) -> np.ndarray:
        """A map on the scan's own grid."""
        read = read_label_map(self.folder / name)
        assert read.array.dtype == np.uint8 and read.geometry.is_close_to(self.scan), name
        return read.array


@pytest.fixture(scope="module")
def ricord(shared_data: Path) -> Volume:
    """A whole chest of the COVID-19-positive collection, from its DICOM folder."""
    return read_scan(shared_data / "ct" / "RICORD1A_001012", make_engine(device="cpu"), Progress())


@pytest.fixture(scope="module")
def joint_asked_once(ricord: Volume) -> Iterator[None]:
    """The joint engine's answer for the scan is kept; with its evidence, which it gives on request only."""
    answers: list[Prediction] = []
    predict = JointEngine.predict

    def remembered(self: JointEngine, volume: Volume, progress: Progress) -> Prediction:
        if volume is not ricord:
            return predict(self, volume, progress)
        if not answers:
            answers.append(predict(self, volume, progress))
        return answers[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointEngine, "predict", remembered)
        patch.setattr(JointEngine, "evidence", frozenset({UNCERTAINTY}))
        yield


LEFT, RIGHT = 1, 2


@pytest.fixture(scope="module")
def lungs(ricord: Volume, joint_asked_once: None) -> np.ndarray:
    """Of the joint engine: 0, LEFT or RIGHT."""
    lobes = make_engine("joint", device="cpu").predict(ricord, Progress()).lobes
    assert lobes is not None
    x = {
        side: (ricord.geometry.affine @ [*np.argwhere(np.isin(lobes, of)).mean(0), 1])[0] for side, of in LUNGS.items()
    }
    assert x["right"] < x["left"] - 80  # LPS: x grows to the patient's left
    return np.where(np.isin(lobes, LUNGS["left"]), LEFT, np.where(lobes > 0, RIGHT, 0)).astype(np.uint8)


def reset_peak() -> bool:
    """Forget how much memory was held before; false where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


@pytest.fixture(scope="module", params=list(ENGINES))
def analysed(request, ricord: Volume, joint_asked_once: None, tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    folder = tmp_path_factory.mktemp(request.param) / "out"
    engine, can_tell = make_engine(request.param, device="cpu"), reset_peak()
    analyze_to_folder(lambda progress: ricord, engine, folder, False, Progress())
    return Analysed(request.param, folder, ricord.geometry, peak_bytes() if can_tell else None)


def test_what_an_engine_answers_is_written_and_nothing_else(analysed: Analysed) -> None:
    files = {"findings.json", "overview.png"} | ({"evidence.json"} if analysed.engine in PARTS else set())
    files |= {f"{name}.nrrd" for name in ("lobes", "lesions") if name in ENGINES[analysed.engine].answers}
    files |= {analysed.evidence_map} - {None}
    files |= set() if "lobes" in ENGINES[analysed.engine].answers else {"lungs.nrrd"}
    assert {file.name for file in analysed.folder.iterdir()} == files
    assert (analysed.folder / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_findings_hold_the_answers_that_the_engine_claims(analysed: Analysed) -> None:
    import jsonschema

    found, answers = analysed.findings, ENGINES[analysed.engine].answers
    schema = json.loads(resource("Schemas", "findings-1.0.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(found)
    given = {name for name in ("lobes", "lesions", "severity") if found[name] is not None}
    told = [found["diagnosis"], found.get("covid_probability")]
    given |= {"diagnosis"} if any(one is not None for one in told) else set()
    assert given == answers
    assert sum(one is not None for one in told) <= 1
    for probabilities in (found["severity"], found["diagnosis"]):
        assert probabilities is None or sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert [lung["key"] for lung in found["lungs"]] == ["left", "right"]
    measured = {"lesion_percent", "ground_glass_percent", "consolidation_percent", "mean_lesion_hu"}
    assert all((found["total"][name] is not None) == ("lesions" in answers) for name in measured)
    assert (found["worst_lung_percent"] is not None) == (found["ct_grade"] is not None) == ("lesions" in answers)
    assert (found["ct_severity_score"] is not None) == ({"lobes", "lesions"} <= answers)
    assert (found.get("differential") is not None) == (analysed.engine == "deepsc-covid")


def test_findings_name_the_engine_and_the_licence_of_its_weights(analysed: Analysed) -> None:
    """And those of the engine that found the lungs for it."""
    found = analysed.findings
    assert found["engine"] == vars(shipped_bundle(analysed.engine).identity)
    assert found["engine"]["engine"] == analysed.engine and found["engine"]["licence"]
    lungs = vars(shipped_bundle("joint").identity)
    assert found.get("sources") == ({"lungs": lungs} if ENGINES[analysed.engine].needs_lungs else None)
    assert found["notice"].startswith("Research use only") and found["engine"]["trained_on"] in found["notice"]


def test_maps_lie_on_the_scans_own_grid_and_in_the_lungs(analysed: Analysed, lungs: np.ndarray) -> None:
    found, answers = analysed.findings, ENGINES[analysed.engine].answers
    if "lobes" in answers:
        lobes = analysed.mask("lobes.nrrd")
        assert set(np.unique(lobes)) == {0, *(lobe.value for lobe in LOBES)}
        assert dice(lobes > 0, lungs > 0) > 0.9
        assert dice(np.isin(lobes, LUNGS["left"]), lungs == LEFT) > 0.9
        lungs = lobes
    else:
        np.testing.assert_array_equal(analysed.mask("lungs.nrrd"), lungs)
    share = np.count_nonzero(lungs) * analysed.scan.voxel_ml
    assert found["total"]["volume_ml"] == pytest.approx(share, rel=1e-3)
    if "lesions" in answers:
        lesions = analysed.mask("lesions.nrrd")
        assert set(np.unique(lesions)) <= {0, 1, 2} and not lesions[lungs == 0].any()
        share = 100 * np.count_nonzero(lesions) / np.count_nonzero(lungs)
        assert found["total"]["lesion_percent"] == pytest.approx(share, rel=1e-3)
    if analysed.evidence_map is not None:
        per_cent = analysed.mask(analysed.evidence_map)
        assert 0 < per_cent.max() <= 100 and not per_cent[lungs == 0].any()


def test_figures_of_parts_lie_in_the_scan_from_end_to_end_of_the_lungs(analysed: Analysed, lungs: np.ndarray) -> None:
    if analysed.engine not in PARTS:
        assert not (analysed.folder / "evidence.json").exists()
        return
    figure = "probability" if analysed.engine == "amyar" else "contribution"
    assert all(set(part) == {"point_lps_mm", figure} for part in analysed.parts)
    assert len(analysed.parts) == 200 if analysed.engine == "m2unet" else len(analysed.parts) > 40
    points = np.array([part["point_lps_mm"] for part in analysed.parts])
    corners = analysed.scan.corners_mm()
    assert (points >= corners.min(0)).all() and (points <= corners.max(0)).all()
    slices = np.flatnonzero(lungs.any((1, 2)))
    ends = sorted((analysed.scan.affine @ [z, 0, 0, 1])[2] for z in (slices[0], slices[-1]))
    assert [points[:, 2].min(), points[:, 2].max()] == pytest.approx(ends, abs=20)


def test_disease_is_found_in_both_lungs(analysed: Analysed) -> None:
    """The collection says COVID-19, and both lungs show patches; how large lungs are, too, is known."""
    found = analysed.findings
    assert 2000 < found["total"]["volume_ml"] < 6000
    if "lesions" in ENGINES[analysed.engine].answers:
        assert all(1 < lung["lesion_percent"] < 60 for lung in found["lungs"])


def test_memory_suffices(analysed: Analysed) -> None:
    """Of this whole process: more than the command line takes."""
    if analysed.peak is None:
        pytest.skip("the system does not tell how much memory was used meanwhile")
    assert 1e8 < analysed.peak < MOST_MEMORY


# -- pictures of slices


@pytest.fixture(scope="module", params=["COVID", "NonCOVID"])
def picture(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    folder = shared_data / "slices" / "covid_vs_noncovid" / request.param
    for path in sorted(folder.glob("*.jpg")):
        return path
    pytest.skip(f"no pictures are in {folder}")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_real_picture_gives_what_a_picture_allows_and_nothing_else(
    picture: Path, suffix: str, tmp_path: Path
) -> None:
    """The original, and the same pixels as a PNG; by the command that a user types."""
    from PIL import Image
    from typer.testing import CliRunner

    from COVIDMultitaskLib import cli

    given, output = tmp_path / f"slice{suffix}", tmp_path / "out"
    if suffix == ".jpg":
        given.write_bytes(picture.read_bytes())
    else:
        Image.open(picture).save(given)
    done = CliRunner().invoke(cli.app, ["analyze", str(given), "--engine", "amyar", "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert {file.name for file in output.iterdir()} == {"findings.json", "lesions.png", "overview.png"}
    width, height = Image.open(picture).size
    lesions = np.asarray(Image.open(output / "lesions.png"))
    assert lesions.shape == (height, width) and set(np.unique(lesions)) <= {0, 255}
    found = json.loads((output / "findings.json").read_text())
    absent = ("lobes", "lungs", "total", "worst_lung_percent", "ct_severity_score", "ct_grade", "lesions", "severity")
    assert all(found[name] is None for name in (*absent, "diagnosis"))
    assert found.get("sources") is None and found.get("affected_estimate") is None
    assert found["input"]["spacing_zyx_mm"] is None and found["input"]["intensity"] == "picture"
    assert found["picture"]["lesion_percent_of_picture"] == pytest.approx(100 * (lesions > 0).mean(), abs=1e-3)
    assert (found["picture"]["width_px"], found["picture"]["height_px"]) == (width, height)
    assert found["picture"]["lesion_percent_of_lungs"] is None
    assert 0 <= found["covid_probability"] <= 1
    assert {"picture", "lungs_unknown"} <= {flag["flag"] for flag in found["quality"]}
    assert found["engine"] == vars(shipped_bundle("amyar").identity)
    assert "HU" not in done.output and " ml" not in done.output
