"""One run: a volume goes out, results come back, or a sentence says why not.

The owner calls :meth:`Analysis.poll` some ten times a second until ``state`` is no longer
``RUNNING``. Whatever the outcome, the child process and the temporary folder are then gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import slicer

import COVIDMultitaskLib
from COVIDMultitaskLib.errors import CovidMultitaskError, InputError

from .compat import pythonExecutable
from .exchange import ExchangeFolder, Results, readResults, writeScan
from .parameter import isInScene, volumeProblem
from .protocol import DoneMessage, ErrorMessage, ProgressMessage
from .worker import WorkerProcess


class State(Enum):
    """Where a run stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


def defaultCommand(scan: Path, output: Path) -> list[str]:
    """The command line that analyses ``scan`` into the folder ``output``, reporting :mod:`protocol`."""
    return [pythonExecutable(), "-m", "COVIDMultitaskLib", "analyze", str(scan), "-o", str(output), "--json"]


def libraryEnvironment() -> dict[str, str]:
    """Variables by which the child process finds the same library as this one."""
    root = str(Path(COVIDMultitaskLib.__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


class Analysis:
    """The analysis of one volume in a child process.

    :param volumeNode: the scan; it may be moved under other transforms while this runs.
    :param command: makes the child's command line from the scan's path and the output folder.
    :param onProgress: called from :meth:`poll` with every step.

    ``results`` are there when ``state`` is ``DONE``; ``error`` is a sentence when it is ``FAILED``.
    """

    def __init__(
        self,
        volumeNode,
        command: Callable[[Path, Path], Sequence[str]] = defaultCommand,
        onProgress: Callable[[ProgressMessage], None] = lambda message: None,
    ) -> None:
        self.volumeNode = volumeNode
        self.state = State.RUNNING
        self.results: Results | None = None
        self.error = ""
        self._onProgress = onProgress
        self._contents = _contentsOf(volumeNode)
        self._folder = ExchangeFolder.create()
        self._worker = WorkerProcess(command(self._folder.scan, self._folder.output), libraryEnvironment())

    @property
    def log(self) -> list[str]:
        """What the child process printed beside the protocol, the newest last."""
        return list(self._worker.log)

    @property
    def processId(self) -> int | None:
        """Identifier of the child process."""
        return self._worker.processId

    def start(self) -> None:
        """Hand out the scan and start the child process.

        :raises CovidMultitaskError: when that is not possible; everything is cleaned up then.
        """
        try:
            writeScan(self.volumeNode, self._folder.scan)
            self._worker.start()
        except CovidMultitaskError:
            self._end(State.FAILED)
            raise
        except OSError as error:
            self._end(State.FAILED)
            raise CovidMultitaskError(
                f"Slicer's Python could not be started ({error.strerror}); install Slicer again."
            ) from error

    def poll(self) -> State:
        """Take in what the child process said; returns at once."""
        if self.state is not State.RUNNING:
            return self.state
        for message in self._worker.poll():
            if isinstance(message, ProgressMessage):
                self._onProgress(message)
                if self.state is not State.RUNNING:  # the listener cancelled
                    break
            elif isinstance(message, DoneMessage):
                self._takeResults()
            elif isinstance(message, ErrorMessage):
                self.error = message.message
                self._end(State.FAILED)
        return self.state

    def cancel(self) -> None:
        """Stop now: the child and all its processes are killed, nothing of the run remains."""
        if self.state is State.RUNNING:
            self._end(State.CANCELLED)

    def _takeResults(self) -> None:
        try:
            self._checkVolume()
            self.results = readResults(self._folder.output, self._contents[0])
        except CovidMultitaskError as error:
            self.error = str(error)
            self._end(State.FAILED)
        else:
            self._end(State.DONE)

    def _checkVolume(self) -> None:
        """:raises InputError: when the results would not belong to the volume any more."""
        if not isInScene(self.volumeNode):
            raise InputError("The scan was removed while it was analysed; load it again and press Apply.")
        if volumeProblem(self.volumeNode) or _contentsOf(self.volumeNode) != self._contents:
            raise InputError("The scan was changed while it was analysed; press Apply again.")

    def _end(self, state: State) -> None:
        self._worker.kill()
        self._folder.remove()
        self.state = state


def _contentsOf(volumeNode) -> tuple[tuple[int, int, int], int]:
    """Shape (z, y, x) and modification time of the voxels: moving a volume changes neither."""
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    return slicer.util.arrayFromVolume(volumeNode).shape, scalars.GetMTime()
