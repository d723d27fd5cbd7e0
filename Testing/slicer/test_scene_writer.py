"""Results in the real scene: every labelled voxel where it belongs in the world."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from COVIDMultitaskModule.exchange import Results
from COVIDMultitaskModule.findings import COLUMNS
from COVIDMultitaskModule.result_nodes import findResult
from COVIDMultitaskModule.scene_writer import exportLabelmap, writeResults
from COVIDMultitaskModule.terminology import terminologyEntry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slicer_host.chest import findings, ijkToRas, toyChest
from slicer_host.scene import linearTransform, toWorld, warpTransform, worldPositions

from COVIDMultitaskLib.labels import LEFT_UPPER, LESIONS, LOBES, RIGHT_LOWER

GRIDS = {
    "straight": {},
    "oblique": {"rotation_deg": (20, -10, 35)},
    "flipped": {"flipped": (True, True, False)},
    "flipped all and oblique": {"flipped": (True, True, True), "rotation_deg": (-30, 15, 5)},
    "sheared": {"shear": 0.4},
    "anisotropic": {"spacing": (0.7, 0.7, 10.0), "rotation_deg": (5, 0, 0)},
}
PARENTS = {"no transform": lambda scene: None, "linear": linearTransform, "warp": warpTransform}


def place(host, grid: dict, parent: str):
    """The toy chest in the scene, on a grid and under a transform."""
    chest = toyChest(grid.get("flipped", (False,) * 3))
    scan = host.addVolume(chest.ct, ijkToRas(**grid))
    transform = PARENTS[parent](host.scene)
    scan.SetAndObserveTransformNodeID(transform.GetID() if transform else None)
    return chest, scan


def write(scan, chest, record=None):
    return writeResults(scan, Results(chest.lobes, chest.lesions, record or findings()))


def segmentPositions(segmentationNode, key: str) -> np.ndarray:
    """World positions (RAS) of a segment's voxels, computed from the segmentation alone."""
    image = slicer.vtkOrientedImageData()
    segmentationNode.GetBinaryLabelmapRepresentation(key, image)
    x0, _, y0, _, z0, _ = image.GetExtent()
    scalars = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    zyx = np.argwhere(scalars.reshape(image.GetDimensions()[::-1]) > 0)
    ijk = zyx[:, ::-1] + (x0, y0, z0)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    local = np.c_[ijk, np.ones(len(ijk))] @ slicer.util.arrayFromVTKMatrix(matrix).T
    return toWorld(segmentationNode, local[:, :3])


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_labelled_voxel_lies_where_it_belongs_in_the_world(grid, parent, host):
    chest, scan = place(host, GRIDS[grid], parent)
    nodes = write(scan, chest)
    for node, array, labels in ((nodes.lobes, chest.lobes, LOBES), (nodes.lesions, chest.lesions, LESIONS)):
        for label in labels:
            expected = worldPositions(scan, array == label.value)
            assert len(expected) > 20
            np.testing.assert_allclose(segmentPositions(node, label.key), expected, atol=1e-3)


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_exported_labelmaps_are_the_results_on_the_scans_grid(grid, parent, host):
    chest, scan = place(host, GRIDS[grid], parent)
    nodes = write(scan, chest)
    for node, array in ((nodes.lobes, chest.lobes), (nodes.lesions, chest.lesions)):
        labelmap = exportLabelmap(node, scan)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(labelmap), array)
        np.testing.assert_allclose(worldPositions(labelmap, array > 0), worldPositions(scan, array > 0), atol=1e-3)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rotation=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 10)] * 3),
    flipped=st.tuples(*[st.booleans()] * 3),
    shear=st.floats(-0.6, 0.6),
    values=st.lists(st.integers(0, 5), min_size=27, max_size=27),
)
def test_any_grid_and_any_labels_come_back_voxel_by_voxel(rotation, spacing, flipped, shear, values, host):
    host.clear()
    array = np.pad(np.array(values, np.uint8).reshape(3, 3, 3), 2)
    matrix = ijkToRas(spacing=spacing, rotation_deg=rotation, flipped=flipped, shear=shear)
    scan = host.addVolume(np.zeros(array.shape, np.int16), matrix)
    scan.SetAndObserveTransformNodeID(linearTransform(host.scene).GetID())
    nodes = writeResults(scan, Results(array, None, {}))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(exportLabelmap(nodes.lobes, scan)), array)


def test_right_lobes_are_on_the_patients_right(host):
    chest, scan = place(host, GRIDS["flipped"], "no transform")
    nodes = write(scan, chest)
    right = segmentPositions(nodes.lobes, "right_lower")[:, 0].mean()
    left = segmentPositions(nodes.lobes, "left_upper")[:, 0].mean()
    assert right > 0 > left


def test_results_follow_the_scan_when_it_is_moved_between_two_runs(host):
    chest, scan = place(host, GRIDS["oblique"], "linear")
    write(scan, chest)
    scan.SetAndObserveTransformNodeID(None)
    nodes = write(scan, chest)
    assert nodes.lobes.GetTransformNodeID() is None
    np.testing.assert_allclose(
        segmentPositions(nodes.lobes, "left_upper"), worldPositions(scan, chest.lobes == LEFT_UPPER), atol=1e-3
    )


def test_names_colours_terms_and_values_are_those_of_the_labels(host):
    chest, scan = place(host, {}, "no transform")
    nodes = write(scan, chest)
    for node, labels in ((nodes.lobes, LOBES), (nodes.lesions, LESIONS)):
        segmentation = node.GetSegmentation()
        assert segmentation.GetNumberOfSegments() == len(labels)
        assert segmentation.GetNumberOfLayers() == 1
        for label in labels:
            segment = segmentation.GetSegment(label.key)
            assert segment.GetName() == label.name
            assert tuple(round(255 * channel) for channel in segment.GetColor()) == label.color
            assert segment.GetLabelValue() == label.value
            tag = vtk.reference("")
            assert segment.GetTag("TerminologyEntry", tag) and str(tag) == terminologyEntry(label)


def test_segments_without_voxels_are_there_and_empty(host):
    chest, scan = place(host, {}, "no transform")
    nodes = writeResults(scan, Results(chest.lobes, np.zeros_like(chest.lesions), findings()))
    assert nodes.lesions.GetSegmentation().GetNumberOfSegments() == 2
    assert len(segmentPositions(nodes.lesions, "ground_glass")) == 0
    assert not slicer.util.arrayFromVolume(exportLabelmap(nodes.lesions, scan)).any()


def test_reference_geometry_is_the_scans(host):
    chest, scan = place(host, GRIDS["oblique"], "linear")
    nodes = write(scan, chest)
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert nodes.lesions.GetNodeReference(role) is scan
    array = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.lobes, "right_lower")
    np.testing.assert_array_equal(array > 0, chest.lobes == RIGHT_LOWER)


def test_everything_stands_in_the_scans_study(host):
    chest, scan = place(host, {}, "no transform")
    _, study = host.addStudy(scan)
    nodes = write(scan, chest)
    labelmap = exportLabelmap(nodes.lobes, scan)
    for node in (nodes.lobes, nodes.lesions, nodes.table, labelmap):
        assert host.hierarchy.GetItemParent(host.hierarchy.GetItemByDataNode(node)) == study


def test_items_that_the_application_made_at_the_top_are_moved_into_the_study(host):
    chest, scan = place(host, {}, "no transform")
    _, study = host.addStudy(scan)
    with host.itemsForNewNodes():
        nodes = write(scan, chest)
        labelmap = exportLabelmap(nodes.lesions, scan)
    for node in (nodes.lobes, nodes.lesions, nodes.table, labelmap):
        assert host.hierarchy.GetItemParent(host.hierarchy.GetItemByDataNode(node)) == study


def test_a_scan_that_stands_nowhere_has_its_results_at_the_top(host):
    chest, scan = place(host, {}, "no transform")
    nodes = write(scan, chest)
    item = host.hierarchy.GetItemByDataNode(nodes.table)
    assert item and host.hierarchy.GetItemParent(item) == host.hierarchy.GetSceneItemID()


def test_a_second_run_uses_the_same_nodes_and_keeps_their_look(host):
    chest, scan = place(host, {}, "no transform")
    first = write(scan, chest)
    first.lobes.GetDisplayNode().SetOpacity2DFill(0.9)
    first.lobes.SetName("my lobes")
    count = host.scene.GetNumberOfNodes()
    second = writeResults(scan, Results(np.where(chest.lobes == LEFT_UPPER, LEFT_UPPER, 0), chest.lesions, findings()))
    assert (second.lobes, second.lesions, second.table) == (first.lobes, first.lesions, first.table)
    assert host.scene.GetNumberOfNodes() == count
    assert second.lobes.GetName() == "my lobes" and second.lobes.GetDisplayNode().GetOpacity2DFill() == 0.9
    assert len(segmentPositions(second.lobes, "right_lower")) == 0


def test_surfaces_that_were_shown_are_made_anew(host):
    chest, scan = place(host, {}, "no transform")
    nodes = write(scan, chest)
    nodes.lesions.CreateClosedSurfaceRepresentation()
    nodes = write(scan, chest)
    assert nodes.lesions.GetClosedSurfaceInternalRepresentation("ground_glass").GetNumberOfPoints() > 0


def test_each_scan_has_its_own_results(host):
    chest, scan = place(host, {}, "no transform")
    other = host.addVolume(chest.ct, ijkToRas(), "other scan")
    assert write(scan, chest).lobes is not write(other, chest).lobes
    assert write(other, chest).lobes.GetName() == "other scan lobes"


def test_results_that_an_engine_no_longer_gives_go_away(host):
    chest, scan = place(host, {}, "no transform")
    write(scan, chest)
    nodes = writeResults(scan, Results(None, chest.lesions, {}))
    assert nodes.lobes is None
    left = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")}
    assert left == {"scan lesions", "scan lesions of the model"}


def test_results_are_found_again_in_a_saved_scene(host):
    chest, scan = place(host, {}, "no transform")
    write(scan, chest)
    saved = host.saveToString()
    host.clear()
    host.loadFromString(saved)
    scan = host.scene.GetFirstNodeByName("scan")
    for kind in ("lobes", "lesions", "findings"):
        assert findResult(scan, kind).GetName() == f"scan {kind}"


def test_labelmap_keeps_its_values_when_segments_are_deleted_reordered_renamed_or_added(host):
    chest, scan = place(host, {}, "no transform")
    node = write(scan, chest).lobes
    segmentation = node.GetSegmentation()
    segmentation.RemoveSegment("left_lower")
    segmentation.SetSegmentIndex("right_lower", 0)
    segmentation.GetSegment("left_upper").SetName("mine")
    extra = segmentation.AddEmptySegment("extra", "nodule")
    spot = np.zeros_like(chest.lobes)
    spot[0, 0, 0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(spot, node, extra, scan)
    expected = np.where(chest.lobes == 2, 0, chest.lobes)
    expected[0, 0, 0] = 6
    labelmap = exportLabelmap(node, scan)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(labelmap), expected)
    colors = labelmap.GetDisplayNode().GetColorNode()
    names = [colors.GetColorName(value) for value in range(7)]
    assert names == ["Background", "mine", "", "Right upper lobe", "Right middle lobe", "Right lower lobe", "nodule"]
    color = [0.0] * 4
    colors.GetColor(5, color)
    assert tuple(round(255 * channel) for channel in color[:3]) == LOBES[4].color


def test_table_holds_the_lobes_with_units_and_gaps(host):
    chest, scan = place(host, {}, "no transform")
    table = write(scan, chest).table
    assert table.GetNumberOfRows() == 6
    assert [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())] == ["lobe", *(c.key for c in COLUMNS)]
    assert table.GetCellText(0, 0) == "Left upper lobe" and table.GetCellText(5, 0) == "Both lungs"
    percent = slicer.util.arrayFromTableColumn(table, "lesion_percent")
    np.testing.assert_allclose(percent, [10, 20, 30, 40, 50, 11.5])
    assert np.isnan(slicer.util.arrayFromTableColumn(table, "mean_lesion_hu")[0])
    assert table.GetColumnTitle("volume_ml") == "Volume (ml)"
    assert table.GetColumnUnitLabel("volume_ml") == "ml"
    assert slicer.util.arrayFromTableColumn(write(scan, chest, {"lobes": []}).table, "volume_ml").size == 0
