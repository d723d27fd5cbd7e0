"""What belongs to the case and is saved with the scene: the chosen volume."""

from __future__ import annotations

from typing import Any

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import parameterNodeWrapper


@parameterNodeWrapper
class COVIDMultitaskParameterNode:
    """Typed parameters over the module's ``vtkMRMLScriptedModuleNode``.

    :param inputVolume: the chest CT to analyse.
    """

    inputVolume: vtkMRMLScalarVolumeNode


def wrap(parameterNode) -> Any:
    """The module's parameter node, with its parameters as typed attributes."""
    wrapper: Any = COVIDMultitaskParameterNode
    return wrapper(parameterNode)
