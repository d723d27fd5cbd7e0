"""Scans of a sequence: each frame becomes a volume of its own, with results of its own.

The node that a sequence browser shows (its proxy) changes its voxels with every frame, so results that
belonged to it would lie over the wrong frame. A frame's own volume shares the voxels with the sequence:
they are not copied.
"""

from __future__ import annotations

import slicer

from .compat import tr as _
from .result_nodes import placeBeside

FRAME_ATTRIBUTE = "COVIDMultitask.frame"
"""Of a frame's own volume: identifier of the sequence node, and the frame's number."""


class Frames:
    """The frames behind a volume that a sequence browser shows.

    :param browser: the ``vtkMRMLSequenceBrowserNode``.
    :param proxy: the volume that it shows.
    """

    def __init__(self, browser, proxy) -> None:
        self._browser = browser
        self._proxy = proxy
        self._sequence = browser.GetSequenceNode(proxy)

    @staticmethod
    def of(volumeNode) -> Frames | None:
        """The frames of a volume; ``None``: it belongs to no sequence, or to one of a single frame."""
        scene = volumeNode.GetScene()
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") if scene is not None else 0):
            browser = scene.GetNthNodeByClass(n, "vtkMRMLSequenceBrowserNode")
            if browser.GetSequenceNode(volumeNode) is not None:
                frames = Frames(browser, volumeNode)
                return frames if len(frames) > 1 else None
        return None

    def __len__(self) -> int:
        return self._sequence.GetNumberOfDataNodes()

    @property
    def shown(self) -> int:
        """Number of the frame that the views show, from 0."""
        return min(max(self._browser.GetSelectedItemNumber(), 0), len(self) - 1)

    def volume(self, number: int):
        """A frame's own volume node beside the sequence's, made if there is none."""
        place = f"{self._sequence.GetID()} {number}"
        scene = self._proxy.GetScene()
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
            node = scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode")
            if node.GetAttribute(FRAME_ATTRIBUTE) == place:
                return node
        return self._make(number, place)

    def _make(self, number: int, place: str):
        frame = self._sequence.GetNthDataNode(number)
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(_("{scan}, frame {k} of {n}").format(scan=self._proxy.GetName(), k=number + 1, n=len(self)))
        node.CopyOrientation(frame)
        node.SetAndObserveImageData(frame.GetImageData())
        node.SetAndObserveTransformNodeID(self._proxy.GetTransformNodeID())
        node.SetAttribute(FRAME_ATTRIBUTE, place)
        node = self._proxy.GetScene().AddNode(node)
        node.CreateDefaultDisplayNodes()
        placeBeside(node, self._proxy)
        return node
