"""The temporary folder through which Slicer and the child process pass volumes, as NRRD files.

A scan is written on its own voxel grid, without the transform it lies under in the scene: the
results come back on the same grid and are put under the same transform, whatever its kind.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from COVIDMultitaskLib.errors import InputError, OutputError

from .compat import temporaryRoot


def isPlain(path: str | Path) -> bool:
    """Whether every program can open the path: some libraries fail on other than ASCII letters.

    >>> isPlain("/tmp/scan.nrrd"), isPlain("/tmp/Jürgen")
    (True, False)
    """
    return str(path).isascii()


def _roots() -> list[Path]:
    """Folders to try, best first; on Windows the user's own may hold letters beyond ASCII."""
    candidates = [temporaryRoot(), Path(tempfile.gettempdir())]
    candidates += [Path(os.environ[name]) for name in ("PUBLIC", "ProgramData") if name in os.environ]
    return sorted(candidates, key=lambda path: not isPlain(path))


@dataclass(frozen=True)
class ExchangeFolder:
    """A folder of its own for one run, readable by its user only."""

    path: Path

    @staticmethod
    def create() -> ExchangeFolder:
        """Make the folder.

        :raises OutputError: when no temporary folder can be written to.
        """
        for root in _roots():
            try:
                return ExchangeFolder(Path(tempfile.mkdtemp(prefix="COVIDMultitask-", dir=root)))
            except OSError:
                continue
        raise OutputError("No temporary folder can be written to; choose another one in Slicer's settings.")

    @property
    def scan(self) -> Path:
        """The scan, for the child process."""
        return self.path / "scan.nrrd"

    @property
    def output(self) -> Path:
        """The results, from the child process."""
        return self.path / "results"

    def remove(self) -> None:
        """Remove the folder; Windows may need a moment until a killed process lets go of it."""
        for _ in range(10):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(0.05)


@dataclass(frozen=True)
class Results:
    """What the child process found.

    :param lobes: uint8 (z, y, x) on the scan's grid; ``None``: not answered by the engine.
    :param lesions: likewise.
    :param findings: content of ``findings.json``.
    :param evidence: maps in per cent, uint8 (z, y, x), by name.
    :param parts: contributions of slices or patches, by name; see ``COVIDMultitaskLib.pipeline.EVIDENCE_FILE``.
    :param lungs: as ``lobes``, from an engine that knows the lungs but not their lobes.
    """

    lobes: np.ndarray | None
    lesions: np.ndarray | None
    findings: dict
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    parts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    lungs: np.ndarray | None = None

    @property
    def labelmaps(self) -> dict[str, np.ndarray | None]:
        """All label maps, by kind."""
        return {"lobes": self.lobes, "lungs": self.lungs, "lesions": self.lesions}


def writeScan(volumeNode, path: Path) -> None:
    """Write a volume in its own grid, without its parent transform.

    :raises OutputError: when it cannot be written.
    """
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    if not storage.WriteData(volumeNode):
        raise OutputError(f"The scan cannot be written to {path.parent}; free some disk space and try again.")


def readResults(folder: Path, shape: tuple[int, int, int]) -> Results:
    """Read what the child process wrote.

    :param shape: of the scan, (z, y, x); label maps of another shape are refused.
    :raises InputError: when a file is missing, damaged or on another grid.
    """
    try:
        findings = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("The analysis left no readable findings; press Apply again.") from error
    maps = {path.stem.removeprefix("evidence_"): path for path in sorted(folder.glob("evidence_*.nrrd"))}
    return Results(
        _labels(folder / "lobes.nrrd", shape),
        _labels(folder / "lesions.nrrd", shape),
        findings,
        {name: array for name, path in maps.items() if (array := _labels(path, shape)) is not None},
        _parts(folder / "evidence.json"),
        _labels(folder / "lungs.nrrd", shape),
    )


def _parts(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"The analysis left a damaged {path.name}; press Apply again.") from error


def _labels(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    if not path.is_file():
        return None
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    node = slicer.vtkMRMLLabelMapVolumeNode()
    if not storage.ReadData(node) or node.GetImageData() is None:
        raise InputError(f"The analysis left a damaged {path.name}; press Apply again.")
    array = slicer.util.arrayFromVolume(node)
    if array.shape != shape:
        raise InputError(f"The analysis left {path.name} on another grid than the scan's; press Apply again.")
    return np.array(array, dtype=np.uint8)
