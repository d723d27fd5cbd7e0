"""A toy chest: two lungs of five lobes and two lesions at known voxels, on any grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.labels import (
    CONSOLIDATION,
    GROUND_GLASS,
    LEFT_LOWER,
    LEFT_UPPER,
    LOBES,
    LUNG_LABELS,
    LUNGS,
    RIGHT_LOWER,
    RIGHT_MIDDLE,
    RIGHT_UPPER,
)

SHAPE = (24, 48, 64)


@dataclass(frozen=True)
class Chest:
    """Arrays (z, y, x): HU, lobe labels, lesion labels."""

    ct: np.ndarray
    lobes: np.ndarray
    lesions: np.ndarray

    @property
    def lungs(self) -> np.ndarray:
        """Lung labels, of an engine that knows no lobes."""
        return sum(np.isin(self.lobes, LUNGS[lung.key]) * np.uint8(lung.value) for lung in LUNG_LABELS)


def toyChest(flipped: tuple[bool, bool, bool] = (False, False, False)) -> Chest:
    """The chest with z to the head, y to the front and x to the patient's right; ``flipped`` axes run the other way."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    right = ((x - 0.45) / 0.3) ** 2 + (y / 0.7) ** 2 + (z / 0.9) ** 2 < 1
    left = ((x + 0.45) / 0.3) ** 2 + (y / 0.7) ** 2 + (z / 0.9) ** 2 < 1
    lobes = np.zeros(SHAPE, np.uint8)
    lobes[left] = np.where(z > 0.3 * y, LEFT_UPPER, LEFT_LOWER)[left]
    lobes[right] = np.select([z > 0.35, (z > -0.3) & (y > 0)], [RIGHT_UPPER, RIGHT_MIDDLE], RIGHT_LOWER)[right]
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[(((x - 0.45) / 0.12) ** 2 + ((y + 0.3) / 0.2) ** 2 + ((z + 0.4) / 0.2) ** 2 < 1) & right] = GROUND_GLASS
    lesions[(((x + 0.45) / 0.10) ** 2 + ((y - 0.2) / 0.2) ** 2 + ((z - 0.3) / 0.2) ** 2 < 1) & left] = CONSOLIDATION
    ct = np.full(SHAPE, -1000, np.int16)
    ct[(x / 0.92) ** 2 + (y / 0.9) ** 2 < 1] = 40
    ct[lobes > 0] = -850
    ct[lesions == GROUND_GLASS], ct[lesions == CONSOLIDATION] = -550, 20
    order = tuple(slice(None, None, -1 if turn else 1) for turn in flipped)
    return Chest(*(np.ascontiguousarray(array[order]) for array in (ct, lobes, lesions)))


def ijkToRas(
    spacing=(5.0, 5.0, 8.0), rotation_deg=(0.0, 0.0, 0.0), flipped=(False, False, False), shear: float = 0.0
) -> np.ndarray:
    """4 x 4 matrix of a grid centred at the world's origin.

    :param spacing: mm along (i, j, k); i runs to the right, j to the front, k to the head before rotation.
    :param rotation_deg: about the R, A and S axes, in that order.
    :param flipped: of (k, j, i): the axes that run the other way.
    :param shear: by how many mm a slice is shifted to the front per mm to the head, as a tilted gantry does.
    """
    axes = np.diag([-1.0 if turn else 1.0 for turn in reversed(flipped)])
    tilt = np.eye(3)
    tilt[1, 2] = shear
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(rotation_deg) @ tilt @ axes @ np.diag(spacing)
    centre = (np.array(SHAPE[::-1]) - 1) / 2
    matrix[:3, 3] = -matrix[:3, :3] @ centre
    return matrix


def _rotation(degrees) -> np.ndarray:
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def findings() -> dict:
    """Findings of the toy chest in the layout of ``findings.json``, with made-up numbers."""
    lobes = [
        {
            "key": lobe.key,
            "name": lobe.name,
            "volume_ml": 900.0 + lobe.value,
            "lesion_volume_ml": 90.0,
            "lesion_percent": 10.0 * lobe.value,
            "ground_glass_volume_ml": 60.0,
            "ground_glass_percent": 6.0,
            "consolidation_volume_ml": 30.0,
            "consolidation_percent": 4.0,
            "mean_lesion_hu": None if lobe.value == 1 else -500.0,
            "score": 2,
        }
        for lobe in LOBES
    ]
    total = {**lobes[0], "key": "total", "name": "Total", "volume_ml": 4515.0, "lesion_percent": 11.5}
    del total["score"]
    return {
        "lobes": lobes,
        "total": total,
        "worst_lung_percent": 13.25,
        "ct_severity_score": 10,
        "ct_grade": 1,
        "severity": {"not_severe": 0.8, "severe": 0.2},
        "diagnosis": {"no_pneumonia": 0.05, "other_pneumonia": 0.15, "covid_19": 0.8},
        "lesions": _lesions(),
        "quality": [{"flag": "thick_slices", "level": "warning", "message": "Slices are 8 mm thick."}],
        "notice": "For research only, not for diagnosis.",
        "engine": {"engine": "joint", "bundle": "toy", "version": "0", "trained_on": "nothing"},
    }


def _lesions() -> dict:
    """The two lesions, with their places on the default grid."""
    right = {
        "number": 1,
        "volume_ml": 60.1,
        "point_lps_mm": [-70.0, 35.0, -36.0],
        "lobe_percent": {"right_lower": 100.0},
        "lesion_class": "ground_glass",
        "consolidation_percent": 0.0,
    }
    left = {
        "number": 2,
        "volume_ml": 41.7,
        "point_lps_mm": [70.0, -23.0, 28.0],
        "lobe_percent": {"left_upper": 90.0, "left_lower": 10.0},
        "lesion_class": "consolidation",
        "consolidation_percent": 100.0,
    }
    return {
        "count": 2,
        "bilateral": True,
        "peripheral_percent": 55.0,
        "dorsal_percent": 60.0,
        "lower_third_percent": 40.0,
        "components": [right, left],
    }
