"""One run: a volume goes out, results come back, or a sentence says why not.

The owner calls :meth:`Analysis.poll` some ten times a second until ``state`` is no longer
``RUNNING``. Whatever the outcome, the temporary folder goes with it; the worker stays for the next.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import slicer

import COVIDMultitaskLib
from COVIDMultitaskLib.errors import CovidMultitaskError, InputError

from .compat import pythonExecutable
from .exchange import ExchangeFolder, Results, readResults, writeScan
from .parameter import SHIPPED, EngineChoice, isInScene, volumeProblem
from .protocol import PLAN, DoneMessage, ErrorMessage, ProgressBar, ProgressMessage
from .worker import Job, WorkerClient

EVIDENCE = ["uncertainty"]
"""Maps to ask engines for that give them only on request; they cost no time that could be measured."""


class State(Enum):
    """Where a run stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


def workerCommand() -> list[str]:
    """The command line that starts a worker."""
    return [pythonExecutable(), "-m", "COVIDMultitaskLib.worker"]


def libraryEnvironment() -> dict[str, str]:
    """Variables by which the worker finds the same library as this process."""
    root = str(Path(COVIDMultitaskLib.__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


class Analysis:
    """The analysis of one volume by the worker.

    :param volumeNode: the scan; it may be moved under other transforms while this runs.
    :param client: asks the worker.
    :param choice: engine and device.
    :param onProgress: called from :meth:`poll` with every step.
    :param plan: the stages with their probable shares of the time.

    ``results`` are there when ``state`` is ``DONE``; ``error`` is a sentence when it is ``FAILED``.
    """

    def __init__(
        self,
        volumeNode,
        client: WorkerClient,
        choice: EngineChoice = SHIPPED,
        onProgress: Callable[[ProgressMessage], None] = lambda message: None,
        plan: Sequence[tuple[str, float]] = PLAN,
    ) -> None:
        self.volumeNode = volumeNode
        self.state = State.RUNNING
        self.results: Results | None = None
        self.error = ""
        self.bar = ProgressBar(plan)
        self._client = client
        self._choice = choice
        self._onProgress = onProgress
        self._contents = _contentsOf(volumeNode)
        self._folder = ExchangeFolder.create()
        self._job: Job | None = None

    @property
    def megavoxels(self) -> float:
        """Size of the scan in million voxels."""
        return math.prod(self._contents[0]) / 1e6

    def start(self) -> None:
        """Hand out the scan and ask the worker.

        :raises CovidMultitaskError: when that is not possible; everything is cleaned up then.
        """
        try:
            writeScan(self.volumeNode, self._folder.scan)
            paths = {"input": str(self._folder.scan), "output": str(self._folder.output)}
            self._job = self._client.submit(
                "analyze", self._step, self._over, **paths, **self._choice.request, overview=False, evidence=EVIDENCE
            )
        except (CovidMultitaskError, OSError) as error:
            self.state = State.FAILED
            self._folder.remove()
            if isinstance(error, CovidMultitaskError):
                raise
            raise CovidMultitaskError(
                f"Slicer's Python could not be started ({error.strerror}); install Slicer again."
            ) from error

    def poll(self) -> State:
        """Take in what the worker said; returns at once."""
        self._client.poll()
        return self.state

    def cancel(self) -> None:
        """Stop: nothing of the run will appear. The folder goes when the worker has let go of it."""
        if self.state is State.RUNNING:
            self.state = State.CANCELLED
            if self._job is not None:
                self._job.cancel()

    def _step(self, message: ProgressMessage) -> None:
        self.bar.take(message)
        self._onProgress(message)

    def _over(self, outcome: DoneMessage | ErrorMessage) -> None:
        """The worker is through, whatever the outcome: nothing of the run stays on the disk."""
        try:
            if self.state is not State.RUNNING:
                return
            if isinstance(outcome, DoneMessage):
                self._takeResults()
            else:
                self._fail(outcome.message)
        finally:
            self._folder.remove()

    def _fail(self, sentence: str) -> None:
        self.error = sentence
        self.state = State.FAILED

    def _takeResults(self) -> None:
        try:
            self._checkVolume()
            self.results = readResults(self._folder.output, self._contents[0])
        except CovidMultitaskError as error:
            self._fail(str(error))
        else:
            self.state = State.DONE

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
