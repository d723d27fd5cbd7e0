"""Two ellipsoid lungs with planes for fissures and balls for lesions, drawn in the patient's millimetres.

Because everything is a formula of LPS positions, the same patient can be put on any grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from COVIDMultitaskLib.engines.contract import EngineIdentity, Prediction
from COVIDMultitaskLib.volume import Geometry, Provenance, Volume

IDENTITY = EngineIdentity("joint", "test-bundle", "0.1.0", "0" * 64, "simulated chest CTs", "Apache-2.0")
SEVERITY = {"not_severe": 0.25, "severe": 0.75}
DIAGNOSIS = {"no_pneumonia": 0.1, "other_pneumonia": 0.2, "covid_19": 0.7}
CENTERS = {"left": (75.0, 10.0, -5.0), "right": (-75.0, 10.0, -5.0)}
RADII = (58.0, 85.0, 110.0)
KNOWN = Provenance("phantom", "CT", "B30f", 2.0, contrast=False)


@dataclass(frozen=True)
class Ball:
    """A lesion: centre as LPS (x, y, z), radius, class value."""

    center_mm: tuple[float, float, float]
    radius_mm: float
    kind: int = 1


DISEASE = (Ball((-100.0, 60.0, -60.0), 18), Ball((100.0, 70.0, -40.0), 14, 2), Ball((-70.0, -40.0, 50.0), 9))


def rotation(degrees: Sequence[float]) -> np.ndarray:
    """Turns about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def grid(spacing=(4.0, 3.0, 3.0), degrees=(0, 0, 0), size_mm=(270.0, 240.0, 320.0), shear=0.0) -> Geometry:
    """A grid (z, y, x) around the patient, turned and, with ``shear``, tilted like a gantry."""
    direction = rotation(degrees) @ np.eye(3)[:, ::-1]
    direction[:, 0] += shear * direction[:, 1]
    direction[:, 0] /= np.linalg.norm(direction[:, 0])
    shape = tuple(round(length / step) for length, step in zip(size_mm, spacing, strict=True))
    half = direction @ ((np.array(shape) - 1) * spacing / 2)
    return Geometry(shape, spacing, tuple(-half), direction)


def positions(geometry: Geometry) -> np.ndarray:
    """LPS (3, z, y, x) of every voxel centre."""
    index = np.indices(geometry.shape).reshape(3, -1)
    lps = geometry.affine[:3, :3] @ index + geometry.affine[:3, 3:]
    return lps.reshape(3, *geometry.shape)


def draw(geometry: Geometry, lesions: Sequence[Ball] = DISEASE) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The scan, the lobes and the lesions of the patient on a grid."""
    x, y, z = positions(geometry)
    lobes = np.zeros(geometry.shape, np.uint8)
    for side, center in CENTERS.items():
        inside = sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), center, RADII, strict=True)) < 1
        back = z < 0.9 * (y - 10)
        if side == "left":
            lobes[inside] = np.where(back, 2, 1)[inside]
        else:
            lobes[inside] = np.where(back, 5, np.where(z < -30, 4, 3))[inside]
    kinds = np.zeros(geometry.shape, np.uint8)
    for ball in lesions:
        away = sum((p - c) ** 2 for p, c in zip((x, y, z), ball.center_mm, strict=True))
        kinds[(away < ball.radius_mm**2) & (lobes > 0)] = ball.kind
    hu = np.where(lobes > 0, -850, 40).astype(np.int16)
    hu[kinds == 1], hu[kinds == 2] = -600, 0
    return Volume(hu, geometry, provenance=KNOWN), lobes, kinds


def answer(lobes: np.ndarray | None, lesions: np.ndarray | None, **others) -> Prediction:
    """A prediction with these maps and, unless told otherwise, both probabilities."""
    return Prediction(IDENTITY, lobes, lesions, **{"severity": SEVERITY, "diagnosis": DIAGNOSIS, **others})


STORAGES = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]
"""The 48 ways to store an array: order of its axes, and which of them run backwards."""


def stored(array: np.ndarray, storage: tuple[tuple[int, ...], tuple[bool, ...]]) -> np.ndarray:
    """An array stored in another way."""
    order, flips = storage
    backwards = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return np.ascontiguousarray(array.transpose(order)[backwards])


def stored_geometry(geometry: Geometry, storage: tuple[tuple[int, ...], tuple[bool, ...]]) -> Geometry:
    """The same place in the patient for an array stored in another way."""
    order, flips = list(storage[0]), storage[1]
    shape = np.array(geometry.shape)[order]
    direction = geometry.direction[:, order]
    spacing = np.array(geometry.spacing_mm)[order]
    corner = np.where(flips, shape - 1, 0)
    origin = np.array(geometry.origin_mm) + (direction * spacing) @ corner
    return Geometry(tuple(shape), tuple(spacing), tuple(origin), direction * np.where(flips, -1, 1))
