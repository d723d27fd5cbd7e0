"""Results in the scene: segmentations, tables, evidence, and label maps on demand.

Everything is written in the scan's own voxel grid and put under the scan's own parent
transform *before* any voxel comes in. Then no voxel is ever moved by a transform, linear or
not, on the way in, and the results follow their scan when it is moved later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from COVIDMultitaskLib.labels import LESIONS, LOBES, LUNG_LABELS, Label

from .compat import moduleLogic
from .compat import tr as _
from .evidence import readEvidence, writeEvidence
from .exchange import Results
from .findings import COLUMNS, FindingsView, Row
from .result_nodes import KIND_ATTRIBUTE, MODEL, findResult, placeBeside, removeNode, resultNode
from .terminology import loadContext, terminologyEntry

LABELS: dict[str, Sequence[Label]] = {"lobes": LOBES, "lungs": LUNG_LABELS, "lesions": LESIONS}
"""What the segmentations hold, by kind. Of lobes and lungs a result has one kind at most."""

_LABELMAP = "Binary labelmap"
"""Slicer's name of the representation."""


@dataclass(frozen=True)
class Look:
    """How a segmentation looks when it first appears, 0..1: in slice views, and its surfaces in 3D."""

    fill: float
    outline: float
    surface: float


_SEEN_THROUGH = Look(fill=0.15, outline=0.7, surface=0.25)
LOOKS = {"lobes": _SEEN_THROUGH, "lungs": _SEEN_THROUGH, "lesions": Look(fill=0.5, outline=1.0, surface=1.0)}
"""Lesions are seen through the lobes."""


@dataclass(frozen=True)
class ResultNodes:
    """The nodes of one analysis; ``None``: the engine did not answer that."""

    lobes: Any | None
    lungs: Any | None
    lesions: Any | None
    table: Any

    @property
    def segmentations(self) -> dict[str, Any]:
        """Those that there are, by kind."""
        found = {"lobes": self.lobes, "lungs": self.lungs, "lesions": self.lesions}
        return {kind: node for kind, node in found.items() if node is not None}

    @property
    def anatomy(self) -> str | None:
        """Whether the lesions lie in "lobes" or in "lungs"; ``None``: the engine told neither."""
        return next((kind for kind in ("lobes", "lungs") if kind in self.segmentations), None)


def writeResults(volumeNode, results: Results) -> ResultNodes:
    """Put results into the volume's scene, into the nodes of its earlier analysis if there are any.

    :param volumeNode: the scan, as it lies in the scene now.
    :param results: label maps on its grid, and findings.
    """
    loadContext(moduleLogic("terminologies"))
    nodes = {kind: _writeKind(volumeNode, kind, labelmap) for kind, labelmap in results.labelmaps.items()}
    writeRecord(volumeNode, results.findings, None)
    writeEvidence(volumeNode, results)
    return ResultNodes(**nodes, table=writeTable(volumeNode, results.findings))


def readResults(volumeNode) -> ResultNodes | None:
    """The nodes of the volume's analysis in the scene, also in one that was loaded; ``None``: there was none."""
    table = findResult(volumeNode, "findings")
    if table is None or readRecord(volumeNode) is None:
        return None
    return ResultNodes(**{kind: findResult(volumeNode, kind) for kind in LABELS}, table=table)


def writeRecord(volumeNode, findings: Mapping[str, Any], corrected: Mapping[str, Any] | None) -> None:
    """Keep the findings, and those of corrected masks, in the scene: the panel shows them again when it is loaded."""
    node = resultNode(volumeNode, "record", _("{scan} findings record"), isHidden=True)
    node.SetText(json.dumps({"findings": findings, "corrected": corrected}, allow_nan=False))


def readRecord(volumeNode) -> FindingsView | None:
    """The findings that the scene holds for a volume; ``None``: none that can be read."""
    node = findResult(volumeNode, "record")
    try:
        record = json.loads(node.GetText()) if node is not None else {}
        return FindingsView(record["findings"], record.get("corrected"), readEvidence(volumeNode))
    except (KeyError, TypeError, ValueError):
        return None


def _writeKind(volumeNode, kind: str, labelmap: np.ndarray | None):
    if labelmap is not None:
        writeModelMask(volumeNode, kind, labelmap)
        return writeSegmentation(volumeNode, kind, labelmap)
    for stale in (findResult(volumeNode, kind), findResult(volumeNode, kind + MODEL)):
        if stale is not None:
            removeNode(stale)
    return None


def writeModelMask(volumeNode, kind: str, labelmap: np.ndarray) -> None:
    """Keep the model's own mask in a hidden segmentation, saved with the scene."""
    node = resultNode(volumeNode, kind + MODEL, _("{scan} {kind} of the model"), isHidden=True)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    _replaceSegments(node, LABELS[kind], _orientedImage(volumeNode, labelmap))


def readMask(volumeNode, kind: str) -> np.ndarray | None:
    """The labels (z, y, x), uint8, of a result on its scan's grid; ``None``: there is no such result.

    :param kind: of ``LABELS``, or one of these with ``MODEL`` added. Segments that the user added do not count; where
        segments overlap, the later wins.
    """
    node = findResult(volumeNode, kind)
    if node is None:
        return None
    values = {label.key: label.value for label in LABELS[kind.removesuffix(MODEL)]}
    layers = _layers(node.GetSegmentation(), values)
    ijkToRas = _matrixOf(volumeNode)
    if not all(np.allclose(_matrixOf(image), ijkToRas, atol=1e-4) for image, _ in layers):
        return _resampled(node, volumeNode, values)
    mask = np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, np.uint8)
    for image, table in layers:
        _paste(image, table, mask)
    return mask


def _layers(segmentation, values: Mapping[str, int]) -> list[tuple[Any, np.ndarray]]:
    """The label maps behind the segments in their order, each with the value wanted for each of its labels.

    :param values: the wanted values by the segments' identifiers; other segments are left out.
    """
    layers: list[tuple[Any, np.ndarray]] = []
    for index in range(segmentation.GetNumberOfSegments()):
        value, segment = values.get(segmentation.GetNthSegmentID(index)), segmentation.GetNthSegment(index)
        image = segment.GetRepresentation(_LABELMAP)
        if value is None or image is None or image.IsEmpty():
            continue
        if not layers or layers[-1][0] is not image:
            largest = 255 if image.GetScalarSize() == 1 else int(image.GetScalarRange()[1])
            layers.append((image, np.zeros(largest + 1, np.uint8)))
        if segment.GetLabelValue() < len(layers[-1][1]):
            layers[-1][1][segment.GetLabelValue()] = value
    return layers


def _matrixOf(volumeOrImage) -> np.ndarray:
    """(4, 4) from voxel indices (i, j, k) to RAS, without a parent transform."""
    matrix = vtk.vtkMatrix4x4()
    if volumeOrImage.IsA("vtkMRMLVolumeNode"):
        volumeOrImage.GetIJKToRASMatrix(matrix)
    else:
        volumeOrImage.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _paste(image, table: np.ndarray, mask: np.ndarray) -> None:
    """Put the labels of an image, each as its value in ``table``, over a mask on the same lattice.

    :param image: may be smaller or larger than the mask.
    """
    extent = image.GetExtent()
    ends = [(extent[2 * axis], extent[2 * axis + 1] + 1) for axis in (2, 1, 0)]
    limits = [(max(start, 0), min(stop, length)) for (start, stop), length in zip(ends, mask.shape, strict=True)]
    if any(first >= last for first, last in limits):
        return
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape([stop - start for start, stop in ends])
    inImage = tuple(slice(first - start, last - start) for (first, last), (start, _) in zip(limits, ends, strict=True))
    inMask = tuple(slice(first, last) for first, last in limits)
    (wanted,) = np.nonzero(table)
    for plane, into in zip(labels[inImage], mask[inMask], strict=True):  # stays in the cache: ten times as fast
        for label in wanted:
            np.copyto(into, table[label], where=plane == label)


def _resampled(node, volumeNode, values: Mapping[str, int]) -> np.ndarray:
    """The labels of segments that lie on another lattice than the volume's."""
    segmentation = node.GetSegmentation()
    grid = _orientedImage(volumeNode, np.zeros((1, 1, 1), np.uint8))
    x, y, z = volumeNode.GetImageData().GetDimensions()
    grid.SetExtent(0, x - 1, 0, y - 1, 0, z - 1)
    merged = slicer.vtkOrientedImageData()
    mode = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    if not node.GenerateMergedLabelmapForAllSegments(merged, mode, grid):
        return np.zeros((z, y, x), np.uint8)
    numbered = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    lookup = np.array([0, *(values.get(identifier, 0) for identifier in numbered)], np.uint8)
    return lookup[vtk_to_numpy(merged.GetPointData().GetScalars())].reshape(z, y, x)


def writeSegmentation(volumeNode, kind: str, labelmap: np.ndarray):
    """One segmentation of all labels of a kind, in one layer.

    :param kind: of ``LABELS``.
    :param labelmap: uint8 (z, y, x) on the volume's grid, values of ``LABELS[kind]``.
    :return: a ``vtkMRMLSegmentationNode``; its segments' identifiers are the labels' keys, and
        a label without voxels is an empty segment.
    """
    name = {"lobes": _("{scan} lobes"), "lungs": _("{scan} lungs"), "lesions": _("{scan} lesions")}[kind]
    node = resultNode(volumeNode, kind, name)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        _setLook(node.GetDisplayNode(), LOOKS[kind])
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    _replaceSegments(node, LABELS[kind], _orientedImage(volumeNode, labelmap))
    return node


def _setLook(displayNode, look: Look) -> None:
    displayNode.SetOpacity2DFill(look.fill)
    displayNode.SetOpacity2DOutline(look.outline)
    displayNode.SetOpacity3D(look.surface)


def _replaceSegments(node, labels: Sequence[Label], image) -> None:
    """The segments of ``labels`` anew; those that the user added stay."""
    segmentation = node.GetSegmentation()
    hadSurface = segmentation.ContainsRepresentation("Closed surface")
    for label in labels:
        if segmentation.GetSegment(label.key) is not None:
            segmentation.RemoveSegment(label.key)
    node.SetSourceRepresentationToBinaryLabelmap()
    for label in labels:
        segmentation.AddSegment(_segment(label, image), label.key)
    if hadSurface:
        node.CreateClosedSurfaceRepresentation()


def _segment(label: Label, image):
    """A segment that shares ``image`` with the others, which makes them one layer."""
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor(*(channel / 255.0 for channel in label.color))
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminologyEntry(label))
    segment.SetLabelValue(label.value)
    segment.AddRepresentation(_LABELMAP, image)
    return segment


def _orientedImage(volumeNode, labelmap: np.ndarray):
    """The labelled part of a label map, at its place in the volume's own frame."""
    box = _labelledBox(labelmap)
    part = np.ascontiguousarray(labelmap[box], dtype=np.uint8)
    image = slicer.vtkOrientedImageData()
    image.SetExtent([end for axis in reversed(box) for end in (axis.start, axis.stop - 1)])
    scalars = numpy_to_vtk(part.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    image.SetImageToWorldMatrix(ijkToRas)
    return image


def _labelledBox(labelmap: np.ndarray) -> tuple[slice, slice, slice]:
    """The box (z, y, x) that holds the labelled voxels; the first voxel if there are none."""

    def bounds(axis: int) -> slice:
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(labelmap.any(axis=others))
        return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)

    return bounds(0), bounds(1), bounds(2)


def writeTable(volumeNode, findings: Mapping[str, Any]):
    """The per-lobe findings as a ``vtkMRMLTableNode``: column names are the keys of ``findings.json``."""
    node = resultNode(volumeNode, "findings", _("{scan} findings"))
    node.SetAndObserveTable(_table(FindingsView(findings).rows))
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetColumnTitle("lobe", _("Lobe"))
    for column in COLUMNS:
        node.SetColumnTitle(column.key, column.heading)
        node.SetColumnUnitLabel(column.key, column.unit)
    node.SetLocked(True)
    return node


def _table(rows: Sequence[Row]):
    table = vtk.vtkTable()
    table.AddColumn(_textColumn("lobe", [row.name for row in rows]))
    for index, column in enumerate(COLUMNS):
        table.AddColumn(_numberColumn(column.key, [row.values[index] for row in rows]))
    return table


def _textColumn(name: str, values: Sequence[str]):
    column = vtk.vtkStringArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(value)
    return column


def _numberColumn(name: str, values: Sequence[float | None]):
    column = vtk.vtkDoubleArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(float("nan") if value is None else value)
    return column


def writeLesionTable(volumeNode):
    """The lesions of a scan, as they are now, as a ``vtkMRMLTableNode``: what, how large, where (RAS, mm)."""
    view = readRecord(volumeNode)
    lesions = (view.current.get("lesions") or {}).get("components") or [] if view is not None else []
    table = vtk.vtkTable()
    table.AddColumn(_textColumn("lesion", [place.title for place in view.places] if view is not None else []))
    for key in ("volume_ml", "consolidation_percent", "mean_hu"):
        table.AddColumn(_numberColumn(key, [lesion.get(key) for lesion in lesions]))
    for axis, sign in enumerate((-1.0, -1.0, 1.0)):
        table.AddColumn(_numberColumn("RAS"[axis], [sign * lesion["point_lps_mm"][axis] for lesion in lesions]))
    node = resultNode(volumeNode, "lesion list", _("{scan} lesion list"))
    node.SetAndObserveTable(table)
    node.SetLocked(True)
    return node


def exportLabelmap(segmentationNode, volumeNode):
    """A segmentation as a label map on its scan's grid, with the label values of ``COVIDMultitaskLib.labels``.

    Segments that the user added get the values after those. Where segments overlap, the later wins.

    :return: a new ``vtkMRMLLabelMapVolumeNode`` under the scan's transform.
    """
    kind = segmentationNode.GetAttribute(KIND_ATTRIBUTE)
    values = _labelValues(segmentationNode.GetSegmentation(), LABELS.get(kind, ()))
    scene = volumeNode.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", f"{segmentationNode.GetName()} labels")
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    identifiers = vtk.vtkStringArray()
    for identifier in values:
        identifiers.InsertNextValue(identifier)
    slicer.modules.segmentations.logic().ExportSegmentsToLabelmapNode(segmentationNode, identifiers, node, volumeNode)
    _renumber(node, list(values.values()))
    _setColors(node, segmentationNode.GetSegmentation(), values)
    placeBeside(node, volumeNode)
    return node


def _labelValues(segmentation, labels: Sequence[Label]) -> dict[str, int]:
    """Label value of each segment by its identifier: the declared one, or the next free."""
    declared = {label.key: label.value for label in labels}
    identifiers = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    own = {identifier: declared[identifier] for identifier in identifiers if identifier in declared}
    added = [identifier for identifier in identifiers if identifier not in declared]
    first = max(declared.values(), default=0) + 1
    return {**own, **{identifier: first + n for n, identifier in enumerate(added)}}


def _renumber(labelmapNode, values: Sequence[int]) -> None:
    """Slicer numbers exported segments 1, 2, 3 in their order: give them their own values."""
    if list(values) == list(range(1, len(values) + 1)):
        return
    array = slicer.util.arrayFromVolume(labelmapNode)
    array[:] = np.array([0, *values], dtype=array.dtype)[array]
    slicer.util.arrayFromVolumeModified(labelmapNode)


def _setColors(labelmapNode, segmentation, values: Mapping[str, int]) -> None:
    """Names and colours of the segments at their label values, in the colour table that the export made."""
    colors = labelmapNode.GetDisplayNode().GetColorNode()
    colors.SetNumberOfColors(max(values.values(), default=0) + 1)
    for value in range(colors.GetNumberOfColors()):
        colors.SetColor(value, "Background" if value == 0 else "", 0.0, 0.0, 0.0, 0.0)
    for identifier, value in values.items():
        segment = segmentation.GetSegment(identifier)
        colors.SetColor(value, segment.GetName(), *segment.GetColor(), 1.0)
