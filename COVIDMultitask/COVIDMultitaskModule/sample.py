"""A sample scan without a download: the library's phantom, made by the worker."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError

from .analysis import State
from .compat import SAMPLE_NAME, busy
from .compat import tr as _
from .display import showScan
from .exchange import ExchangeFolder
from .protocol import DoneMessage, ErrorMessage, ProgressBar, ProgressMessage
from .worker import Job, WorkerClient

PLAN = (("read", 0.9), ("write", 0.1))


class SampleScan:
    """The making of a phantom; polled and cancelled as an ``Analysis`` is.

    :param spacing: mm along (z, y, x).
    """

    volumeNode = None

    def __init__(
        self, client: WorkerClient, onProgress: Callable[[ProgressMessage], None], spacing=(3.0, 1.5, 1.5)
    ) -> None:
        self.state = State.RUNNING
        self.error = ""
        self.bar = ProgressBar(PLAN)
        self._client = client
        self._onProgress = onProgress
        self._spacing = spacing
        self._folder = ExchangeFolder.create()
        self._job: Job | None = None
        self._node = None

    def start(self) -> None:
        """Ask the worker.

        :raises CovidMultitaskError: when there is none.
        """
        parameters = {"output": str(self._folder.scan), "spacing_mm": list(self._spacing)}
        try:
            self._job = self._client.submit("phantom", self._step, self._over, **parameters)
        except OSError as error:
            self._folder.remove()
            raise CovidMultitaskError(
                f"Slicer's Python could not be started ({error.strerror}); install Slicer again."
            ) from error

    def poll(self) -> State:
        """Take in what the worker said; returns at once."""
        self._client.poll()
        return self.state

    def cancel(self) -> None:
        """Stop: no scan will appear."""
        if self.state is State.RUNNING:
            self.state = State.CANCELLED
            if self._job is not None:
                self._job.cancel()

    def load(self):
        """The scan as a new volume node of the scene, once ``state`` is ``DONE``."""
        node = slicer.mrmlScene.AddNode(self._node)
        node.CreateDefaultDisplayNodes()
        return node

    def _step(self, message: ProgressMessage) -> None:
        self.bar.take(message)
        self._onProgress(message)

    def _over(self, outcome: DoneMessage | ErrorMessage) -> None:
        try:
            if self.state is State.RUNNING:
                self._take(outcome)
        finally:
            self._folder.remove()

    def _take(self, outcome: DoneMessage | ErrorMessage) -> None:
        try:
            if isinstance(outcome, ErrorMessage):
                raise InputError(outcome.message)
            self._node = _read(self._folder.scan)
            self.state = State.DONE
        except InputError as error:
            self.error = str(error)
            self.state = State.FAILED


def loadSample(logic):
    """Make a sample scan and show it: what the entry in Slicer's Sample Data module does.

    :param logic: makes it; its worker is let go of afterwards.
    :return: the volume node, or ``None`` after a message to the user.
    """
    try:
        with busy():
            node = logic.makeSample()
    except CovidMultitaskError as error:
        slicer.util.errorDisplay(str(error))
        return None
    finally:
        logic.close()
    showScan(node)
    return node


def _read(path):
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(_(SAMPLE_NAME))
    if not storage.ReadData(node):
        raise InputError("The sample scan cannot be read; free some disk space and try again.")
    return node
