"""Python parts of Slicer's application that slicer-core lacks, as far as the module file needs them."""

from __future__ import annotations

import sys
import types
import typing
import unittest

import slicer


class ScriptedLoadableModule:
    def __init__(self, parent) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None) -> None:
        self.parent = parent

    def setup(self) -> None:
        """The application makes the reload buttons here."""


class ScriptedLoadableModuleLogic:
    """Only the singleton parameter node."""

    def getParameterNode(self):
        name = type(self).__name__.removesuffix("Logic")
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(name)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *arguments) -> None:
        super().__init__(*(arguments or ("runTest",)))


class VTKObservationMixin:
    pass


def parameterNodeWrapper(wrapped):
    """Node references as typed attributes over a ``vtkMRMLScriptedModuleNode``; nothing else."""

    def initialize(self, parameterNode) -> None:
        self.parameterNode = parameterNode

    wrapped.__init__ = initialize
    wrapped.connectParametersToGui = _connectParametersToGui
    wrapped.disconnectGui = lambda self, connection: connection.clear()
    for name in typing.get_type_hints(wrapped):
        setattr(wrapped, name, _reference(name))
    return wrapped


def _connectParametersToGui(self, selectors) -> list:
    """Connect each parameter, by its name, with a node selector."""
    isConnected = [True]
    for name, widget in selectors.items():
        widget.setCurrentNode(getattr(self, name))  # also when it is None: the selector then shows nothing

        def follow(node, name=name) -> None:
            if isConnected:
                setattr(self, name, node)

        widget.connect("currentNodeChanged(vtkMRMLNode*)", follow)
    return isConnected


def _reference(name: str) -> property:
    def read(self):
        return self.parameterNode.GetNodeReference(name)

    def write(self, node) -> None:
        self.parameterNode.SetNodeReferenceID(name, node.GetID() if node else None)

    return property(read, write)


def install() -> None:
    """Make them importable under their Slicer names."""
    scripted = types.ModuleType("slicer.ScriptedLoadableModule")
    for part in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(scripted, part.__name__, part)
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper = parameterNodeWrapper
    sys.modules[scripted.__name__], sys.modules[wrapper.__name__] = scripted, wrapper
    slicer.ScriptedLoadableModule, slicer.parameterNodeWrapper = scripted, wrapper
    slicer.util.VTKObservationMixin = getattr(slicer.util, "VTKObservationMixin", VTKObservationMixin)
