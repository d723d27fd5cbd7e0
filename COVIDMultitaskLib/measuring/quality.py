"""What a reader should know about the scan and the answer before trusting the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from COVIDMultitaskLib.engines.contract import Unlikeness
from COVIDMultitaskLib.findings import LobeFindings, QualityFlag, RegionFindings
from COVIDMultitaskLib.measuring.masks import Masks
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Provenance, Volume

CUT_AREA_MM2 = 100.0
THICK_SLICES_MM = 3.0
VERY_THICK_SLICES_MM = 5.0
SMALL_LOBE_ML = 30.0
PLAUSIBLE_LUNGS_ML = (1000.0, 9000.0)
DENSE_LUNG_PERCENT = 50.0
DENSE_LOBE_CONSOLIDATION_PERCENT = 50.0
OUTSIDE_ML = 1.0

_ENDS = (("right", "left"), ("front", "back"), ("bottom", "top"))
_INTENSITIES = {
    IntensityKind.WINDOW_8BIT: "8-bit grey values",
    IntensityKind.UNIT_SCALE: "grey values between 0 and 1",
    IntensityKind.PICTURE: "grey values of an unknown window",
}


def scan_flags(volume: Volume, unlikeness: Unlikeness | None) -> list[QualityFlag]:
    """What the scan itself tells: slices, intensities, kernel, contrast, likeness to training data."""
    provenance = volume.provenance
    return [
        *_missing_slices(provenance),
        *_thick_slices(volume.geometry, provenance),
        *_intensities(volume.intensity),
        *_unknown_acquisition(provenance),
        *unlike(unlikeness),
    ]


def mask_flags(
    ends: Sequence[str],
    outside_ml: float,
    lobes: tuple[LobeFindings, ...] | None,
    lungs: tuple[RegionFindings, ...] | None,
    total: RegionFindings | None,
) -> list[QualityFlag]:
    """What the label maps tell: cut or missing lungs, implausible sizes, dense disease.

    :param ends: of :func:`cut_ends`.
    :param outside_ml: volume of lesion labels outside the lungs.
    """
    if lobes is None or lungs is None or total is None:
        return []
    return [
        *_field_of_view(ends),
        *_missing_parts(lobes, lungs),
        *_lung_volume(total),
        *_dense_disease(lobes, lungs),
        *_outside(outside_ml),
    ]


def _info(flag: str, message: str) -> QualityFlag:
    return QualityFlag(flag, "info", message)


def _warning(flag: str, message: str) -> QualityFlag:
    return QualityFlag(flag, "warning", message)


def _missing_slices(provenance: Provenance) -> Iterator[QualityFlag]:
    if n := provenance.missing_slices:
        slices = "1 slice is" if n == 1 else f"{n} slices are"
        yield _warning("slices_missing", f"{slices} missing; volumes near the gap are interpolated.")


def _thick_slices(geometry: Geometry, provenance: Provenance) -> Iterator[QualityFlag]:
    thickness = max(*geometry.spacing_mm, provenance.slice_thickness_mm or 0.0)
    if thickness > THICK_SLICES_MM:
        make = _warning if thickness > VERY_THICK_SLICES_MM else _info
        yield make("thick_slices", f"Slices are {thickness:.1f} mm thick; small lesions and fissures may be missed.")


def _intensities(intensity: IntensityKind) -> Iterator[QualityFlag]:
    if intensity is not IntensityKind.HOUNSFIELD:
        yield _warning("intensities_not_hu", f"The values are {_INTENSITIES[intensity]}, not HU; no mean HU is given.")


def _unknown_acquisition(provenance: Provenance) -> Iterator[QualityFlag]:
    if provenance.kernel is None:
        yield _info("kernel_unknown", "The reconstruction kernel is unknown; a sharp one can imitate ground glass.")
    if provenance.contrast is None:
        yield _info("contrast_unknown", "Whether contrast medium was given is unknown; it raises the mean HU.")


def unlike(unlikeness: Unlikeness | None, what: str = "scan") -> Iterator[QualityFlag]:
    """A warning when the input is less like the training data than the engine's limit allows.

    :param what: the input, as a user calls it.
    """
    if unlikeness is not None and unlikeness.is_unlike:
        yield _warning(
            "unlike_training_data",
            f"The {what} is unlike the training data ({unlikeness.score:.1f}, limit {unlikeness.threshold:.1f}); "
            "check every answer by eye.",
        )


def _field_of_view(ends: Sequence[str]) -> Iterator[QualityFlag]:
    if ends:
        where = " and ".join([", ".join(ends[:-1]), ends[-1]] if len(ends) > 1 else ends)
        yield _warning(
            "field_of_view_cut", f"The lungs are cut off at the {where} of the scan; figures are of the visible part."
        )


def cut_ends(masks: Masks) -> tuple[str, ...]:
    """Ends of the scan, in the patient's terms, that more than 100 mm2 of lung touches; none without lobes."""
    found: list[str] = []
    if masks.lobes is None:
        return ()
    for axis in range(3):
        last = masks.scan_shape_zyx[axis] - masks.start_zyx[axis] - 1
        for plane, sign in ((-masks.start_zyx[axis], -1), (last, 1)):
            if 0 <= plane < masks.shape[axis] and _lung_area_mm2(masks, axis, plane) > CUT_AREA_MM2:
                found.append(_end_name(masks.geometry, axis, sign))
    return tuple(sorted(set(found)))


def _lung_area_mm2(masks: Masks, axis: int, plane: int) -> float:
    assert masks.lobes is not None
    voxels = np.count_nonzero(np.take(masks.lobes, plane, axis=axis))
    sides = np.delete(masks.geometry.affine[:3, :3], axis, axis=1)
    return float(voxels * np.linalg.norm(np.cross(sides[:, 0], sides[:, 1])))


def _end_name(geometry: Geometry, axis: int, sign: int) -> str:
    direction = sign * geometry.direction[:, axis]
    lps = int(np.abs(direction).argmax())
    return _ENDS[lps][int(direction[lps] > 0)]


def _missing_parts(lobes: tuple[LobeFindings, ...], lungs: tuple[RegionFindings, ...]) -> Iterator[QualityFlag]:
    gone = [lung for lung in lungs if not lung.volume_ml]
    for lung in gone:
        yield _warning("lung_missing", f"{lung.name} was not found; figures are of the other lung only.")
    for lobe in lobes:
        if any(lobe.key.startswith(lung.key) for lung in gone):
            continue
        if not lobe.volume_ml:
            yield _warning("lobe_missing", f"{lobe.name} was not found; the CT severity score counts the others only.")
        elif lobe.volume_ml < SMALL_LOBE_ML:
            yield _warning("lobe_small", f"{lobe.name} is very small ({lobe.volume_ml:.0f} ml); check its borders.")


def _lung_volume(total: RegionFindings) -> Iterator[QualityFlag]:
    low, high = PLAUSIBLE_LUNGS_ML
    if total.volume_ml is not None and not low <= total.volume_ml <= high:
        yield _warning(
            "lung_volume_implausible",
            f"A total lung volume of {total.volume_ml / 1000:.1f} l is outside {low / 1000:.0f} to {high / 1000:.0f} l "
            "of adults; check the lobes.",
        )


def _dense_disease(lobes: tuple[LobeFindings, ...], lungs: tuple[RegionFindings, ...]) -> Iterator[QualityFlag]:
    solid = any((lobe.consolidation_percent or 0) > DENSE_LOBE_CONSOLIDATION_PERCENT for lobe in lobes)
    wide = any((lung.lesion_percent or 0) > DENSE_LUNG_PERCENT for lung in lungs)
    if solid or wide:
        yield _warning(
            "dense_disease", "Disease is dense or wide enough to hide fissures and pleura; check the lobes' borders."
        )


def _outside(outside_ml: float) -> Iterator[QualityFlag]:
    if outside_ml > OUTSIDE_ML:
        yield _warning(
            "lesions_outside_lungs", f"{outside_ml:.1f} ml of lesion lie outside the lobes and are not counted."
        )
