"""Measuring: every figure against its definition, on any grid, whatever is missing."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from COVIDMultitaskLib.engines.contract import Unlikeness
from COVIDMultitaskLib.findings import Findings
from COVIDMultitaskLib.labels import LOBES, LUNGS
from COVIDMultitaskLib.measuring import MaskMeter, measure, measure_masks
from COVIDMultitaskLib.measuring.scores import ct_grade, lobe_score
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Provenance, Volume
from Testing.library.lung_scenes import (
    CENTERS,
    DIAGNOSIS,
    DISEASE,
    RADII,
    SEVERITY,
    STORAGES,
    Ball,
    answer,
    draw,
    grid,
    positions,
    stored,
    stored_geometry,
)

AXIAL = grid()
SCENE = draw(AXIAL)


def flags(findings) -> dict[str, str]:
    return {flag.flag: flag.level for flag in findings.quality}


def without_storage(findings: Findings) -> dict[str, object]:
    """The findings less what tells how the array was stored."""
    data = findings.to_dict()
    del data["input"]
    for component in data["lesions"]["components"]:
        del component["start_zyx"], component["stop_zyx"], component["point_lps_mm"]
    return data


# -- volumes and percentages


@pytest.mark.parametrize("label", LOBES, ids=lambda label: label.key)
def test_a_lobe_is_measured_as_counting_voxels_measures_it(label) -> None:
    volume, lobes, lesions = SCENE
    found = next(lobe for lobe in measure(*(volume, answer(lobes, lesions))).lobes or () if lobe.key == label.key)
    inside = lobes == label.value
    ml = 4.0 * 3.0 * 3.0 / 1000
    assert found.volume_ml == pytest.approx(inside.sum() * ml, abs=1e-3)
    assert found.lesion_volume_ml == pytest.approx((inside & (lesions > 0)).sum() * ml, abs=1e-3)
    assert found.ground_glass_percent == pytest.approx(100 * (lesions[inside] == 1).mean(), abs=1e-3)
    assert found.consolidation_percent == pytest.approx(100 * (lesions[inside] == 2).mean(), abs=1e-3)
    if (lesions[inside] > 0).any():
        assert found.mean_lesion_hu == pytest.approx(volume.array[inside & (lesions > 0)].mean(), abs=0.01)
    else:
        assert found.mean_lesion_hu is None


def test_a_lung_of_known_size_has_that_volume() -> None:
    volume, lobes, lesions = draw(grid((2.0, 2.0, 2.0)))
    findings = measure(volume, answer(lobes, lesions))
    ellipsoid_ml = 4 / 3 * np.pi * np.prod(RADII) / 1000
    assert [lung.volume_ml for lung in findings.lungs or ()] == pytest.approx([ellipsoid_ml] * 2, rel=0.01)


def test_a_tilted_gantry_does_not_change_volumes() -> None:
    upright = measure(*_with_answer(draw(grid((2.0, 2.0, 2.0)))))
    tilted = measure(*_with_answer(draw(grid((2.0, 2.0, 2.0), shear=0.35, size_mm=(270, 350, 320)))))
    assert tilted.total.volume_ml == pytest.approx(upright.total.volume_ml, rel=0.005)
    assert tilted.lesions.peripheral_percent == pytest.approx(upright.lesions.peripheral_percent, abs=2)


def _with_answer(scene):
    volume, lobes, lesions = scene
    return volume, answer(lobes, lesions)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 7)] * 3))
def test_parts_add_up_in_any_masks(seed: int, shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(seed)
    lobes = random.integers(0, 6, shape, dtype=np.uint8) * (random.random(shape) < 0.7)
    lesions = random.integers(0, 3, shape, dtype=np.uint8)
    hu = random.integers(-900, 100, shape).astype(np.int16)
    found = measure_masks(lobes.astype(np.uint8), lesions, Geometry(shape, (5.0, 4.0, 3.0), (0, 0, 0)), hu)
    inside = (lesions > 0) & (lobes > 0)
    assert found.total.volume_ml == pytest.approx((lobes > 0).sum() * 0.06, abs=1e-3)
    assert found.total.lesion_volume_ml == pytest.approx(inside.sum() * 0.06, abs=1e-3)
    for parts in (found.lobes, found.lungs):
        assert sum(part.lesion_volume_ml for part in parts) == pytest.approx(found.total.lesion_volume_ml, abs=1e-3)
    assert sum(c.volume_ml for c in found.lesions.components) == pytest.approx(
        found.total.lesion_volume_ml, abs=1e-3
    )  # one voxel is above 50 mm3 here
    if inside.any():
        thirds = (
            found.lesions.upper_third_percent,
            found.lesions.middle_third_percent,
            found.lesions.lower_third_percent,
        )
        assert sum(thirds) == pytest.approx(100, abs=0.05)
        assert found.total.mean_lesion_hu == pytest.approx(hu[inside].mean(), abs=0.01)


# -- scores


@pytest.mark.parametrize(
    ("percent", "score"),
    [(0, 0), (1e-9, 1), (4.99, 1), (5, 2), (25, 2), (25.01, 3), (49.99, 3), (50, 4), (75, 4), (75.01, 5), (100, 5)],
)
def test_lobe_score_at_its_limits(percent: float, score: int) -> None:
    assert lobe_score(percent) == score


@pytest.mark.parametrize(
    ("percent", "grade"), [(0, 0), (1e-9, 1), (25, 1), (25.01, 2), (50, 2), (50.01, 3), (75, 3), (75.01, 4), (100, 4)]
)
def test_grade_at_its_limits(percent: float, grade: int) -> None:
    assert ct_grade(percent) == grade


def test_scores_are_of_the_lobes_and_of_the_worst_lung() -> None:
    lobes = np.repeat(np.arange(1, 6, dtype=np.uint8), 100).reshape(5, 10, 10)
    lesions = np.zeros_like(lobes)
    for lobe, affected in enumerate((0, 3, 30, 50, 80)):
        lesions[lobe].ravel()[:affected] = 1
    found = measure_masks(lobes, lesions, Geometry(lobes.shape, (3, 3, 3), (0, 0, 0)))
    assert [lobe.score for lobe in found.lobes] == [0, 1, 3, 4, 5]
    assert found.ct_severity_score == 13
    assert found.worst_lung_percent == pytest.approx(100 * 160 / 300, abs=1e-3)
    assert found.ct_grade == 3


def test_one_voxel_in_a_large_lung_is_not_nothing() -> None:
    lobes = np.ones((100, 100, 300), np.uint8)
    lesions = np.zeros_like(lobes)
    lesions[50, 50, 50] = 1
    found = measure_masks(lobes, lesions, Geometry(lobes.shape, (1, 1, 1), (0, 0, 0)))
    assert found.lobes[0].lesion_percent > 0
    assert (found.lobes[0].score, found.ct_grade) == (1, 1)


# -- place in the patient


def test_shares_match_the_positions_they_are_defined_by() -> None:
    geometry = grid((3.0, 2.0, 2.0))
    volume, lobes, lesions = draw(geometry)
    _, y, z = positions(geometry)
    outer = back = 0
    thirds = np.zeros(3)
    for values in LUNGS.values():
        lung = np.isin(lobes, values)
        distance = ndimage.distance_transform_edt(lung, sampling=geometry.spacing_mm)
        sick = lung & (lesions > 0)
        height = (z[sick] - z[lung].min()) / np.ptp(z[lung])
        outer += (distance[sick] <= distance.max() / 3).sum()
        back += (y[sick] > (y[lung].min() + y[lung].max()) / 2).sum()
        thirds += np.histogram(height, bins=3, range=(0, 1))[0]
    total = (lesions > 0).sum()
    found = measure(volume, answer(lobes, lesions)).lesions
    assert found.peripheral_percent == pytest.approx(100 * outer / total, abs=4)
    assert found.dorsal_percent == pytest.approx(100 * back / total, abs=0.1)
    measured = found.lower_third_percent, found.middle_third_percent, found.upper_third_percent
    assert measured == pytest.approx(tuple(100 * thirds / total), abs=1)


def test_the_core_of_a_lung_is_not_peripheral_and_its_rim_is() -> None:
    core = [Ball(center, 15) for center in CENTERS.values()]
    volume, lobes, lesions = draw(AXIAL, core)
    assert measure(volume, answer(lobes, lesions)).lesions.peripheral_percent == 0
    rim = (lobes > 0) & ~ndimage.binary_erosion(lobes > 0, iterations=2)
    found = measure(volume, answer(lobes, rim.astype(np.uint8))).lesions
    assert found.peripheral_percent == pytest.approx(100, abs=1)
    assert found.bilateral


def test_the_border_of_a_cut_scan_is_no_pleura() -> None:
    near_the_cut = [Ball((x, y, 36.0), 10) for x, y, _ in CENTERS.values()]
    volume, lobes, lesions = draw(AXIAL, near_the_cut)
    geometry = AXIAL.cropped((25, 0, 0), (45, *AXIAL.shape[1:]))
    cut = Volume(volume.array[25:45], geometry, provenance=volume.provenance)
    found = measure(cut, answer(lobes[25:45], lesions[25:45]))
    assert found.lesions.peripheral_percent == 0
    assert flags(found)["field_of_view_cut"] == "warning"


def test_without_any_pleura_in_view_the_peripheral_share_is_unknown() -> None:
    lobes = np.ones((6, 6, 6), np.uint8)
    found = measure_masks(lobes, lobes, Geometry(lobes.shape, (3, 3, 3), (0, 0, 0)))
    assert found.lesions.peripheral_percent is None
    assert found.lesions.dorsal_percent is not None


@pytest.mark.parametrize("ball,third", [((-75, 10, 85), "upper"), ((-75, 10, -5), "middle"), ((75, 10, -95), "lower")])
def test_height_is_the_patients(ball, third) -> None:
    volume, lobes, lesions = draw(AXIAL, [Ball(ball, 8)])
    found = measure(volume, answer(lobes, lesions)).lesions
    assert getattr(found, f"{third}_third_percent") == 100
    assert found.bilateral is False


@pytest.mark.parametrize("storage", STORAGES[::3], ids=str)
def test_storage_changes_nothing(storage) -> None:
    volume, lobes, lesions = SCENE
    expected = without_storage(measure(volume, answer(lobes, lesions)))
    again = Volume(stored(volume.array, storage), stored_geometry(AXIAL, storage), provenance=volume.provenance)
    found = without_storage(measure(again, answer(stored(lobes, storage), stored(lesions, storage))))
    places = [np.array([c.pop("centroid_lps_mm") for c in data["lesions"]["components"]]) for data in (expected, found)]
    peripheral = [data["lesions"].pop("peripheral_percent") for data in (expected, found)]
    assert found == expected
    assert places[1] == pytest.approx(places[0], abs=0.011)
    assert peripheral[1] == pytest.approx(peripheral[0], abs=1.5)


@pytest.mark.parametrize("degrees", [(20, 0, 0), (0, 35, 0), (10, -15, 45)], ids=str)
def test_an_oblique_grid_changes_little(degrees) -> None:
    straight = measure(*_with_answer(draw(grid((3.0, 3.0, 3.0)))))
    turned = measure(*_with_answer(draw(grid((3.0, 3.0, 3.0), degrees, size_mm=(400, 400, 400)))))
    assert turned.total.lesion_percent == pytest.approx(straight.total.lesion_percent, rel=0.03)
    for share in ("peripheral_percent", "dorsal_percent", "upper_third_percent", "lower_third_percent"):
        assert getattr(turned.lesions, share) == pytest.approx(getattr(straight.lesions, share), abs=3), share


def test_real_lobes_keep_their_side_and_order(shared_data: Path) -> None:
    import SimpleITK as sitk

    volume = Volume.from_sitk(sitk.ReadImage(shared_data / "lobe_maps" / "s0011.nii.gz"))
    lobes = volume.array.astype(np.uint8)
    x, _, z = volume.geometry.affine[:3, :3] @ np.indices(lobes.shape).reshape(3, -1)
    lesions = ((z > np.median(z[lobes.ravel() > 0])) & (x > np.median(x[lobes.ravel() > 0]))).reshape(lobes.shape)
    found = measure_masks(lobes, (lesions & (lobes > 0)).astype(np.uint8), volume.geometry)
    affected = {lobe.key: lobe.lesion_percent for lobe in found.lobes}
    assert max(affected, key=affected.__getitem__) == "left_upper"
    assert affected["right_lower"] < 5
    assert found.lesions.upper_third_percent > found.lesions.lower_third_percent == 0


# -- single lesions


def test_lesions_are_listed_by_size_with_their_place() -> None:
    volume, lobes, lesions = SCENE
    found = measure(volume, answer(lobes, lesions)).lesions
    assert found.count == len(found.components) == 3
    assert [c.number for c in found.components] == [1, 2, 3]
    assert [c.volume_ml for c in found.components] == sorted((c.volume_ml for c in found.components), reverse=True)
    assert found.largest_volume_ml == found.components[0].volume_ml
    assert [c.lesion_class for c in found.components] == ["ground_glass", "consolidation", "ground_glass"]
    assert [c.mean_hu for c in found.components] == [-600, 0, -600]
    for component, ball in zip(found.components, DISEASE, strict=True):
        assert component.centroid_lps_mm == pytest.approx(ball.center_mm, abs=6)
    assert set(found.components[1].lobe_percent) == {"left_lower"}
    assert found.largest_percent == pytest.approx(
        100 * found.largest_volume_ml / sum(c.volume_ml for c in found.components), abs=0.05
    )


def test_a_bounding_box_holds_its_lesion_and_nothing_more() -> None:
    volume, lobes, lesions = SCENE
    for component in measure(volume, answer(lobes, lesions)).lesions.components:
        box = tuple(slice(a, b) for a, b in zip(component.start_zyx, component.stop_zyx, strict=True))
        inside = lesions[box] > 0
        assert inside.sum() * AXIAL.voxel_ml == pytest.approx(component.volume_ml, abs=1e-3)
        assert all(np.take(inside, end, axis=axis).any() for axis in range(3) for end in (0, -1))


def test_one_can_go_to_a_bent_lesion() -> None:
    lobes = np.ones((9, 30, 30), np.uint8)
    lesions = np.zeros_like(lobes)
    lesions[4, 5:25, 5:25] = 1
    lesions[4, 8:22, 8:22] = 0
    geometry = Geometry(lobes.shape, (2, 2, 2), (-7.0, 3.0, 11.0))
    ring = measure_masks(lobes, lesions, geometry).lesions.components[0]
    index = np.linalg.inv(geometry.affine) @ np.append(ring.point_lps_mm, 1)
    middle = np.linalg.inv(geometry.affine) @ np.append(ring.centroid_lps_mm, 1)
    assert lesions[tuple(np.rint(index[:3]).astype(int))] == 1
    assert lesions[tuple(np.rint(middle[:3]).astype(int))] == 0


def test_lesions_that_touch_at_a_corner_are_one_and_specks_are_not_counted() -> None:
    lobes = np.ones((12, 12, 12), np.uint8)
    lesions = np.zeros_like(lobes)
    lesions[1:4, 1:4, 1:4] = 1
    lesions[4:7, 4:7, 4:7] = 2
    lesions[10, 10, 2:8] = 1
    geometry = Geometry(lobes.shape, (2, 2, 2), (0, 0, 0))
    found = measure_masks(lobes, lesions, geometry)
    assert found.lesions.count == 1  # the row of six voxels holds 48 mm3
    assert found.lesions.components[0].consolidation_percent == 50
    assert found.total.lesion_volume_ml == pytest.approx(60 * 0.008)
    lesions[10, 10, 8] = 1
    assert measure_masks(lobes, lesions, geometry).lesions.count == 2


def test_at_most_fifty_lesions_are_listed_and_all_are_counted() -> None:
    lobes = np.ones((8, 40, 40), np.uint8)
    lesions = np.zeros_like(lobes)
    lesions[::2, ::4, ::4] = 1
    found = measure_masks(lobes, lesions, Geometry(lobes.shape, (4, 4, 4), (0, 0, 0))).lesions
    assert found.count == 400
    assert len(found.components) == 50


# -- what is missing


def test_missing_answers_stay_missing() -> None:
    nothing = measure(SCENE[0], answer(None, None, severity=None, diagnosis=None))
    for name in ("lobes", "lungs", "total", "worst_lung_percent", "ct_severity_score", "ct_grade", "lesions"):
        assert getattr(nothing, name) is None, name
    assert (nothing.severity, nothing.diagnosis) == (None, None)


def test_lobes_without_lesions_have_volumes_only() -> None:
    volume, lobes, _ = SCENE
    found = measure(volume, answer(lobes, None))
    assert all(lobe.volume_ml > 0 and lobe.lesion_percent is None and lobe.score is None for lobe in found.lobes)
    assert (found.worst_lung_percent, found.ct_severity_score, found.ct_grade, found.lesions) == (None,) * 4


def test_lesions_without_lobes_have_no_percentages() -> None:
    volume, _, lesions = SCENE
    found = measure(volume, answer(None, lesions))
    assert (found.lobes, found.lungs, found.ct_severity_score) == (None, None, None)
    assert found.total.volume_ml is None and found.total.lesion_percent is None
    assert found.total.lesion_volume_ml == pytest.approx((lesions > 0).sum() * 0.036, abs=1e-3)
    assert found.total.mean_lesion_hu is not None
    assert found.lesions.count == 3
    assert found.lesions.bilateral is None and found.lesions.peripheral_percent is None
    assert found.lesions.components[0].lobe_percent is None


def test_no_disease_is_zero_and_not_missing() -> None:
    volume, lobes, lesions = SCENE
    found = measure(volume, answer(lobes, np.zeros_like(lesions)))
    assert (found.worst_lung_percent, found.ct_severity_score, found.ct_grade) == (0, 0, 0)
    assert (found.lesions.count, found.lesions.bilateral, found.lesions.largest_percent) == (0, False, None)
    assert found.total.mean_lesion_hu is None


def test_empty_lobes_give_flags_and_no_division_by_zero() -> None:
    volume, lobes, lesions = SCENE
    found = measure(volume, answer(np.zeros_like(lobes), lesions))
    assert found.total.volume_ml == 0 and found.total.lesion_percent is None
    assert (found.worst_lung_percent, found.ct_severity_score, found.ct_grade) == (None, None, None)
    assert {"lung_missing", "lung_volume_implausible", "lesions_outside_lungs"} <= flags(found).keys()


def test_probabilities_are_passed_through() -> None:
    found = measure(*_with_answer(SCENE))
    assert (found.severity, found.diagnosis) == (SEVERITY, DIAGNOSIS)


def test_values_that_are_not_hu_give_no_hu() -> None:
    volume, lobes, lesions = SCENE
    found = measure(replace(volume, intensity=IntensityKind.WINDOW_8BIT), answer(lobes, lesions))
    assert found.total.mean_lesion_hu is None
    assert found.lesions.components[0].mean_hu is None
    assert found.total.lesion_percent > 0
    assert flags(found)["intensities_not_hu"] == "warning"


def test_padding_inside_a_lesion_does_not_spoil_its_density() -> None:
    volume, lobes, lesions = SCENE
    hu = volume.array.copy()
    hu[lesions > 0] = -3024
    assert measure_masks(lobes, lesions, AXIAL, hu).total.mean_lesion_hu == -1024


# -- corrected masks


def test_lesions_painted_outside_the_lungs_do_not_count() -> None:
    volume, lobes, lesions = SCENE
    painted = lesions.copy()
    painted[:3] = 1
    assert (lobes[:3] == 0).all()
    before, after = measure(volume, answer(lobes, lesions)), measure(volume, answer(lobes, painted))
    assert after.total == before.total and after.lesions == before.lesions
    assert "lesions_outside_lungs" in flags(after) and "lesions_outside_lungs" not in flags(before)


def test_measuring_changes_no_array() -> None:
    volume, lobes, lesions = SCENE
    copies = lobes.copy(), lesions.copy()
    for array in (lobes, lesions, volume.array):
        array.setflags(write=False)
    try:
        measure(volume, answer(lobes, lesions))
    finally:
        for array in (lobes, lesions, volume.array):
            array.setflags(write=True)
    assert np.array_equal(lobes, copies[0]) and np.array_equal(lesions, copies[1])


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint16])
def test_masks_of_other_integer_types_give_the_same(kind) -> None:
    volume, lobes, lesions = SCENE
    expected = measure(volume, answer(lobes, lesions))
    assert measure(volume, answer(lobes.astype(kind), lesions.astype(kind))) == expected


def test_a_wrong_shape_or_label_is_refused() -> None:
    _, lobes, lesions = SCENE
    with pytest.raises(ValueError, match="shape"):
        measure_masks(lobes[1:], lesions, AXIAL)
    with pytest.raises(ValueError, match=r"0\.\.5"):
        measure_masks(lobes + np.uint8(3), lesions, AXIAL)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        measure_masks(lobes, lesions * np.uint8(7), AXIAL)


# -- quality


def test_a_good_scan_has_no_remarks() -> None:
    volume, lobes, lesions = draw(grid((2.0, 2.5, 2.5)))
    found = measure(volume, answer(lobes, lesions, unlikeness=Unlikeness(1.0, 2.0)))
    assert found.quality == ()


@pytest.mark.parametrize(
    ("provenance", "flag", "level"),
    [
        (Provenance("DICOM", kernel="B", contrast=False, missing_slices=2), "slices_missing", "warning"),
        (Provenance("DICOM", kernel=None, contrast=False), "kernel_unknown", "info"),
        (Provenance("DICOM", kernel="B", contrast=None), "contrast_unknown", "info"),
        (Provenance("DICOM", kernel="B", contrast=False, slice_thickness_mm=4.0), "thick_slices", "info"),
        (Provenance("DICOM", kernel="B", contrast=False, slice_thickness_mm=8.0), "thick_slices", "warning"),
    ],
)
def test_what_reading_told_is_passed_on(provenance: Provenance, flag: str, level: str) -> None:
    volume, lobes, lesions = draw(grid((3.0, 3.0, 3.0)))
    found = measure(replace(volume, provenance=provenance), answer(lobes, lesions))
    assert flags(found) == {flag: level}


def test_a_scan_unlike_the_training_data_is_flagged() -> None:
    volume, lobes, lesions = SCENE
    found = measure(volume, answer(lobes, lesions, unlikeness=Unlikeness(2.5, 2.0)))
    assert flags(found)["unlike_training_data"] == "warning"
    assert any(flag.message.startswith("The scan is unlike the training data (2.5, ") for flag in found.quality)


@pytest.mark.parametrize(
    ("axis", "plane", "end"), [(0, 30, "bottom"), (0, -30, "top"), (1, 30, "front"), (2, 30, "right"), (2, -30, "left")]
)
@pytest.mark.parametrize("storage", [STORAGES[0], STORAGES[-1], STORAGES[21]], ids=str)
def test_the_cut_end_is_named_in_the_patients_terms(axis: int, plane: int, end: str, storage) -> None:
    volume, lobes, lesions = SCENE
    start, stop = [0, 0, 0], list(AXIAL.shape)
    if plane > 0:
        start[axis] = plane
    else:
        stop[axis] += plane
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    geometry = stored_geometry(AXIAL.cropped(tuple(start), tuple(stop)), storage)
    array, lobes, lesions = (stored(a[box], storage) for a in (volume.array, lobes, lesions))
    found = measure(Volume(array, geometry, provenance=volume.provenance), answer(lobes, lesions))
    message = next(flag.message for flag in found.quality if flag.flag == "field_of_view_cut")
    assert f"the {end} of" in message


def test_missing_and_small_lobes_are_flagged() -> None:
    volume, lobes, lesions = SCENE
    resected = np.where(lobes == 4, 3, lobes).astype(np.uint8)
    found = measure(volume, answer(resected, lesions))
    middle = next(lobe for lobe in found.lobes if lobe.key == "right_middle")
    assert (middle.volume_ml, middle.lesion_percent, middle.score) == (0, None, None)
    assert found.ct_severity_score == sum(lobe.score for lobe in found.lobes if lobe.score is not None)
    assert "lobe_missing" in flags(found)
    resected[lobes == 4] = np.where(np.arange((lobes == 4).sum()) < 500, 4, 3)
    assert "lobe_small" in flags(measure(volume, answer(resected, lesions)))


def test_a_single_lung_is_measured_and_flagged_once() -> None:
    volume, lobes, lesions = SCENE
    right = np.where(lobes >= 3, lobes, 0).astype(np.uint8)
    found = measure(volume, answer(right, lesions))
    assert found.worst_lung_percent == found.lungs[1].lesion_percent > 0
    assert found.lesions.bilateral is False
    assert [flag.flag for flag in found.quality if "missing" in flag.flag] == ["lung_missing"]


def test_dense_disease_is_flagged() -> None:
    volume, lobes, _ = SCENE
    whole_lobe = (lobes == 2).astype(np.uint8) * 2
    assert flags(measure(volume, answer(lobes, whole_lobe)))["dense_disease"] == "warning"
    assert "dense_disease" not in flags(measure(*_with_answer(SCENE)))


def test_warnings_come_first_and_every_remark_is_one_sentence() -> None:
    volume, lobes, lesions = SCENE
    bare = replace(volume, provenance=Provenance("NIfTI", missing_slices=1))
    found = measure(bare, answer(lobes[:, :, ::-1] * 0, lesions, unlikeness=Unlikeness(9, 1)))
    levels = [flag.level for flag in found.quality]
    assert levels == sorted(levels, reverse=True) and len(set(levels)) == 2
    assert all(
        flag.message.endswith(".") and flag.message[0].isupper() | flag.message[0].isdigit() for flag in found.quality
    )


# -- a whole scan


def test_a_large_scan_needs_little_memory() -> None:
    shape = (248, 512, 512)
    lobes = np.zeros(shape, np.uint8)
    for value, (z, y, x) in enumerate([(130, 90, 270), (20, 200, 270), (150, 90, 50), (110, 90, 60), (20, 200, 50)], 1):
        lobes[z : z + 90, y : y + 200, x : x + 190] = value
    lesions = np.zeros(shape, np.uint8)
    lesions[30:90, 210:380, 60:220], lesions[150:190, 100:250, 290:400] = 1, 2
    volume = Volume(np.full(shape, -700, np.int16), Geometry(shape, (1.25, 0.7, 0.7), (0, 0, 0)), provenance=KNOWN_SCAN)
    tracemalloc.start()
    try:
        found = measure(volume, answer(lobes, lesions))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.lesions.count == 2
    assert peak < 700e6


KNOWN_SCAN = Provenance("DICOM", "CT", "B30f", 1.25, contrast=False)


# -- measuring again after a correction


def test_more_lesions_than_two_bytes_can_number() -> None:
    lesions = np.zeros((90, 90, 90), np.uint8)
    lesions[::2, ::2, ::2] = 1
    geometry = Geometry(lesions.shape, (4.0, 4.0, 4.0), (0, 0, 0))
    found = measure_masks(None, lesions, geometry).lesions
    assert found.count == 45**3
    assert {one.volume_ml for one in found.components} == {0.064}


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["lobes", "lesions"]),
        st.tuples(*(st.integers(0, n - 1) for n in AXIAL.shape)),
        st.tuples(*(st.integers(1, 25) for _ in range(3))),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=4,
)


@given(EDITS, st.booleans())
@settings(max_examples=8, deadline=None)
def test_after_any_corrections_the_figures_are_those_of_a_first_measurement(edits, with_hu) -> None:
    volume, lobes, lesions = SCENE
    hu = volume.array if with_hu else None
    masks = {"lobes": lobes, "lesions": lesions}
    meter = MaskMeter(AXIAL, hu)
    meter.measure(lobes, lesions)
    for kind, corner, size, value in edits:
        changed = masks[kind].copy()
        box = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
        changed[box] = value % 3 if kind == "lesions" else value
        masks[kind] = changed
        assert meter.measure(**masks) == measure_masks(**masks, geometry=AXIAL, hu=hu)


def test_masks_that_come_and_go_are_measured_as_if_for_the_first_time() -> None:
    volume, lobes, lesions = SCENE
    meter = MaskMeter(AXIAL, volume.array)
    for pair in ((lobes, lesions), (None, lesions), (None, lesions[::-1].copy()), (lobes, None), (lobes, lesions)):
        assert meter.measure(*pair) == measure_masks(*pair, AXIAL, volume.array)


def test_lungs_without_lobes_are_measured_and_not_looked_at_again(monkeypatch) -> None:
    volume, lobes, lesions = SCENE
    lungs = np.array([0, 1, 1, 2, 2, 2], np.uint8)[lobes]
    whole, meter = measure_masks(lobes, lesions, AXIAL, volume.array), MaskMeter(AXIAL, volume.array)
    found = meter.measure(None, lesions, lungs)
    assert (found.lungs, found.total, found.lobes) == (whole.lungs, whole.total, None)
    monkeypatch.delattr(sys.modules[measure.__module__], "lung_frames")
    assert meter.measure(None, lesions * 0, lungs).worst_lung_percent == 0
    with pytest.raises(ValueError, match=r"outside 0\.\.2"):
        measure_masks(None, lesions, AXIAL, volume.array, lobes)


def test_a_corrected_lesion_does_not_make_the_lobes_be_looked_at_again(monkeypatch) -> None:
    volume, lobes, lesions = SCENE
    meter = MaskMeter(AXIAL, volume.array)
    meter.measure(lobes, lesions)
    monkeypatch.delattr(sys.modules[measure.__module__], "lung_frames")
    assert meter.measure(lobes, np.where(lesions == 2, 1, lesions)).total.consolidation_volume_ml == 0
    with pytest.raises(NameError):
        meter.measure(lobes.copy(), lesions)
