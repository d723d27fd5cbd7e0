"""What the user chose, and whether it can be analysed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import slicer

from .compat import tr as _
from .result_nodes import isResult


@dataclass(frozen=True)
class EngineChoice:
    """Which weights answer, and where they compute.

    :param bundle: folder of a weight bundle; empty: the one that ships.
    :param device: "auto", "cpu", "cuda" or "cuda:N".
    :param fillWith: engine that supplies lobes or lesions which the chosen one does not give; empty: none.
    """

    bundle: str = ""
    device: str = "auto"
    fillWith: str = ""

    @property
    def request(self) -> dict[str, str | None]:
        """As the worker is asked."""
        return {"bundle": self.bundle or None, "device": self.device or "auto", "fill_with": self.fillWith or None}


SHIPPED = EngineChoice()
"""The engine that ships, on whatever device is best."""


@dataclass(frozen=True)
class AnalysisParameter:
    """The choices for one run.

    :param volume: the scan (a scalar volume node), or ``None`` while nothing is chosen.
    :param missingPackages: names of Python packages the analysis needs and Slicer lacks.
    :param engineProblem: why the chosen engine cannot answer; ``None``: it can.
    """

    volume: object | None
    missingPackages: Sequence[str] = ()
    engineProblem: str | None = None

    @property
    def isValid(self) -> bool:
        """Whether the analysis can start."""
        return self.problem is None

    @property
    def problem(self) -> str | None:
        """What keeps the analysis from starting and what to do about it; ``None``: nothing."""
        if self.missingPackages:
            names = ", ".join(self.missingPackages)
            return _("Missing: {names}. Open Engine and press Install.").format(names=names)
        if self.volume is None:
            return _("Choose a chest CT.")
        if self.engineProblem:
            return self.engineProblem
        return volumeProblem(self.volume)


def volumeProblem(volumeNode) -> str | None:
    """Why a volume node cannot be a chest CT; ``None``: it can.

    Only what is seen without looking at voxels: whether the lungs are there is the analysis's question.
    """
    if not volumeNode.IsA("vtkMRMLScalarVolumeNode"):
        return _("This is not a volume: choose a chest CT.")
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("This is a label map: choose the chest CT itself.")
    if isResult(volumeNode):
        return _("This is the result of an analysis: choose the chest CT itself.")
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return _("This volume holds no voxels: load the chest CT again.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("This volume holds colours or several values per voxel: choose a chest CT.")
    if min(image.GetDimensions()) < 2:
        return _("This is a single slice: choose the whole chest CT.")
    return None


def isInScene(volumeNode) -> bool:
    """Whether the node still belongs to the open scene."""
    return volumeNode is not None and volumeNode.GetScene() is slicer.mrmlScene
