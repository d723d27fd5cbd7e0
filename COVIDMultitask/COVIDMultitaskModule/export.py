"""Results as files: findings, tables, label maps on the scan's own grid, pictures, the scene, DICOM SEG.

Whatever is written appears whole or not at all; what goes wrong is one sentence.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path

import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from COVIDMultitaskLib.errors import InputError, OutputError
from COVIDMultitaskLib.writing import OutputFolder, write_bytes, write_text

from . import compat
from .compat import tr as _
from .correction import geometryOf
from .evidence import evidenceMaps, readEvidence
from .findings import COLUMNS, FindingsView, Row
from .result_nodes import removeNode
from .scene_writer import ResultNodes, exportLabelmap, readMask, readRecord, readResults

FORMATS = {"NRRD": ".nrrd", "NIfTI": ".nii.gz"}
CASE_FILES = ("findings.json", "findings_corrected.json", "findings.csv", "lobes.n*", "lungs.n*", "lesions.n*",
              "evidence.json", "evidence_*.nrrd")  # fmt: skip
"""What an export of a case may write."""
OVERVIEW = "overview.png"


def exportCase(volumeNode, folder: Path, suffix: str = ".nrrd", overwrite: bool = False) -> list[Path]:
    """Write findings.json, findings.csv, label maps (corrected ones where they were corrected), and evidence.

    :param suffix: of the label maps, a value of ``FORMATS``.
    :param overwrite: whether earlier results in the folder may be replaced.
    :return: the files written.
    :raises InputError: when the scan has no results, or the format cannot hold its grid.
    :raises OutputError: when results are there already, or a file cannot be written.
    """
    nodes, view = _resultsOf(volumeNode)
    if suffix.startswith(".nii") and not geometryOf(volumeNode).is_orthogonal:
        raise InputError(_("This scan is sheared (a tilted gantry), which NIfTI cannot hold; choose NRRD."))
    with OutputFolder(folder, CASE_FILES, overwrite) as output:
        for name, text in {**_texts(view), **_evidenceText(volumeNode)}.items():
            write_text(text, output / name)
        for kind, node in nodes.segmentations.items():
            _writeLabelmap(node, volumeNode, output / f"{kind}{suffix}")
        for name, node in evidenceMaps(volumeNode).items():
            _writeVolume(node, output / f"evidence_{name}.nrrd")
        return _published(output)


def holdsCase(folder: Path) -> bool:
    """Whether results of an earlier export are in a folder."""
    return any(True for name in CASE_FILES for _file in folder.glob(name))


def exportScene(scene, path: Path) -> list[Path]:
    """Save the whole scene, results and views included, as one MRB file; an earlier file is replaced.

    :return: the file written.
    :raises OutputError: when it cannot be written.
    """
    with OutputFolder(path.parent, (), overwrite=True) as output:
        if not scene.WriteToMRB(str(output / path.name)):
            raise OutputError(_unwritten(path))
        return _published(output)


def exportPictures(volumeNode, folder: Path) -> list[Path]:
    """Write each view that can be seen as PNG and, where matplotlib is installed, the overview of the case.

    Pictures of the same names are replaced.

    :return: the files written.
    :raises InputError: when there is nothing to draw.
    :raises OutputError: when a file cannot be written.
    """
    pictures = {f"{name}.png": pictureOf(view) for name, view in compat.shownViews().items()}
    if canDrawOverview() and readResults(volumeNode) is not None:
        pictures[OVERVIEW] = overviewPicture(volumeNode)
    if not pictures:
        raise InputError(_("No view can be seen: choose a layout with views."))
    with OutputFolder(folder, (), overwrite=True) as output:
        for name, content in pictures.items():
            write_bytes(content, output / name)
        return _published(output)


def canDrawOverview() -> bool:
    """Whether matplotlib, which Slicer does not bring along, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def overviewPicture(volumeNode) -> bytes:
    """The overview of a case as a PNG: planes plain and with the masks as they are now, and the findings.

    :raises InputError: when the scan has no results.
    """
    from COVIDMultitaskLib.engines.contract import Prediction
    from COVIDMultitaskLib.findings import Findings
    from COVIDMultitaskLib.reporting import draw_overview
    from COVIDMultitaskLib.volume import Volume

    _nodes, view = _resultsOf(volumeNode)
    findings = Findings.from_dict({key: value for key, value in view.current.items() if key != "correction"})
    volume = Volume(slicer.util.arrayFromVolume(volumeNode), geometryOf(volumeNode))
    lobes, lungs, lesions = (readMask(volumeNode, kind) for kind in ("lobes", "lungs", "lesions"))
    return draw_overview(volume, Prediction(findings.engine, lobes, lesions, lungs=lungs), findings)


def pictureOf(view) -> bytes:
    """A slice or 3D view as it is shown, as a PNG."""
    view.forceRender()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.renderWindow())
    grab.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(grab.GetOutputPort())
    writer.WriteToMemoryOn()
    writer.Write()
    return vtk_to_numpy(writer.GetResult()).tobytes()


def dicomSegProblem(volumeNode) -> str | None:
    """Why the masks of a scan cannot be written as DICOM SEG; ``None``: they can."""
    if compat.dicomSegExporter() is None:
        return _("This Slicer writes no DICOM SEG: it needs version 5.12 or the extension QuantitativeReporting.")
    if not volumeNode.GetAttribute("DICOM.instanceUIDs"):
        return _(
            "This scan was not loaded from Slicer's DICOM database: there are no files a DICOM SEG could refer to."
        )
    return None


def exportDicomSeg(volumeNode, folder: Path) -> list[Path]:
    """Write lobes (or lungs) and lesions as a DICOM SEG file each.

    :return: the files written.
    :raises InputError: when the scan has no results, or cannot be referred to.
    :raises OutputError: when a file cannot be written.
    """
    nodes, view = _resultsOf(volumeNode)
    problem = dicomSegProblem(volumeNode)
    if problem:
        raise InputError(problem)
    corrected = view.correction.kinds if view.correction else ()
    with OutputFolder(folder, (), overwrite=True) as output:
        for kind, node in nodes.segmentations.items():
            mask = readMask(volumeNode, kind)
            if mask is not None and mask.any():
                _nameAlgorithm(node, view.originOf(kind), kind in corrected)
                _writeSeg(node, output.staging, f"{kind}.dcm")
        return _published(output)


def _nameAlgorithm(segmentationNode, origin: str, isCorrected: bool) -> None:
    """DICOM wants to know for each segment who drew it; the name may have 64 letters."""
    segmentation = segmentationNode.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        segment.SetTag("DICOM.SegmentAlgorithmType", "SEMIAUTOMATIC" if isCorrected else "AUTOMATIC")
        segment.SetTag("DICOM.SegmentAlgorithmName", f"COVIDMultitask {origin}".strip()[:64])


def _writeSeg(segmentationNode, folder: Path, name: str) -> None:
    exporter = compat.dicomSegExporter()(segmentationNode)
    try:
        exporter.export(str(folder), name, {"SeriesDescription": segmentationNode.GetName()}, skipEmpty=True)
    except Exception as error:  # the plugin raises many kinds; its words are the best that there is to say
        raise OutputError(_("DICOM SEG was not written: {reason}").format(reason=str(error).splitlines()[0])) from error
    finally:
        exporter.cleanup()


def _resultsOf(volumeNode) -> tuple[ResultNodes, FindingsView]:
    nodes, view = readResults(volumeNode), readRecord(volumeNode)
    if nodes is None or view is None:
        raise InputError(_("This scan has no findings yet; press Apply first."))
    return nodes, view


def _published(output: OutputFolder) -> list[Path]:
    return [output.path / file.name for file in sorted(output.staging.iterdir())]


def _texts(view: FindingsView) -> dict[str, str]:
    texts = {"findings.json": json.dumps(view.modelFindings, indent=2) + "\n", "findings.csv": findingsCsv(view)}
    if view.correction is not None:
        texts["findings_corrected.json"] = json.dumps(view.current, indent=2) + "\n"
    return texts


def _evidenceText(volumeNode) -> dict[str, str]:
    record = readEvidence(volumeNode)
    return {"evidence.json": json.dumps(record, indent=2) + "\n"} if record else {}


def findingsCsv(view: FindingsView) -> str:
    """The per-lobe table, and the scan's probabilities in a row of their own.

    Model and corrected rows are told apart by their first column; probabilities are the model's alone.
    """
    named = {f"{key}_probability": value for key, value in view.probabilities.items()}
    text = io.StringIO()
    fields = ["source", "region", *(column.key for column in COLUMNS), *named]
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csvRow("model", row) for row in view.modelRows.values())
    writer.writerow({"source": "model", "region": "scan", **named})
    if view.correction is not None:
        writer.writerows(_csvRow("corrected", row) for row in view.rows)
    return text.getvalue()


def _csvRow(source: str, row: Row) -> dict[str, str | float | None]:
    figures = zip((column.key for column in COLUMNS), row.values, strict=True)
    return {"source": source, "region": row.key, **dict(figures)}


def _writeLabelmap(segmentationNode, volumeNode, path: Path) -> None:
    node = exportLabelmap(segmentationNode, volumeNode)
    colors = node.GetDisplayNode().GetColorNode()
    try:
        _writeVolume(node, path)
    finally:
        removeNode(node)
        volumeNode.GetScene().RemoveNode(colors)


def _writeVolume(node, path: Path) -> None:
    isNrrd = path.suffix == ".nrrd"
    storage = slicer.vtkMRMLNRRDStorageNode() if isNrrd else slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise OutputError(_unwritten(path))


def _unwritten(path: Path) -> str:
    return _("{name} could not be written; free some disk space or choose another folder.").format(name=path.name)
