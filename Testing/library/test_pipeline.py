"""From an engine's answer to files: what it rests on comes along, and earlier evidence goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.pipeline import RESULT_FILES, analyze_to_folder
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.reading import read_label_map
from Testing.library.lung_scenes import IDENTITY, answer, draw, grid

LUNGS_OF_LOBES = np.array([0, 1, 1, 2, 2, 2], np.uint8)


class OracleEngine:
    """Knows the patient; gives the evidence it was made with."""

    identity = IDENTITY
    answers = frozenset({"lobes", "lesions"})

    def __init__(self, **evidence: np.ndarray) -> None:
        self.evidence = evidence

    def predict(self, volume, progress):
        _, lobes, lesions = draw(volume.geometry)
        return answer(lobes, lesions, evidence=self.evidence)


def run(folder: Path, engine: OracleEngine) -> list[str]:
    scan, _, _ = draw(grid())
    analyze_to_folder(lambda progress: scan, engine, folder, True, Progress())
    return sorted(file.name for file in folder.iterdir())


def test_maps_are_written_in_per_cent_and_parts_with_their_places(tmp_path: Path) -> None:
    uncertainty = np.linspace(0, 1, np.prod(grid().shape), dtype=np.float32).reshape(grid().shape)
    uncertainty[0, 0, :3] = (np.nan, -3.0, 7.0)
    slices = np.array([[0.0, 1.0, -20.0, 0.7], [0.0, 1.0, 10.0, 0.3]])
    names = run(tmp_path, OracleEngine(uncertainty=uncertainty, slices=slices))
    assert names == sorted([*RESULT_FILES, "evidence.json", "evidence_uncertainty.nrrd"])
    written = read_label_map(tmp_path / "evidence_uncertainty.nrrd")
    assert written.array[0, 0, :3].tolist() == [0, 0, 100]
    np.testing.assert_allclose(written.array[1:], 100 * uncertainty[1:], atol=0.51)
    np.testing.assert_allclose(written.geometry.affine, grid().affine)
    parts = json.loads((tmp_path / "evidence.json").read_text())
    assert parts == {"slices": [{"point_lps_mm": row[:3].tolist(), "contribution": row[3]} for row in slices]}


def test_probabilities_of_slices_are_called_so(tmp_path: Path) -> None:
    run(tmp_path, OracleEngine(slice_probabilities=np.array([[0.0, 1.0, -20.0, 0.75]])))
    parts = json.loads((tmp_path / "evidence.json").read_text())
    assert parts == {"slice_probabilities": [{"point_lps_mm": [0.0, 1.0, -20.0], "probability": 0.75}]}


def test_lungs_are_written_where_there_are_no_lobes_and_do_not_stay(tmp_path: Path) -> None:
    _, lobes, lesions = draw(grid())
    engine, lungs = OracleEngine(), LUNGS_OF_LOBES[lobes]
    engine.predict = lambda volume, progress: answer(None, lesions, lungs=lungs)
    assert run(tmp_path, engine) == ["findings.json", "lesions.nrrd", "lungs.nrrd", "overview.png"]
    np.testing.assert_array_equal(read_label_map(tmp_path / "lungs.nrrd").array, lungs)
    engine.predict = lambda volume, progress: answer(lobes, lesions, lungs=lungs)
    assert run(tmp_path, engine) == sorted(RESULT_FILES)


def test_evidence_of_an_earlier_analysis_does_not_stay(tmp_path: Path) -> None:
    run(tmp_path, OracleEngine(attention=np.zeros(grid().shape), slices=np.zeros((1, 4))))
    assert run(tmp_path, OracleEngine()) == sorted(RESULT_FILES)


def test_without_the_overview_matplotlib_is_not_needed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    scan, _, _ = draw(grid())
    analyze_to_folder(lambda progress: scan, OracleEngine(), tmp_path, False, Progress(), overview=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["findings.json", "lesions.nrrd", "lobes.nrrd"]
