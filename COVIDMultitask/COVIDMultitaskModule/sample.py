"""A sample scan without a download: the library's phantom, made by the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError

from .compat import SAMPLE_NAME, busy
from .compat import tr as _
from .display import showScan
from .protocol import ProgressMessage
from .run import WorkerRun
from .worker import WorkerClient

PLAN = (("read", 0.9), ("write", 0.1))


class SampleScan(WorkerRun):
    """The making of a phantom.

    :param spacing: mm along (z, y, x).
    """

    volumeNode = None

    def __init__(
        self, client: WorkerClient, onProgress: Callable[[ProgressMessage], None], spacing=(3.0, 1.5, 1.5)
    ) -> None:
        super().__init__(client, onProgress, PLAN)
        self._spacing = spacing
        self._node = None

    def _request(self) -> tuple[str, dict[str, Any]]:
        return "phantom", {"output": str(self._folder.scan), "spacing_mm": list(self._spacing)}

    def _take(self) -> None:
        self._node = _read(self._folder.scan)

    def load(self):
        """The scan as a new volume node of the scene, once ``state`` is ``DONE``."""
        node = slicer.mrmlScene.AddNode(self._node)
        node.CreateDefaultDisplayNodes()
        return node


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
