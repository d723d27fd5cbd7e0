"""A 3D view rendered offscreen with Slicer's own displayable managers."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_MANAGERS = ("vtkMRMLCameraDisplayableManager", "vtkMRMLViewDisplayableManager",
             "vtkMRMLSegmentationsDisplayableManager3D")  # fmt: skip


class ThreeDView:
    """A 3D view of the scene, as the application shows it, from the front.

    :param host: the scene and its logics.
    """

    def __init__(self, host, size: int = 400) -> None:
        self.size = size
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(size, size)
        self.window.AddRenderer(self.renderer)
        interactor = vtk.vtkRenderWindowInteractor()
        interactor.SetRenderWindow(self.window)
        interactor.SetInteractorStyle(None)
        self.node = slicer.vtkMRMLViewNode()
        self.node.SetName("View1")
        self.node.SetLayoutName("1")
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        host.scene.AddNode(self.node)
        self._makeManagers(host)

    def _makeManagers(self, host) -> None:
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(host.applicationLogic)
        for name in _MANAGERS:
            if hasattr(slicer, name) and not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        self.managers.Initialize(factory, self.renderer)
        self.managers.SetMRMLDisplayableNode(self.node)

    def lookFromTheFront(self) -> None:
        """At all that is shown, from a little above."""
        camera = self.renderer.GetActiveCamera()
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(0, 400, 90)
        camera.SetViewUp(0, 0, 1)
        self.window.Render()
        self.renderer.ResetCamera()
        camera.Zoom(1.4)

    def render(self) -> np.ndarray:
        """The picture, uint8 (row, column, 3)."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
        return pixels.reshape(self.size, self.size, 3)[::-1].copy()
