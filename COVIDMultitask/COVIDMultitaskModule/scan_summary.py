"""What matters about a chosen volume before it is analysed, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from .compat import dicomValue
from .compat import tr as _

THICK_SLICES_MM = 3.0
GAP_MM = 0.1
SHORT_SCAN_MM = 180.0
"""Lungs of adults are longer than this, so part of them is probably not in the scan."""

CONTRAST_AGENT, SLICE_THICKNESS = "0018,0010", "0018,0050"
"""DICOM tags as Slicer's database names them."""

ACQUISITION_TRANSFORM = "acquisition transform"
"""In the name of the transform under which Slicer's DICOM import puts unevenly spaced slices."""


@dataclass(frozen=True)
class ScanSummary:
    """Facts in one line each, and what to keep in mind, one sentence each."""

    facts: tuple[str, ...]
    warnings: tuple[str, ...]


def describeScan(volumeNode) -> ScanSummary:
    """Describe a scalar volume node that holds voxels."""
    spacing = volumeNode.GetSpacing()
    size = volumeNode.GetImageData().GetDimensions()
    coverage_mm = _extentAlongBody(volumeNode, size)
    low, high = volumeNode.GetImageData().GetScalarRange()
    facts = [
        _("{size} voxels of {spacing} mm").format(
            size=" × ".join(map(str, size)), spacing=" × ".join(f"{length:.2f}" for length in spacing)
        ),
        _("{length} cm from head to foot; values {low} to {high}").format(
            length=round(coverage_mm / 10), low=f"{low:.0f}", high=f"{high:.0f}"
        ),
    ]
    facts.append(_contrastFact(dicomValue(volumeNode, CONTRAST_AGENT)))
    transform = volumeNode.GetParentTransformNode()
    if transform is not None:
        facts.append(_("Under the transform {name}; the results follow it").format(name=transform.GetName()))
    warnings = [*_warnings(max(spacing), coverage_mm, low, high), *_gaps(volumeNode, spacing[2])]
    return ScanSummary(tuple(facts), tuple(warnings))


def _contrastFact(agent: str) -> str:
    """What the DICOM header says; nothing is guessed from the voxels, whose vessels nobody has found yet."""
    from COVIDMultitaskLib.reading.contrast import contrast_given

    given = contrast_given(agent)
    if given is None:
        return _("Contrast medium: not told by the file")
    return _("Contrast medium: {agent}").format(agent=agent.strip()) if given else _("Contrast medium: none given")


def _gaps(volumeNode, spacing_mm: float):
    """Of slices that leave something out between them, or that are not evenly spaced."""
    try:
        thickness_mm = float(dicomValue(volumeNode, SLICE_THICKNESS))
    except ValueError:  # not told
        thickness_mm = spacing_mm
    if thickness_mm > 0 and spacing_mm - thickness_mm > GAP_MM:
        yield _("{gap} mm between slices of {thickness} mm were not scanned: lesions there are not seen.").format(
            gap=f"{spacing_mm - thickness_mm:.1f}", thickness=f"{thickness_mm:.1f}"
        )
    transform = volumeNode.GetParentTransformNode()
    if transform is not None and not transform.IsLinear() and ACQUISITION_TRANSFORM in transform.GetName():
        yield _("Its slices are not evenly spaced, or some are missing: volumes are less exact there.")


def _extentAlongBody(volumeNode, size) -> float:
    """Length in mm along the superior axis of the volume's own frame."""
    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    return float(np.abs(slicer.util.arrayFromVTKMatrix(ijkToRas)[2, :3]) @ np.array(size))


def _warnings(thickness_mm: float, coverage_mm: float, low: float, high: float):
    if low >= high:
        yield _("All voxels have the same value: this is no scan.")
    elif low >= 0 and high <= 255:
        yield _("The values are grey values, not Hounsfield units: no mean HU will be given.")
    elif low > -800:
        yield _("Nothing in it is as thin as air: it is probably no chest CT.")
    if thickness_mm > THICK_SLICES_MM:
        yield _("Slices are {thickness} mm apart: small lesions and fissures may be missed.").format(
            thickness=f"{thickness_mm:.1f}"
        )
    if coverage_mm < SHORT_SCAN_MM:
        yield _("It is only {length} cm long: the lungs may be cut off.").format(length=round(coverage_mm / 10))
