"""Corrected masks: noticed, measured again, and taken back to the model's."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import slicer
import vtk

from COVIDMultitaskLib.errors import InputError

from .result_nodes import MODEL, resultsOf
from .scene_writer import LABELS, readMask, readRecord, writeRecord, writeSegmentation, writeTable

KINDS = tuple(LABELS)

_OF_THE_SCAN = ("slices_missing", "thick_slices", "intensities_not_hu", "kernel_unknown", "contrast_unknown",
                "unlike_training_data")  # fmt: skip
"""Quality flags that no correction of masks changes."""


class Corrections:
    """Watches the masks of one scan and measures them again when asked.

    :param volumeNode: a scan with results in the scene.
    :param onChange: called whenever a mask is changed; call :meth:`measure` some moments later.
    """

    def __init__(self, volumeNode, onChange: Callable[[], None]) -> None:
        self.volumeNode = volumeNode
        self._onChange = onChange
        self._masks: dict[str, np.ndarray] = {}  # an array stays the same one as long as its labels do
        self._stale: set[str] = set()
        self._taken: dict[str, np.ndarray] = {}
        self._observed: list[tuple[Any, int]] = []
        self._nodes = _segmentationsOf(volumeNode)
        self._isWriting = False
        self._measured: dict[str, np.ndarray | None] = {}
        self._measuredBy: str | None = None
        self._meter: Any = None
        self._metered: tuple | None = None
        for kind, node in self._nodes.items():
            self._observe(kind, node)

    def _observe(self, kind: str, node) -> None:
        segmentation, events = node.GetSegmentation(), slicer.vtkSegmentation
        # Undo and redo of the Segment Editor only say that a segment was modified (as do a new name or colour).
        for event in (events.SourceRepresentationModified, events.SegmentModified, events.SegmentAdded,
                      events.SegmentRemoved):  # fmt: skip
            tag = segmentation.AddObserver(event, lambda caller, event, kind=kind: self._changed(kind))
            self._observed.append((segmentation, tag))

    def isWatching(self, volumeNode) -> bool:
        """Whether the masks that a volume has now are those that are watched."""
        return bool(self._observed) and volumeNode is self.volumeNode and _segmentationsOf(volumeNode) == self._nodes

    def release(self) -> None:
        """Stop watching."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed.clear()

    @property
    def isPending(self) -> bool:
        """Whether a mask was changed since it was measured."""
        return bool(self._stale)

    @property
    def canUndo(self) -> bool:
        """Whether corrected masks were replaced by the model's, and can come back."""
        return bool(self._taken)

    def _changed(self, kind: str) -> None:
        if not self._isWriting:
            self._stale.add(kind)
            self._onChange()

    def _mask(self, kind: str) -> np.ndarray | None:
        """A mask as it is now; read again only when it was changed.

        :param kind: of ``KINDS``, or one of these with ``MODEL`` added.
        """
        if kind in self._stale or kind not in self._masks:
            self._stale.discard(kind)
            mask, before = readMask(self.volumeNode, kind), self._masks.pop(kind, None)
            if mask is None:
                return None
            self._masks[kind] = before if before is not None and _isSame(before, mask) else mask
        return self._masks[kind]

    def measure(self, by: str = "") -> None:
        """Measure the masks as they are now and write the findings into the scene.

        :param by: who corrected; may be empty.
        :raises InputError: when the scene holds no findings for the scan.
        """
        view = readRecord(self.volumeNode)
        if view is None:
            raise InputError("The findings of this scan are not in the scene; press Apply again.")
        masks = {kind: self._mask(kind) for kind in KINDS}
        isMeasured = self._measuredBy == by.strip() and all(masks[kind] is self._measured.get(kind) for kind in KINDS)
        if view.correction is not None and isMeasured:
            return  # only a name or a colour was changed: the correction is as old as before
        self._write(view.modelFindings, self._corrected(view.modelFindings, masks), by)

    def catchUp(self, by: str = "") -> bool:
        """Measure masks that were changed while nobody watched: in another module, or while another scan was shown.

        Findings that hold for the masks as they are keep their name and their time.

        :return: whether there was such a change.
        """
        view = readRecord(self.volumeNode)
        if view is None:
            return False
        corrected = self._corrected(view.modelFindings, {kind: self._mask(kind) for kind in KINDS})
        if _figures(corrected) == _figures(view.current if view.correction is not None else None):
            return False
        self._write(view.modelFindings, corrected, by)
        return True

    def _write(self, findings: Mapping[str, Any], corrected: dict[str, Any] | None, by: str) -> None:
        """Put the findings of the masks as they are into the scene."""
        self._measured, self._measuredBy = {kind: self._mask(kind) for kind in KINDS}, by.strip()
        if corrected is not None:
            corrected["correction"] |= {"by": by.strip(), "time": _now()}
        writeRecord(self.volumeNode, findings, corrected)
        writeTable(self.volumeNode, corrected or findings)

    def _corrected(self, findings: Mapping[str, Any], masks: Mapping[str, np.ndarray | None]) -> dict[str, Any] | None:
        """The findings measured on the masks; ``None``: all are the model's own."""
        changed = [kind for kind in KINDS if not self._isModels(kind)]
        return {**self._findingsOf(findings, masks), "correction": {"kinds": changed}} if changed else None

    def _isModels(self, kind: str) -> bool:
        """Whether a mask is the model's own, or there is nothing to compare."""
        mask, model = self._mask(kind), self._mask(kind + MODEL)
        return mask is None or model is None or _isSame(mask, model)

    def _findingsOf(self, findings: Mapping[str, Any], masks: Mapping[str, np.ndarray | None]) -> dict[str, Any]:
        from COVIDMultitaskLib.measuring.differential import compare_again

        isHounsfield = (findings.get("input") or {}).get("intensity", "hounsfield") == "hounsfield"
        measures = self._meterFor(isHounsfield).measure(masks["lobes"], masks["lesions"], masks["lungs"])
        kept = [flag for flag in findings.get("quality") or [] if flag.get("flag") in _OF_THE_SCAN]
        measured = dataclasses.asdict(measures)
        if findings.get("differential"):
            measured["differential"] = compare_again(findings["differential"], measures)
        findings = {key: value for key, value in findings.items() if key != "affected_estimate"}  # of the model's masks
        return {**findings, **measured, "quality": [*measured["quality"], *kept]}

    def _meterFor(self, isHounsfield: bool):
        """Measures the scan as it is now; the same as last time unless its voxels or its grid were changed."""
        from COVIDMultitaskLib.measuring import MaskMeter

        scalars = self.volumeNode.GetImageData().GetPointData().GetScalars()
        geometry = geometryOf(self.volumeNode)
        state = (scalars.GetMTime(), geometry.shape, geometry.affine.tobytes(), isHounsfield)
        if self._meter is None or self._metered != state:
            hu = slicer.util.arrayFromVolume(self.volumeNode) if isHounsfield else None
            self._meter, self._metered = MaskMeter(geometry, hu), state
        return self._meter

    def restore(self) -> None:
        """Put the model's masks back; :meth:`undoRestore` brings the corrected ones again."""
        models = {kind: self._mask(kind + MODEL) for kind in KINDS}
        self._exchange({kind: model for kind, model in models.items() if model is not None})

    def undoRestore(self) -> None:
        """Bring back the masks that :meth:`restore` replaced; called again, it takes them away again.

        So nothing is lost, whatever was drawn in between.
        """
        self._exchange(self._taken)

    def _exchange(self, wanted: Mapping[str, np.ndarray]) -> None:
        """Write masks, and keep those that they replace."""
        masks = {kind: self._mask(kind) for kind in wanted}
        replaced = {kind: mask for kind, mask in masks.items() if mask is not None}
        replaced = {kind: mask for kind, mask in replaced.items() if not _isSame(mask, wanted[kind])}
        if replaced:
            self._taken = replaced
        for kind in replaced:
            self._writeMask(kind, wanted[kind])

    def _writeMask(self, kind: str, mask: np.ndarray) -> None:
        self._isWriting = True
        try:
            writeSegmentation(self.volumeNode, kind, mask)
        finally:
            self._isWriting = False
        self._masks[kind] = mask
        self._stale.discard(kind)


def _segmentationsOf(volumeNode) -> dict[str, Any]:
    """The segmentations of a volume's results, the model's own included, by kind."""
    found = resultsOf(volumeNode, "vtkMRMLSegmentationNode")
    return {kind: found[kind] for kind in (*KINDS, *(kind + MODEL for kind in KINDS)) if kind in found}


def warmUp() -> None:
    """Load what measuring needs, so that the first correction need not wait for it."""
    import scipy.ndimage  # noqa: F401

    import COVIDMultitaskLib.measuring  # noqa: F401


def geometryOf(volumeNode):
    """The grid of a volume in its own frame, as the library's ``Geometry`` (LPS; z, y, x)."""
    from COVIDMultitaskLib.volume import Geometry

    ijkToRas = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(ijkToRas)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ slicer.util.arrayFromVTKMatrix(ijkToRas)
    axes = affine[:3, 2::-1]
    z, y, x = np.linalg.norm(axes, axis=0)
    return Geometry(
        slicer.util.arrayFromVolume(volumeNode).shape, (z, y, x), tuple(affine[:3, 3]), axes / np.array([z, y, x])
    )


def _figures(corrected: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Corrected findings without who corrected and when, as they are once they were written and read."""
    if corrected is None:
        return None
    made = {"kinds": corrected["correction"].get("kinds")}
    return json.loads(json.dumps({**corrected, "correction": made}))


def _isSame(mask: np.ndarray, other: np.ndarray) -> bool:
    """Whether two masks have the same labels; plane by plane, as a copy of a large scan's size takes longer."""
    return all(np.array_equal(*planes) for planes in zip(mask, other, strict=True))


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
