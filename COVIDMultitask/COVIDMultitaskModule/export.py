"""Results as files: findings as JSON and CSV, masks as label maps on the scan's own grid."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import slicer

from COVIDMultitaskLib.errors import InputError, OutputError

from .correction import geometryOf
from .findings import COLUMNS, FindingsView
from .scene_writer import exportLabelmap, readRecord, readResults

FORMATS = {"NRRD": ".nrrd", "NIfTI": ".nii.gz"}


def exportCase(volumeNode, folder: Path, suffix: str = ".nrrd") -> list[Path]:
    """Write findings.json, findings.csv, lobes and lesions; corrected ones where masks were corrected.

    :param suffix: of the label maps, a value of ``FORMATS``.
    :return: the files written.
    :raises InputError: when the scan has no results, or the format cannot hold its grid.
    :raises OutputError: when a file cannot be written.
    """
    nodes, view = readResults(volumeNode), readRecord(volumeNode)
    if nodes is None or view is None:
        raise InputError("This scan has no findings yet; press Apply first.")
    if suffix.startswith(".nii") and not geometryOf(volumeNode).is_orthogonal:
        raise InputError("This scan is sheared (a tilted gantry), which NIfTI cannot hold; choose NRRD.")
    written = []
    try:
        for name, text in _texts(view).items():
            (folder / name).write_text(text, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to ({error.strerror}); choose another folder.") from error
    for kind in ("lobes", "lesions"):
        if nodes.segmentation(kind) is not None:
            written.append(_writeLabelmap(nodes.segmentation(kind), volumeNode, folder / f"{kind}{suffix}"))
    return written


def _texts(view: FindingsView) -> dict[str, str]:
    texts = {"findings.json": json.dumps(view.modelFindings, indent=2) + "\n", "findings.csv": findingsCsv(view)}
    if view.correction is not None:
        texts["findings_corrected.json"] = json.dumps(view.current, indent=2) + "\n"
    return texts


def findingsCsv(view: FindingsView) -> str:
    """The per-lobe table; model and corrected rows are told apart by their first column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "region", *(column.key for column in COLUMNS)])
    sources = [("model", list(view.modelRows.values()))]
    if view.correction is not None:
        sources.append(("corrected", view.rows))
    for source, rows in sources:
        for row in rows:
            writer.writerow([source, row.key, *("" if value is None else value for value in row.values)])
    return text.getvalue()


def _writeLabelmap(segmentationNode, volumeNode, path: Path) -> Path:
    node = exportLabelmap(segmentationNode, volumeNode)
    try:
        isNrrd = path.suffix == ".nrrd"
        storage = slicer.vtkMRMLNRRDStorageNode() if isNrrd else slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(str(path))
        if not storage.WriteData(node):
            raise OutputError(f"{path.name} cannot be written to {path.parent}; choose another folder.")
    finally:
        display = node.GetDisplayNode()
        for made in (display.GetColorNode(), display, node):
            volumeNode.GetScene().RemoveNode(made)
    return path
