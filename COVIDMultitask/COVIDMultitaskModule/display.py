"""How results look in the views: what the Display section and a click on a lesion do."""

from __future__ import annotations

import slicer
import vtk

from .compat import threeDViews
from .evidence import evidenceMaps
from .parameter import volumeProblem
from .scene_writer import readRecord

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


def isShownIn3D(segmentationNode) -> bool:
    """Whether surfaces of a segmentation are there and shown."""
    hasSurface = segmentationNode.GetSegmentation().ContainsRepresentation("Closed surface")
    return bool(hasSurface and segmentationNode.GetDisplayNode().GetVisibility3D())


def setShownIn3D(segmentationNode, isShown: bool) -> None:
    """Make and show the surfaces of a segmentation, or hide them."""
    if segmentationNode is None:
        return
    if isShown:
        segmentationNode.CreateClosedSurfaceRepresentation()
    segmentationNode.GetDisplayNode().SetVisibility3D(isShown)


def setEvidenceShown(volumeNode, shown, opacity: float) -> None:
    """Lay an evidence map over a scan in all slice views, or (``None``) take it away.

    A foreground that is no evidence of the scan is the user's own: it is replaced by a map, but never taken away.
    """
    own = {node.GetID() for node in evidenceMaps(volumeNode).values()}
    for composite in sliceComposites(volumeNode.GetScene()):
        if shown is not None:
            composite.SetForegroundVolumeID(shown.GetID())
            composite.SetForegroundOpacity(opacity)
        elif composite.GetForegroundVolumeID() in own:
            composite.SetForegroundVolumeID(None)


def evidenceShown(volumeNode) -> tuple[str, float] | None:
    """Name and opacity of the evidence map that lies over a scan; ``None``: none does."""
    names = {node.GetID(): name for name, node in evidenceMaps(volumeNode).items()}
    for composite in sliceComposites(volumeNode.GetScene()):
        if composite.GetForegroundVolumeID() in names:
            return names[composite.GetForegroundVolumeID()], composite.GetForegroundOpacity()
    return None


def volumeToBeginWith():
    """The scan that the slice views show, or else the first in the scene; ``None``: there is none."""
    scene = slicer.mrmlScene
    shown = [scene.GetNodeByID(composite.GetBackgroundVolumeID() or "") for composite in sliceComposites(scene)]
    number = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    there = [scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode") for index in range(number)]
    return next((node for node in (*shown, *there) if node is not None and volumeProblem(node) is None), None)


def sliceComposites(scene) -> list:
    """What each slice view shows in its layers."""
    number = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    return [scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode") for index in range(number)]


def showScan(volumeNode) -> None:
    """Show a scan in the slice views, in the lung window; where it is shown already, zoom and place stay."""
    composites = sliceComposites(volumeNode.GetScene())
    if any(composite.GetBackgroundVolumeID() != volumeNode.GetID() for composite in composites):
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    setWindow(volumeNode, LUNG_WINDOW)


def present(volumeNode) -> None:
    """Show a scan with its first results: in the lung window, at its largest lesion; the layout stays the user's."""
    showScan(volumeNode)
    view = readRecord(volumeNode)
    if view is not None and view.places:
        jumpTo(volumeNode, view.places[0].ras, isCentred=False)


def center3D() -> None:
    """Let the 3D views look at all that they show."""
    for view in threeDViews():
        view.resetFocalPoint()
        view.resetCamera()


def jumpTo(node, position, isCentred: bool = True) -> None:
    """Let all slice views show a position (R, A, S) of a node's own frame.

    :param isCentred: bring it to the middle of each view; else only choose the slices through it.
    """
    world = worldPosition(node, position)
    scene, slices = node.GetScene(), slicer.vtkMRMLSliceNode
    slices.JumpAllSlices(scene, *world, slices.CenteredJumpSlice if isCentred else slices.OffsetJumpSlice)
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
