"""Corrected masks on the real scene: measured again, taken back, kept in saved scenes, exported."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import slicer
import vtk
from COVIDMultitaskModule.correction import Corrections, geometryOf
from COVIDMultitaskModule.display import jumpTo, worldPosition
from COVIDMultitaskModule.exchange import Results
from COVIDMultitaskModule.export import exportCase
from COVIDMultitaskModule.result_nodes import MODEL, findResult
from COVIDMultitaskModule.scene_writer import readMask, readRecord, readResults, writeRecord, writeResults
from slicer_host.chest import findings, ijkToRas, toyChest
from slicer_host.scene import linearTransform, worldPositions
from vtk.util.numpy_support import numpy_to_vtk

from COVIDMultitaskLib.errors import InputError, OutputError
from COVIDMultitaskLib.labels import LOBES
from COVIDMultitaskLib.measuring import measure_masks
from COVIDMultitaskLib.volume import geometry_of_sitk

TILTED = ijkToRas(rotation_deg=(12, -8, 20), shear=0.25)


@pytest.fixture
def scan(host):
    node = host.addVolume(toyChest().ct, TILTED, "CT")
    node.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    host.addStudy(node)
    return node


@pytest.fixture
def nodes(scan):
    return writeResults(scan, Results(toyChest().lobes, toyChest().lesions, findings()))


@pytest.fixture
def corrections(scan, nodes):
    changes = []
    watched = Corrections(scan, lambda: changes.append(1))
    watched.changes = changes
    yield watched
    watched.release()


def edit(segmentationNode, scan, segment: str, mask: np.ndarray) -> None:
    """As an effect of the Segment Editor does."""
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentationNode, segment, scan)


def test_masks_are_read_as_they_were_written(scan, nodes):
    for kind, expected in (("lobes", toyChest().lobes), ("lesions", toyChest().lesions)):
        np.testing.assert_array_equal(readMask(scan, kind), expected)
        np.testing.assert_array_equal(readMask(scan, kind + MODEL), expected)


def test_segments_that_the_user_added_do_not_count(scan, nodes):
    identifier = nodes.lesions.GetSegmentation().AddEmptySegment("mine", "mine")
    edit(nodes.lesions, scan, identifier, np.pad(np.ones((2, 2, 2)), ((0, 22), (0, 46), (0, 62))))
    np.testing.assert_array_equal(readMask(scan, "lesions"), toyChest().lesions)


def test_a_segment_drawn_over_others_wins_and_one_outside_the_scan_does_no_harm(scan, nodes):
    """An image of its own, such as an effect makes: larger than the scan, in another layer."""
    x, y, z = scan.GetImageData().GetDimensions()
    large = np.zeros((z + 4, y + 6, x + 8), np.int16)
    large[2 : z + 2, 3 : y + 3, 4 : x + 4] = toyChest().lobes == 4
    large[0], large[:, :, 0] = 1, 1
    image = slicer.vtkOrientedImageData()
    image.SetExtent(-4, x + 3, -3, y + 2, -2, z + 1)
    scalars = numpy_to_vtk(large.ravel(), deep=True)
    image.GetPointData().SetScalars(scalars)
    toRas = vtk.vtkMatrix4x4()
    scan.GetIJKToRASMatrix(toRas)
    image.SetImageToWorldMatrix(toRas)
    segment = nodes.lesions.GetSegmentation().GetSegment("consolidation")
    segment.SetLabelValue(1)
    segment.AddRepresentation("Binary labelmap", image)
    expected = np.where(toyChest().lobes == 4, 2, np.where(toyChest().lesions == 1, 1, 0))
    np.testing.assert_array_equal(readMask(scan, "lesions"), expected)


def test_a_segment_on_a_lattice_of_its_own_is_resampled(scan, nodes):
    image = nodes.lesions.GetSegmentation().GetSegment("ground_glass").GetRepresentation("Binary labelmap")
    shifted = slicer.vtkOrientedImageData()
    shifted.DeepCopy(image)
    toRas = vtk.vtkMatrix4x4()
    shifted.GetImageToWorldMatrix(toRas)
    step = np.array([toRas.GetElement(row, 0) for row in range(3)])
    for row in range(3):
        toRas.SetElement(row, 3, toRas.GetElement(row, 3) + 2 * step[row])
    shifted.SetImageToWorldMatrix(toRas)
    nodes.lesions.GetSegmentation().GetSegment("ground_glass").AddRepresentation("Binary labelmap", shifted)
    found, expected = readMask(scan, "lesions") == 1, np.roll(toyChest().lesions == 1, 2, axis=2)
    assert (found & expected).sum() > 0.95 * expected.sum() and found.sum() < 1.05 * expected.sum()


def test_the_models_masks_are_out_of_sight(scan, nodes):
    for kind in ("lobes", "lesions"):
        hidden = findResult(scan, kind + MODEL)
        assert hidden.GetHideFromEditors() and hidden.GetDisplayNode() is None
    assert findResult(scan, "record").GetHideFromEditors()


def test_the_grid_is_the_libraries(scan, tmp_path):
    import SimpleITK as sitk
    from COVIDMultitaskModule.exchange import writeScan

    writeScan(scan, tmp_path / "scan.nrrd")
    assert geometryOf(scan).is_close_to(geometry_of_sitk(sitk.ReadImage(str(tmp_path / "scan.nrrd"))))


def test_what_was_changed_while_nobody_watched_is_caught_up_with(scan, nodes):
    edit(nodes.lesions, scan, "consolidation", np.zeros_like(toyChest().lesions))
    watched = Corrections(scan, lambda: None)
    assert readRecord(scan).correction is None
    assert watched.catchUp("Dr Late") and not watched.catchUp("Dr Late")
    made = readRecord(scan).correction
    assert made.kinds == ("lesions",) and made.by == "Dr Late"
    watched.restore()
    watched.measure()
    assert readRecord(scan).correction is None and not watched.catchUp("Dr Late")
    watched.release()


def test_findings_that_hold_keep_their_name_and_time(scan, nodes, corrections, monkeypatch):
    edit(nodes.lesions, scan, "consolidation", np.zeros_like(toyChest().lesions))
    corrections.measure("Dr Reader")
    corrections.release()
    made = readRecord(scan).correction
    monkeypatch.setattr("COVIDMultitaskModule.correction._now", lambda: "later")
    again = Corrections(scan, lambda: None)
    assert not again.catchUp("Dr Other")
    assert readRecord(scan).correction == made
    again.release()
    edit(nodes.lesions, scan, "ground_glass", np.zeros_like(toyChest().lesions))
    assert Corrections(scan, lambda: None).catchUp("Dr Other")
    assert (readRecord(scan).correction.by, readRecord(scan).correction.time) == ("Dr Other", "later")


def test_the_comparison_with_known_cases_follows_a_correction(scan, nodes, corrections):
    row = {"key": "consolidation_percent", "name": "Consolidation", "unit": "%", "value": 44.0, "reference": {}}
    writeRecord(scan, {**findings(), "differential": [row]}, None)
    edit(nodes.lesions, scan, "consolidation", np.zeros_like(toyChest().lesions))
    corrections.measure()
    (shown,) = readRecord(scan).differential
    assert (shown.title, shown.value) == ("Consolidation, %", "0")


def test_a_correction_is_noticed_and_measured(scan, nodes, corrections):
    lesions = toyChest().lesions
    larger = lesions.copy()
    larger[(toyChest().lobes == 5) & (lesions == 0)] = 1
    edit(nodes.lesions, scan, "ground_glass", larger == 1)
    assert corrections.changes and corrections.isPending
    corrections.measure(" Dr Reader ")
    view = readRecord(scan)
    assert view.correction.kinds == ("lesions",) and view.correction.by == "Dr Reader" and view.correction.time
    rows = {row.key: row for row in view.rows}
    inside = toyChest().lobes == 5
    expected = 100 * (larger[inside] > 0).mean()
    assert rows["right_lower"].value("lesion_percent") == pytest.approx(expected, abs=0.01)
    column = slicer.util.arrayFromTableColumn(nodes.table, "lesion_percent")
    assert column[[lobe.key for lobe in LOBES].index("right_lower")] == pytest.approx(expected, abs=0.01)
    assert view.modelFindings == findings(), "the model's own findings stay"
    assert view.places[0].title.endswith("Right lower lobe")


@pytest.fixture
def lungsAlone(scan):
    """Results of an engine that knows the lungs but not their lobes, measured as they are in a run."""
    chest = toyChest()
    measures = measure_masks(None, chest.lesions, geometryOf(scan), chest.ct, chest.lungs)
    record = {**findings(), **json.loads(json.dumps(dataclasses.asdict(measures)))}
    return writeResults(scan, Results(None, chest.lesions, record, lungs=chest.lungs))


def test_without_lobes_a_corrected_lesion_is_still_measured_in_its_lung(scan, lungsAlone):
    corrections = Corrections(scan, lambda: None)
    edit(lungsAlone.lesions, scan, "consolidation", np.zeros_like(toyChest().lesions))
    corrections.measure()
    corrected, models = readRecord(scan).current, readRecord(scan).modelFindings
    assert [lung["volume_ml"] for lung in corrected["lungs"]] == [lung["volume_ml"] for lung in models["lungs"]]
    left, right = (lung["lesion_percent"] for lung in corrected["lungs"])
    assert left == 0 and right == models["lungs"][1]["lesion_percent"] == corrected["worst_lung_percent"]
    assert corrected["lobes"] is None and corrected["lesions"]["bilateral"] is False
    corrections.release()


def test_corrected_lungs_are_measured_anew(scan, lungsAlone):
    corrections = Corrections(scan, lambda: None)
    edit(lungsAlone.lungs, scan, "left", np.zeros_like(toyChest().lungs))
    corrections.measure()
    assert readRecord(scan).correction.kinds == ("lungs",)
    assert [lung["volume_ml"] > 0 for lung in readRecord(scan).current["lungs"]] == [False, True]
    corrections.restore()
    corrections.measure()
    np.testing.assert_array_equal(readMask(scan, "lungs"), toyChest().lungs)
    assert readRecord(scan).correction is None
    corrections.release()


def test_lungs_make_way_for_the_lobes_of_another_analysis(scan, lungsAlone):
    nodes = writeResults(scan, Results(toyChest().lobes, toyChest().lesions, findings()))
    assert nodes.lungs is None and findResult(scan, "lungs") is None and findResult(scan, "lungs" + MODEL) is None
    assert list(readResults(scan).segmentations) == ["lobes", "lesions"] and nodes.anatomy == "lobes"


def test_places_of_corrected_lesions_lie_in_them(scan, nodes, corrections):
    edit(nodes.lesions, scan, "consolidation", toyChest().lesions == 9)
    corrections.measure()
    (place,) = readRecord(scan).places
    there = worldPosition(scan, place.ras)
    distances = np.linalg.norm(worldPositions(scan, toyChest().lesions == 1) - there, axis=1)
    assert distances.min() < 1e-2


def test_what_was_undone_is_no_correction(scan, nodes, corrections):
    edit(nodes.lesions, scan, "ground_glass", toyChest().lesions == 9)
    corrections.measure()
    assert readRecord(scan).correction is not None
    edit(nodes.lesions, scan, "ground_glass", toyChest().lesions == 1)
    corrections.measure()
    assert readRecord(scan).correction is None


def test_back_to_the_models_masks_and_forth(scan, nodes, corrections):
    edit(nodes.lesions, scan, "ground_glass", toyChest().lesions == 9)
    edit(nodes.lobes, scan, "left_upper", toyChest().lobes == 9)
    corrections.measure()
    changes = len(corrections.changes)
    corrections.restore()
    np.testing.assert_array_equal(readMask(scan, "lesions"), toyChest().lesions)
    np.testing.assert_array_equal(readMask(scan, "lobes"), toyChest().lobes)
    assert corrections.canUndo and len(corrections.changes) == changes
    corrections.undoRestore()
    assert not (readMask(scan, "lesions") == 1).any() and not (readMask(scan, "lobes") == 1).any()
    corrections.measure()
    assert readRecord(scan).correction.kinds == ("lobes", "lesions")


def test_the_segment_editors_own_undo_works_across_restoring(scan, nodes, corrections):
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(nodes.lesions.GetSegmentation())
    history.SetMaximumNumberOfStates(5)
    edit(nodes.lesions, scan, "ground_glass", toyChest().lobes == 1)
    there = readMask(scan, "lesions")
    history.SaveState()
    corrections.restore()
    corrections.measure()
    assert history.RestorePreviousState()
    assert corrections.isPending, "it is noticed"
    np.testing.assert_array_equal(readMask(scan, "lesions"), there)
    corrections.measure()
    assert readRecord(scan).correction.kinds == ("lesions",)
    history.SetSegmentation(None)


def test_another_name_or_colour_is_no_correction_and_makes_none_younger(scan, nodes, corrections, monkeypatch):
    edit(nodes.lesions, scan, "ground_glass", toyChest().lobes == 1)
    corrections.measure("Dr Reader")
    corrected = readRecord(scan).correction
    monkeypatch.setattr("COVIDMultitaskModule.correction._now", lambda: "later")
    nodes.lesions.GetSegmentation().GetSegment("ground_glass").SetName("Milchglas")
    assert corrections.isPending
    corrections.measure("Dr Reader")
    assert readRecord(scan).correction == corrected


def test_what_was_drawn_between_restoring_and_undoing_is_not_lost(scan, nodes, corrections):
    erased, drawn = toyChest().lesions == 9, toyChest().lobes == 1
    edit(nodes.lesions, scan, "ground_glass", erased)
    corrections.restore()
    edit(nodes.lesions, scan, "ground_glass", drawn)
    there = readMask(scan, "lesions")
    corrections.undoRestore()
    np.testing.assert_array_equal(readMask(scan, "lesions") == 1, erased)
    corrections.undoRestore()
    np.testing.assert_array_equal(readMask(scan, "lesions"), there)
    assert (there[drawn] > 0).all()


def test_a_segment_of_the_users_own_survives_restoring_and_another_analysis(scan, nodes, corrections):
    own = nodes.lesions.GetSegmentation().AddEmptySegment("nodule", "Nodule")
    edit(nodes.lesions, scan, own, toyChest().lobes == 2)
    edit(nodes.lesions, scan, "ground_glass", toyChest().lesions == 9)
    corrections.restore()
    writeResults(scan, Results(toyChest().lobes, toyChest().lesions, findings()))
    kept = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.lesions, own, scan)
    np.testing.assert_array_equal(kept > 0, toyChest().lobes == 2)
    np.testing.assert_array_equal(readMask(scan, "lesions"), toyChest().lesions)


def test_masks_of_another_analysis_are_the_models_own(scan, nodes, corrections):
    corrections.measure()
    lesions = np.where(toyChest().lobes == 1, 2, 0).astype(np.uint8)
    writeResults(scan, Results(toyChest().lobes, lesions, findings()))
    assert corrections.isPending
    corrections.measure()
    assert readRecord(scan).correction is None


def test_corrections_without_findings_are_explained(scan, nodes, corrections, host):
    host.scene.RemoveNode(findResult(scan, "record"))
    with pytest.raises(InputError, match="press Apply"):
        corrections.measure()


@pytest.mark.parametrize("text", ["", "[1", "[]", "{}", "null"])
def test_a_damaged_record_is_none(scan, nodes, text):
    findResult(scan, "record").SetText(text)
    assert readRecord(scan) is None and readResults(scan) is None


def test_everything_survives_saving_and_loading_the_scene(scan, nodes, corrections, host, tmp_path):
    edit(nodes.lesions, scan, "ground_glass", toyChest().lesions == 9)
    corrections.measure("Dr Reader")
    corrections.release()
    host.saveScene(tmp_path / "case.mrb")
    host.clear()
    host.loadScene(tmp_path / "case.mrb")
    loaded = host.scene.GetFirstNodeByName("CT")
    assert loaded is not None and loaded is not scan
    view, again = readRecord(loaded), readResults(loaded)
    assert view.origin == "joint, toy, 0" and view.correction.by == "Dr Reader"
    assert again.table.GetNumberOfRows() == 6
    np.testing.assert_array_equal(readMask(loaded, "lobes"), toyChest().lobes)
    np.testing.assert_array_equal(readMask(loaded, "lesions" + MODEL), toyChest().lesions)
    assert again.lobes.GetTransformNodeID() == loaded.GetTransformNodeID() is not None
    taken_back = Corrections(loaded, lambda: None)
    taken_back.restore()
    taken_back.measure()
    taken_back.release()
    assert readRecord(loaded).correction is None
    np.testing.assert_array_equal(readMask(loaded, "lesions"), toyChest().lesions)


def test_a_jump_takes_the_parent_transform_along(scan, nodes, host):
    view = slicer.vtkMRMLSliceNode()
    view.SetLayoutName("Red")
    host.scene.AddNode(view)
    jumpTo(scan, (10.0, 20.0, 30.0))
    center = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    np.testing.assert_allclose(center, worldPosition(scan, (10.0, 20.0, 30.0)), atol=1e-6)
    assert np.linalg.norm(np.subtract(center, (10.0, 20.0, 30.0))) > 10


@pytest.mark.parametrize(("suffix", "shear"), [(".nrrd", 0.25), (".nii.gz", 0.0)])
def test_export_gives_files_on_the_scans_grid(host, tmp_path, suffix, shear):
    import SimpleITK as sitk

    scan = host.addVolume(toyChest().ct, ijkToRas(rotation_deg=(12, -8, 20), shear=shear), "CT")
    scan.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    nodes = writeResults(scan, Results(toyChest().lobes, toyChest().lesions, findings()))
    corrections = Corrections(scan, lambda: None)
    edit(nodes.lesions, scan, "ground_glass", toyChest().lesions == 9)
    corrections.measure()
    corrections.release()
    before = host.scene.GetNumberOfNodes()
    written = exportCase(scan, tmp_path, suffix)
    assert host.scene.GetNumberOfNodes() == before
    names = {"findings.json", "findings.csv", "findings_corrected.json", f"lobes{suffix}", f"lesions{suffix}"}
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "findings.json").read_text()) == findings()
    rows = list(csv.DictReader((tmp_path / "findings.csv").read_text().splitlines()))
    assert [row["source"] for row in rows] == ["model"] * 7 + ["corrected"] * 6
    assert [row["covid_19_probability"] for row in rows] == [""] * 6 + ["0.8"] + [""] * 6
    image = sitk.ReadImage(str(tmp_path / f"lobes{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), toyChest().lobes)
    assert geometry_of_sitk(image).is_close_to(geometryOf(scan), 1e-2)


def test_export_says_what_is_wrong(scan, host, tmp_path, nodes):
    (tmp_path / "a file").touch()
    with pytest.raises(OutputError, match="give another output folder"):
        exportCase(scan, tmp_path / "a file")
    with pytest.raises(InputError, match="choose NRRD"):
        exportCase(scan, tmp_path, ".nii.gz")
    other = host.addVolume(toyChest().ct, TILTED, "other")
    with pytest.raises(InputError, match="press Apply"):
        exportCase(other, tmp_path)
