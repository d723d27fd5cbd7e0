"""The analysis of a volume: it goes out to the worker, and results come back, or a sentence says why not."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer

import COVIDMultitaskLib
from COVIDMultitaskLib.errors import InputError

from .compat import pythonExecutable
from .exchange import Results, readResults, writeScan
from .parameter import SHIPPED, EngineChoice, isInScene, volumeProblem
from .protocol import PLAN, ProgressMessage
from .run import WorkerRun
from .worker import WorkerClient

EVIDENCE = ["uncertainty"]
"""Maps to ask engines for that give them only on request; they cost no time that could be measured."""


def workerCommand() -> list[str]:
    """The command line that starts a worker."""
    return [pythonExecutable(), "-m", "COVIDMultitaskLib.worker"]


def libraryEnvironment() -> dict[str, str]:
    """Variables by which the worker finds the same library as this process."""
    root = str(Path(COVIDMultitaskLib.__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


class Analysis(WorkerRun):
    """The analysis of one volume by the worker.

    :param volumeNode: the scan; it may be moved under other transforms while this runs.
    :param choice: engine and device.

    ``results`` are there when ``state`` is ``DONE``.
    """

    def __init__(
        self,
        volumeNode,
        client: WorkerClient,
        choice: EngineChoice = SHIPPED,
        onProgress: Callable[[ProgressMessage], None] = lambda message: None,
        plan: Sequence[tuple[str, float]] = PLAN,
    ) -> None:
        super().__init__(client, onProgress, plan)
        self.volumeNode = volumeNode
        self.results: Results | None = None
        self._choice = choice
        self._contents = _contentsOf(volumeNode)

    @property
    def megavoxels(self) -> float:
        """Size of the scan in million voxels."""
        return math.prod(self._contents[0]) / 1e6

    def _request(self) -> tuple[str, dict[str, Any]]:
        writeScan(self.volumeNode, self._folder.scan)
        paths = {"input": str(self._folder.scan), "output": str(self._folder.output)}
        return "analyze", {**paths, **self._choice.request, "overview": False, "evidence": EVIDENCE}

    def _take(self) -> None:
        self._checkVolume()
        self.results = readResults(self._folder.output, self._contents[0])

    def _checkVolume(self) -> None:
        """:raises InputError: when the results would not belong to the volume any more."""
        if not isInScene(self.volumeNode):
            raise InputError("The scan was removed while it was analysed; load it again and press Apply.")
        if volumeProblem(self.volumeNode) or _contentsOf(self.volumeNode) != self._contents:
            raise InputError("The scan was changed while it was analysed; press Apply again.")


def _contentsOf(volumeNode) -> tuple[tuple[int, int, int], int]:
    """Shape (z, y, x) and modification time of the voxels: moving a volume changes neither."""
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    return slicer.util.arrayFromVolume(volumeNode).shape, scalars.GetMTime()
