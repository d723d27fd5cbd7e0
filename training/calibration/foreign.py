"""Scans that no engine for chest CT should answer for in silence, made from chests, shapes and noise.

Each has a name and a verdict that is expected of it. ``python -m training.calibration foreign`` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from COVIDMultitaskLib.volume import Geometry, Provenance, Volume

AIR_HU = -1000.0
SOFT_HU = 40.0

STRUCTURE_HU: tuple[tuple[str, float], ...] = (
    ("lung", -850.0),
    ("trachea", -990.0),
    ("rib", 350.0),
    ("vertebra", 250.0),
    ("sternum", 250.0),
    ("scapula", 400.0),
    ("clavicula", 450.0),
    ("humerus", 400.0),
    ("skull", 800.0),
    ("costal", 120.0),
    ("liver", 60.0),
    ("spleen", 50.0),
    ("kidney", 35.0),
    ("colon", -600.0),
    ("small_bowel", 20.0),
    ("stomach", 0.0),
    ("gallbladder", 10.0),
)
"""Attenuation by the beginning of a structure's name; what is not named is soft tissue."""


@dataclass(frozen=True)
class Foreign:
    """A scan with what it is.

    :param kind: "chest" for a chest as it should be, "altered" for a chest that something is wrong with, "foreign"
        for what is no chest CT at all.
    """

    name: str
    kind: str
    volume: Volume


@dataclass(frozen=True)
class Structures:
    """A label map of a thorax, upright (z to the head, y to the back, x to the left), and its names by value."""

    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    names: Mapping[int, str]

    @staticmethod
    def of(label_map: Volume, names: Mapping[int, str]) -> Structures:
        """The structures of a label map, stored in any order along the patient's axes."""
        upright = _upright(label_map)
        return Structures(upright.array, upright.geometry.spacing_mm, names)

    def values(self, prefix: str) -> list[int]:
        """The values of the structures whose names begin so."""
        return [value for value, name in self.names.items() if name.startswith(prefix)]


def without_a_chest() -> Iterator[Foreign]:
    """What needs no data: noise, phantoms of water and foam, a head, legs, an empty table."""
    shape = (60, 100, 100)
    chance = np.random.default_rng(0)
    yield _foreign("white noise", chance.normal(-400, 400, shape), 3.0)
    yield _foreign("uniform noise", chance.uniform(-1000, 1000, shape), 3.0)
    for name, scale in (("smooth noise", 4.0), ("very smooth noise", 12.0)):
        yield _foreign(name, -400 + 450 * _smooth_noise(shape, scale, chance), 3.0)
    for name, draw in _OBJECTS.items():
        yield _foreign(name, _with_noise(draw(shape, 3.0), chance), 3.0)


def of_a_thorax(thorax: Structures) -> Iterator[Foreign]:
    """The painted thorax as a chest, its abdomen, its neck, and single organs in air."""
    step = max(1, round(3.0 / thorax.spacing_mm[0]))
    labels = thorax.labels[::step, ::step, ::step]
    spacing = thorax.spacing_mm[0] * step
    painted = replace(thorax, labels=labels, spacing_mm=(spacing,) * 3)
    hu, body = _painted(painted), _body(labels)
    lung = np.isin(labels, thorax.values("lung"))
    heights = np.flatnonzero(lung.any((1, 2)))
    chance = np.random.default_rng(1)
    whole = _with_noise(np.where(body, hu, AIR_HU), chance)
    yield replace(_foreign("painted thorax", whole, spacing), kind="chest")
    yield _foreign("abdomen", whole[: heights[0]], spacing)
    yield _foreign("abdomen with lung bases", whole[: heights[0] + round(45 / spacing)], spacing)
    yield _foreign("neck and shoulders", whole[heights[-1] - round(30 / spacing) :], spacing)
    airless = np.where(lung, SOFT_HU, hu)
    yield _foreign("thorax without air", _with_noise(np.where(body, airless, AIR_HU), chance), spacing)
    for organ in ("liver", "heart", "spleen", "vertebrae", "rib", "lung", "lung_lower_lobe_left", "trachea"):
        alone = np.where(np.isin(labels, thorax.values(organ)), hu, AIR_HU)
        yield _foreign(f"{organ} alone", _with_noise(alone, chance), spacing)


def of_a_chest(name: str, chest: Volume) -> Iterator[Foreign]:
    """A chest as it is, and with something wrong with it.

    The chest's axes are taken to run, in some order and direction, along the patient's.
    """
    yield Foreign(name, "chest", chest)
    upright = _upright(chest)
    hu, spacing = upright.array, upright.geometry.spacing_mm
    z, _, x = hu.shape
    altered: dict[str, np.ndarray] = {
        "left half": hu[:, :, x // 2 :],
        "right half": hu[:, :, : x // 2],
        "upper third": hu[2 * z // 3 :],
        "lower third": hu[: z // 3],
        "mirrored top-down": hu[::-1],
        "mirrored left-right": hu[:, :, ::-1],
        "lying on its face": hu[:, ::-1],
        "8-bit window": np.rint(255 * np.clip((hu + 1250.0) / 1500.0, 0, 1)).astype(np.uint8),
        "inverted": (-hu.astype(np.int32) - 950).clip(-1024, 3071),
        "doubled HU": (2 * hu.astype(np.int32)).clip(-1024, 3071),
        "stored with offset 1024": hu.astype(np.int32) + 1024,
        "strong noise": hu + np.random.default_rng(0).normal(0, 250, hu.shape),
    }
    for what, values in altered.items():
        yield Foreign(f"{name}: {what}", "altered", _volume(values, spacing))
    turned = np.ascontiguousarray(hu.transpose(1, 0, 2))
    yield Foreign(f"{name}: axes mistaken", "altered", _volume(turned, (spacing[1], spacing[0], spacing[2])))
    for what, factor in (("a quarter of the size", 0.25), ("half again the size", 1.5)):
        yield Foreign(f"{name}: {what}", "altered", _volume(hu, tuple(side * factor for side in spacing)))
    for what, values in _mr_like(hu).items():
        yield Foreign(f"{name}: {what}", "foreign", _volume(values, spacing))


def _foreign(name: str, hu: np.ndarray, spacing_mm: float) -> Foreign:
    return Foreign(name, "foreign", _volume(hu.clip(-1024, 3071), (spacing_mm,) * 3))


def _volume(values: np.ndarray, spacing_mm: Sequence[float]) -> Volume:
    array = values if np.issubdtype(values.dtype, np.integer) else np.rint(values)
    stored = array.astype(np.uint8 if array.dtype == np.uint8 else np.int16)
    z, y, x = spacing_mm
    geometry = Geometry(stored.shape, (z, y, x), (0, 0, 0))
    return Volume(np.ascontiguousarray(stored), geometry, provenance=_KNOWN)


_KNOWN = Provenance("memory", contrast=False, kernel="known")


def _upright(volume: Volume) -> Volume:
    """The same scan with z to the head, y to the back and x to the left, no voxel changed."""
    direction = volume.geometry.direction
    order = [int(np.abs(direction[axis]).argmax()) for axis in (2, 1, 0)]
    flips = tuple(position for position, axis in enumerate(order) if direction[(2, 1, 0)[position], axis] < 0)
    array = np.flip(volume.array.transpose(order), flips)
    z, y, x = (volume.geometry.spacing_mm[axis] for axis in order)
    return Volume(np.ascontiguousarray(array), Geometry(array.shape, (z, y, x), (0, 0, 0)))


def _mr_like(hu: np.ndarray) -> dict[str, np.ndarray]:
    """Air and lung dark, fat bright, water and muscle between: positive numbers, and moved to where air is -1000."""
    table = ([-1024, -700, -150, -80, 0, 60, 300, 3071], [10, 60, 700, 750, 250, 420, 120, 30])
    chance = np.random.default_rng(2)
    signal = np.interp(hu, *table) + np.abs(chance.normal(0, 15, hu.shape))
    return {"MR-like": signal, "MR-like, stored as HU": signal - 1010}


def _painted(thorax: Structures) -> np.ndarray:
    """HU of the structures, soft tissue between them."""
    table = np.full(max(thorax.names) + 1, SOFT_HU)
    for value, name in thorax.names.items():
        table[value] = next((hu for prefix, hu in STRUCTURE_HU if name.startswith(prefix)), SOFT_HU)
    return table[thorax.labels]


def _body(labels: np.ndarray) -> np.ndarray:
    """The hull of each slice's structures with 12 mm and more around it."""
    from scipy import ndimage

    from COVIDMultitaskLib.preparation.body import convex_hull

    return ndimage.binary_dilation(np.array([convex_hull(plane) for plane in labels > 0]), iterations=4)


def _with_noise(hu: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(hu, 0.6) + chance.normal(0, 20, hu.shape)


def _smooth_noise(shape: tuple[int, ...], scale: float, chance: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    noise = ndimage.gaussian_filter(chance.standard_normal(shape), scale)
    return noise / noise.std()


def _mesh(shape: tuple[int, int, int], spacing_mm: float) -> tuple[np.ndarray, ...]:
    return tuple(np.meshgrid(*((np.arange(n) - (n - 1) / 2) * spacing_mm for n in shape), indexing="ij", sparse=True))


def _water_phantom(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """A cylinder of water in acrylic."""
    _, y, x = _mesh(shape, spacing_mm)
    radius = np.hypot(x, y) + np.zeros(shape)
    return np.where(radius < 95, 0.0, np.where(radius < 103, 120.0, AIR_HU))


def _rod_phantom(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """Water with rods of air, polyethylene, acrylic and bone, as scanners are accepted with."""
    hu = _water_phantom(shape, spacing_mm)
    _, y, x = _mesh(shape, spacing_mm)
    for (dy, dx), value in zip(((45, 45), (45, -45), (-45, 45), (-45, -45)), (-1000, -95, 120, 955), strict=True):
        hu[np.broadcast_to(np.hypot(y - dy, x - dx) < 14, shape)] = value
    return hu


def _foam_phantom(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """Water around one cylinder of foam as thin as lung."""
    hu = _water_phantom(shape, spacing_mm)
    _, y, x = _mesh(shape, spacing_mm)
    hu[np.broadcast_to(np.hypot(y, x) < 70, shape)] = -850
    return hu


def _foam_block(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """A block of foam on a table, and nothing else."""
    z, y, x = _mesh(shape, spacing_mm)
    hu = np.full(shape, AIR_HU)
    hu[(np.abs(x) < 90) & (np.abs(y) < 70) & (np.abs(z) < 80)] = -800
    hu[np.broadcast_to(np.abs(y - 90) < 10, shape)] = -100
    return hu


def _head(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """Brain in a skull, with air in the sinuses, the mastoid cells and the throat."""
    z, y, x = _mesh(shape, spacing_mm)
    distance = np.sqrt((x / 72) ** 2 + (y / 92) ** 2 + (z / 85) ** 2)
    hu = np.where(distance < 0.9, 35.0, np.where(distance < 1.0, 900.0, np.where(distance < 1.08, 20.0, AIR_HU)))
    for (dz, dy, dx), radii, value in (
        ((-35, -65, 20), (18, 14, 13), -990),
        ((-35, -65, -20), (18, 14, 13), -990),
        ((-10, -78, 0), (10, 8, 22), -990),
        ((-45, 15, 55), (16, 12, 10), -600),
        ((-45, 15, -55), (16, 12, 10), -600),
        ((-60, -25, 0), (30, 8, 9), -1000),
    ):
        part = ((z - dz) / radii[0]) ** 2 + ((y - dy) / radii[1]) ** 2 + ((x - dx) / radii[2]) ** 2 < 1
        hu[part & (distance < 1)] = value
    return hu


def _legs(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """Two thighs with their bones."""
    _, y, x = _mesh(shape, spacing_mm)
    hu = np.full(shape, AIR_HU)
    for side in (-78, 78):
        radius = np.broadcast_to(np.hypot(x - side, y), shape)
        hu[radius < 70] = -95
        hu[radius < 58] = 55
        hu[radius < 14] = 900
        hu[radius < 7] = -40
    return hu


def _empty_table(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """A mattress on its shell."""
    _, y, x = _mesh(shape, spacing_mm)
    hu = np.full(shape, AIR_HU)
    depth = np.broadcast_to(y - 40 + 0.0008 * x**2, shape)
    hu[(depth > 0) & (depth < 45)] = -930
    hu[(np.abs(depth - 48) < 4)] = -200
    return hu


def _hollow_body(shape: tuple[int, int, int], spacing_mm: float) -> np.ndarray:
    """A body-sized tube of soft tissue full of open air."""
    _, y, x = _mesh(shape, spacing_mm)
    radius = np.broadcast_to(np.hypot(x / 140, y / 100), shape)
    return np.where(radius < 0.75, AIR_HU, np.where(radius < 1, SOFT_HU, AIR_HU))


_OBJECTS: dict[str, Callable[[tuple[int, int, int], float], np.ndarray]] = {
    "water phantom": _water_phantom,
    "rod phantom": _rod_phantom,
    "foam phantom": _foam_phantom,
    "foam block": _foam_block,
    "head": _head,
    "legs": _legs,
    "empty table": _empty_table,
    "hollow body": _hollow_body,
}
