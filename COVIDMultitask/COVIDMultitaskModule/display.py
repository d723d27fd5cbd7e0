"""How results look in the views: what the Display section and a click on a lesion do."""

from __future__ import annotations

import slicer
import vtk

LUNG_WINDOW = (1500.0, -600.0)
MEDIASTINUM_WINDOW = (400.0, 40.0)
"""Width and level in HU."""


def setWindow(volumeNode, window: tuple[float, float]) -> None:
    """Show a scan in a window (width, level) of HU."""
    if volumeNode.GetDisplayNode() is None:
        volumeNode.CreateDefaultDisplayNodes()
    display = volumeNode.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(*window)


def setVisible(segmentationNode, isVisible: bool) -> None:
    """Show or hide a segmentation in all views."""
    if segmentationNode is not None:
        segmentationNode.GetDisplayNode().SetVisibility(isVisible)


def setOutlineOnly(segmentationNode, isOutline: bool) -> None:
    """Draw borders only, or fill the inside too."""
    if segmentationNode is not None:
        segmentationNode.GetDisplayNode().SetVisibility2DFill(not isOutline)


def setOpacity(segmentationNode, opacity: float) -> None:
    """Opacity (0..1) of a segmentation as a whole."""
    if segmentationNode is not None:
        segmentationNode.GetDisplayNode().SetOpacity(opacity)


def setShownIn3D(segmentationNode, isShown: bool) -> None:
    """Make and show the surfaces of a segmentation, or hide them."""
    if segmentationNode is None:
        return
    if isShown:
        segmentationNode.CreateClosedSurfaceRepresentation()
    segmentationNode.GetDisplayNode().SetVisibility3D(isShown)


def jumpTo(node, position) -> None:
    """Let all slice views show a position (R, A, S) of a node's own frame."""
    world = worldPosition(node, position)
    scene = node.GetScene()
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *world, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(world)


def worldPosition(node, position) -> tuple[float, float, float]:
    """A position of a node's own frame in the world, whatever transforms it lies under."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, transform)
    return transform.TransformPoint([float(p) for p in position])


def centerOf(segmentationNode, identifier: str):
    """Centre (R, A, S) of a segment in the segmentation's own frame; ``None``: it is empty."""
    bounds = [0.0] * 6
    segment = segmentationNode.GetSegmentation().GetSegment(identifier)
    if segment is None:
        return None
    segment.GetBounds(bounds)
    if bounds[0] > bounds[1]:
        return None
    return [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
