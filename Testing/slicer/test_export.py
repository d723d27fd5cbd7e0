"""Results as files: whole or not at all, and a sentence when not."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import vtk
from COVIDMultitaskModule import compat, export
from COVIDMultitaskModule.correction import Corrections
from COVIDMultitaskModule.exchange import Results, readResults
from COVIDMultitaskModule.findings import FindingsView
from COVIDMultitaskModule.scene_writer import readRecord, writeLesionTable, writeRecord, writeResults
from slicer_host.chest import findings, ijkToRas, toyChest
from slicer_host.scene import linearTransform
from slicer_host.slice_view import SliceView

from COVIDMultitaskLib.errors import InputError, OutputError
from COVIDMultitaskLib.reading import read_label_map
from COVIDMultitaskLib.volume import Volume


@pytest.fixture
def scan(host):
    """A scan under a transform with measured results and evidence of both kinds."""
    chest = toyChest()
    node = host.addVolume(chest.ct, ijkToRas(rotation_deg=(10, 20, 30)), "CT")
    node.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    uncertainty = np.where(chest.lesions > 0, 60, 10).astype(np.uint8)
    parts = {"slices": [{"point_lps_mm": [0.0, 0.0, 8.0], "contribution": 0.7}]}
    writeResults(node, Results(chest.lobes, chest.lesions, measured(node), {"uncertainty": uncertainty}, parts))
    return node


def measured(scan) -> dict:
    """Findings of the toy chest as the library measures them."""
    from COVIDMultitaskLib.engines.contract import EngineIdentity, Prediction
    from COVIDMultitaskLib.measuring import measure

    identity = EngineIdentity("joint", "toy", "0", "0" * 64, "nothing", "Apache-2.0")
    probabilities = {key: findings()[key] for key in ("severity", "diagnosis")}
    volume = Volume(toyChest().ct, export.geometryOf(scan))
    return measure(volume, Prediction(identity, toyChest().lobes, toyChest().lesions, **probabilities)).to_dict()


@pytest.fixture
def views(host, scan, monkeypatch):
    """Two slice views in place of the application's."""
    made = {name: SliceView(host, scan, orientation, 128) for name, orientation in (("Red", "Axial"), ("G", "Coronal"))}
    shown = {
        name: SimpleNamespace(forceRender=view.window.Render, renderWindow=lambda view=view: view.window)
        for name, view in made.items()
    }
    monkeypatch.setattr(compat, "shownViews", lambda: shown)
    return made


def picture(path) -> np.ndarray:
    from PIL import Image

    return np.array(Image.open(path).convert("RGB"))


def test_a_case_comes_with_its_evidence(scan, tmp_path):
    written = {path.name for path in export.exportCase(scan, tmp_path)}
    assert written == {path.name for path in tmp_path.iterdir()}
    assert {"evidence_uncertainty.nrrd", "evidence.json"} < written
    again = readResults(tmp_path, toyChest().ct.shape)
    assert again.evidence["uncertainty"].max() == 60
    assert json.loads((tmp_path / "evidence.json").read_text())["maps"]["uncertainty"]["lesions"] == 60.0


def test_earlier_results_are_replaced_only_on_request_and_never_half(scan, tmp_path, monkeypatch):
    export.exportCase(scan, tmp_path, ".nii.gz")
    assert export.holdsCase(tmp_path) and not export.holdsCase(tmp_path / "other")
    with pytest.raises(OutputError, match="already holds"):
        export.exportCase(scan, tmp_path)
    failing = SimpleNamespace(SetFileName=lambda _path: None, WriteData=lambda _node: 0)
    monkeypatch.setattr(slicer, "vtkMRMLNRRDStorageNode", lambda: failing)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OutputError, match="free some disk space"):
        export.exportCase(scan, tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    monkeypatch.undo()
    export.exportCase(scan, tmp_path, overwrite=True)
    assert not list(tmp_path.glob("*.nii.gz")), "two formats of one case would contradict each other"


@pytest.mark.skipif(os.name == "nt", reason="permissions of folders are others there")
def test_a_folder_without_permission_is_a_sentence(scan, host, tmp_path, views, monkeypatch):
    def refuse(*_arguments, **_named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    for write in (
        lambda: export.exportCase(scan, tmp_path),
        lambda: export.exportPictures(scan, tmp_path),
        lambda: export.exportScene(host.scene, tmp_path / "case.mrb"),
    ):
        with pytest.raises(OutputError, match="no permission to write"):
            write()
    assert not list(tmp_path.iterdir())


def test_pictures_are_the_views_as_they_are_and_the_case(scan, tmp_path, views):
    written = {path.name for path in export.exportPictures(scan, tmp_path)}
    assert written == {"Red.png", "G.png", "overview.png"}
    np.testing.assert_array_equal(picture(tmp_path / "Red.png"), views["Red"].render())
    assert picture(tmp_path / "overview.png").shape == (1240, 1860, 3)


def test_the_overview_shows_the_masks_as_they_are_now(scan):
    from PIL import Image

    before = np.array(Image.open(io.BytesIO(export.overviewPicture(scan))).convert("RGB"))
    corrections = Corrections(scan, lambda: None)
    erased = np.zeros(toyChest().lesions.shape, np.uint8)
    lesions = export.readResults(scan).lesions
    slicer.util.updateSegmentBinaryLabelmapFromArray(erased, lesions, "consolidation", scan)
    corrections.measure()
    corrections.release()
    assert readRecord(scan).current["lesions"]["count"] == 1
    after = np.array(Image.open(io.BytesIO(export.overviewPicture(scan))).convert("RGB"))
    assert (before != after).any(axis=2).mean() > 0.02


def test_without_matplotlib_there_are_still_pictures(scan, tmp_path, views, monkeypatch):
    monkeypatch.setattr(export, "canDrawOverview", lambda: False)
    assert {path.name for path in export.exportPictures(scan, tmp_path)} == {"Red.png", "G.png"}
    monkeypatch.setattr(compat, "shownViews", dict)
    with pytest.raises(InputError, match="No view"):
        export.exportPictures(scan, tmp_path)


def test_the_scene_is_one_file_that_opens_again(scan, host, tmp_path):
    path = tmp_path / "case.mrb"
    path.write_text("an earlier one")
    assert export.exportScene(host.scene, path) == [path] == list(tmp_path.iterdir())
    host.clear()
    host.loadScene(path)
    again = host.scene.GetFirstNodeByName("CT")
    assert readRecord(again).places[0].detail == "uncertainty 60 %"
    assert [place.title for place in readRecord(again).parts] == ["Slice, contribution 0.70"]


def test_the_list_of_lesions_is_a_table(scan, host):
    table = writeLesionTable(scan)
    assert table.GetNumberOfRows() == 2 and writeLesionTable(scan) is table
    assert "ground-glass" in table.GetCellText(0, 0).lower()
    r, a, s = (slicer.util.arrayFromTableColumn(table, axis)[0] for axis in "RAS")
    assert (r, a, s) == pytest.approx(readRecord(scan).places[0].ras)


def test_the_table_holds_the_probabilities_of_every_engine():
    def rows(**others) -> list[dict]:
        return list(csv.DictReader(export.findingsCsv(FindingsView({**findings(), **others})).splitlines()))

    *regions, whole = rows()
    assert len(regions) == 6 and {row["covid_19_probability"] for row in regions} == {""}
    assert (whole["source"], whole["region"], whole["volume_ml"]) == ("model", "scan", "")
    told = {key: value for key, value in whole.items() if key.endswith("_probability")}
    assert told == {
        "severe_probability": "0.2",
        "covid_19_probability": "0.8",
        "other_pneumonia_probability": "0.15",
        "no_pneumonia_probability": "0.05",
    }
    alone = rows(severity=None, diagnosis=None, covid_probability=0.83)[-1]
    assert [alone[key] for key in told] == ["", "0.83", "", ""]


def tagOf(segment, name: str) -> str:
    tag = vtk.reference("")
    segment.GetTag(f"DICOM.SegmentAlgorithm{name}", tag)
    return str(tag)


def test_dicom_seg_names_the_engine_that_drew_each_kind(scan, tmp_path, monkeypatch):
    record = readRecord(scan).modelFindings
    joint = record["engine"]
    triage = {**joint, "engine": "triage", "bundle": "triage-with-a-name-as-long-as-a-user-likes-it"}
    writeRecord(scan, {**record, "engine": triage, "sources": {"lungs": joint, "lobes": joint}}, None)
    plugin = SimpleNamespace(DICOMSegmentationExporter=FakeExporter)
    monkeypatch.setitem(sys.modules, "DICOMSegmentationPlugin", plugin)
    scan.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    export.exportDicomSeg(scan, tmp_path)
    nodes = export.readResults(scan)
    lobes, lesions = (tagOf(node.GetSegmentation().GetNthSegment(0), "Name") for node in (nodes.lobes, nodes.lesions))
    assert lobes == "COVIDMultitask joint, toy, 0"
    assert lesions.startswith("COVIDMultitask triage, triage-with-a-name") and len(lesions) == 64, "DICOM takes no more"


def test_without_lobes_the_lungs_are_exported(scan, tmp_path, monkeypatch):
    chest = toyChest()
    writeResults(scan, Results(None, chest.lesions, {**findings(), "lobes": None}, lungs=chest.lungs))
    export.exportCase(scan, tmp_path / "case")
    names = {path.name for path in (tmp_path / "case").iterdir()}
    assert names == {"findings.json", "findings.csv", "lungs.nrrd", "lesions.nrrd"}
    written = read_label_map(tmp_path / "case" / "lungs.nrrd")
    np.testing.assert_array_equal(written.array, chest.lungs)
    monkeypatch.setitem(sys.modules, "DICOMSegmentationPlugin", SimpleNamespace(DICOMSegmentationExporter=FakeExporter))
    scan.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    assert {path.name for path in export.exportDicomSeg(scan, tmp_path)} == {"lungs.dcm", "lesions.dcm"}


class FakeExporter:
    """DICOM SEG's exporter as of Slicer 5.12, without DICOM."""

    fails = ""

    def __init__(self, segmentationNode) -> None:
        self.node = segmentationNode

    def export(self, directory, name, metadata, segmentIDs=None, skipEmpty=False) -> bool:
        if self.fails:
            raise RuntimeError(self.fails)
        segments = self.node.GetSegmentation()
        tags = [tagOf(segments.GetNthSegment(n), "Type") for n in range(segments.GetNumberOfSegments())]
        with open(os.path.join(directory, name), "w") as file:
            json.dump([metadata["SeriesDescription"], skipEmpty, tags], file)
        return True

    def cleanup(self) -> None:
        pass


def test_dicom_seg_is_refused_with_the_reason_or_written_with_who_drew_it(scan, tmp_path, monkeypatch):
    assert "5.12" in export.dicomSegProblem(scan)
    with pytest.raises(InputError, match=r"5\.12"):
        export.exportDicomSeg(scan, tmp_path)
    plugin = SimpleNamespace(DICOMSegmentationExporter=FakeExporter)
    monkeypatch.setitem(sys.modules, "DICOMSegmentationPlugin", plugin)
    assert "not loaded from Slicer's DICOM database" in export.dicomSegProblem(scan)
    scan.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    assert export.dicomSegProblem(scan) is None
    assert {path.name for path in export.exportDicomSeg(scan, tmp_path)} == {"lobes.dcm", "lesions.dcm"}
    assert json.loads((tmp_path / "lesions.dcm").read_text()) == ["CT lesions", True, ["AUTOMATIC"] * 2]
    monkeypatch.setattr(FakeExporter, "fails", "itkimage2segimage failed:\nmuch text")
    with pytest.raises(OutputError, match=r"not written: itkimage2segimage failed:$"):
        export.exportDicomSeg(scan, tmp_path / "new")
    assert not (tmp_path / "new").exists()
