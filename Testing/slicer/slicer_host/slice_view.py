"""Slice views rendered offscreen with Slicer's own slice logic and displayable managers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_numbers = itertools.count(1)  # two slice nodes of one name disturb each other
ORIENTATIONS = ("Axial", "Coronal", "Sagittal")


class SliceView:
    """One slice view of the scene, as the application shows it.

    :param host: the scene and its logics.
    :param volumeNode: shown in the background.
    :param orientation: one of ``ORIENTATIONS``; the slice is then turned to the volume's nearest plane.
    """

    def __init__(self, host, volumeNode, orientation: str = "Axial", size: int = 400) -> None:
        self.size = size
        self._makeWindow()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(host.applicationLogic)
        self.logic.SetMRMLScene(host.scene)
        self.node = self.logic.AddSliceNode(f"{orientation}{next(_numbers)}")
        self._makeManagers(host)
        self._showVolume(volumeNode, orientation)

    def _makeWindow(self) -> None:
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(self.size, self.size)
        self.window.AddRenderer(self.renderer)
        self._makePicture()
        interactor = vtk.vtkRenderWindowInteractor()
        interactor.SetRenderWindow(self.window)
        interactor.SetInteractorStyle(None)

    def _makePicture(self) -> None:
        """The layer of the scan: it must enter the renderer before the overlays do, to be drawn before them."""
        self.picture = vtk.vtkImageMapper()
        self.picture.SetColorWindow(255)
        self.picture.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self.picture)
        actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddActor2D(actor)

    def _makeManagers(self, host) -> None:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(host.applicationLogic)
        for name in ("vtkMRMLModelSliceDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D"):
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        self.managers.Initialize(factory, self.renderer)
        self.managers.SetMRMLDisplayableNode(self.node)

    def _showVolume(self, volumeNode, orientation: str) -> None:
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volumeNode.GetID())
        self.node.SetDimensions(self.size, self.size, 1)
        self.node.SetOrientation(orientation)
        self.logic.FitSliceToBackground(self.size, self.size)
        self.node.SetDimensions(self.size, self.size, 1)
        # Connected last: the slice logic changes its output when it gets a volume.
        self.picture.SetInputConnection(self.logic.GetImageDataConnection())

    def jumpTo(self, position) -> None:
        """Show the slice through a world position (RAS)."""
        self.node.JumpSliceByOffsetting(*(float(p) for p in position))

    def pixelOf(self, position) -> tuple[int, int, float]:
        """Column and row (from the top) of a world position, and its distance from the slice in mm."""
        rasToXy = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), rasToXy)
        x, y, _, _ = rasToXy.MultiplyPoint((*position, 1.0))
        rasToSlice = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetSliceToRAS(), rasToSlice)
        return round(x), self.size - 1 - round(y), rasToSlice.MultiplyPoint((*position, 1.0))[2]

    def render(self, path: Path | None = None) -> np.ndarray:
        """The picture, uint8 (row, column, 3), also written to ``path`` as PNG if given."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.SetInputBufferTypeToRGB()
        grab.ReadFrontBufferOff()
        grab.Update()
        if path is not None:
            writer = vtk.vtkPNGWriter()
            writer.SetFileName(str(path))
            writer.SetInputConnection(grab.GetOutputPort())
            writer.Write()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
        return pixels.reshape(self.size, self.size, 3)[::-1].copy()
