"""The phantom itself: a seeded chest CT with its lobes and lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.labels import DIAGNOSES
from COVIDMultitaskLib.phantom.anatomy import build_anatomy
from COVIDMultitaskLib.phantom.disease import LARGEST_EXTENT, make_disease
from COVIDMultitaskLib.phantom.fields import Grid
from COVIDMultitaskLib.phantom.patient import Patient, draw_patient
from COVIDMultitaskLib.phantom.render import Scene, make_textures, render_slab
from COVIDMultitaskLib.phantom.scanner import add_noise, blur_slices, to_hounsfield
from COVIDMultitaskLib.phantom.trees import grow_trees
from COVIDMultitaskLib.volume import Geometry, Provenance, Volume

Triple = tuple[float, float, float]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, lobes, lesions
FIELD_LOW, FIELD_HIGH = (-24.0, -42.0, -204.0), (281.0, 268.0, 204.0)
CENTRE = (128.0, 110.0, 0.0)
"""Canonical (z, y, x) that becomes the world's origin."""
SLAB_SLICES = 12
THIN_MM = 4.0
"""Slices thicker than this are averaged from thinner ones."""


@dataclass(frozen=True)
class PhantomParameters:
    """What a phantom was made from.

    :param disease: one of ``labels.DIAGNOSES``.
    :param extent: affected share of the lungs that was asked for, 0..0.6.
    :param oblique_degrees: turns of the scan's grid about the patient's (x, y, z) axes.
    :param flipped: which array axes (z, y, x) run the other way.
    """

    seed: int
    spacing_mm: Triple
    disease: str
    extent: float
    oblique_degrees: Triple
    flipped: tuple[bool, bool, bool]


@dataclass(frozen=True)
class Phantom:
    """A made-up chest CT and the truth about it, all on one grid.

    :param volume: int16 HU.
    :param lobes: uint8 (z, y, x), values of ``labels.LOBES``.
    :param lesions: uint8 (z, y, x), values of ``labels.LESIONS``: exactly where the lung's density was raised.
    """

    volume: Volume
    lobes: np.ndarray
    lesions: np.ndarray
    parameters: PhantomParameters

    @property
    def diagnosis(self) -> str:
        """The true diagnosis, one of ``labels.DIAGNOSES``."""
        return self.parameters.disease

    @property
    def affected_fraction(self) -> float:
        """True share of the lungs that is diseased, 0..1."""
        return float((self.lesions > 0).sum() / max((self.lobes > 0).sum(), 1))


def make_phantom(
    seed: int = 0,
    spacing_mm: Triple = (2.5, 1.0, 1.0),
    disease: str = "covid_19",
    extent: float = 0.15,
    oblique_degrees: Triple = (0.0, 0.0, 0.0),
    flipped: tuple[bool, bool, bool] = (False, False, False),
) -> Phantom:
    """Make a chest CT of a patient who does not exist; the same arguments give the same scan.

    :param seed: chooses the patient, his disease and the noise.
    :param spacing_mm: voxel spacing along (z, y, x), 0.4..10 mm.
    :param disease: one of ``labels.DIAGNOSES``; "no_pneumonia" has no lesions whatever the extent.
    :param extent: affected share of the lungs, 0..0.6.
    :param oblique_degrees: turns of the scan's grid about the patient's (x, y, z) axes; the patient stays upright
        in the world.
    :param flipped: which array axes (z, y, x) run the other way; the patient stays where he is in the world.
    :raises ValueError: for an unknown disease, or a spacing or extent out of range.
    """
    _check(spacing_mm, disease, extent)
    parameters = PhantomParameters(seed, spacing_mm, disease, extent, oblique_degrees, flipped)
    patient = draw_patient(seed)
    geometry = _geometry(patient, spacing_mm, oblique_degrees)
    upright = _upright_around(geometry)
    arrays = _scan(_make_scene(patient, disease, extent), upright)
    if any(oblique_degrees):
        arrays = _turned(arrays, upright, geometry)
    image = add_noise(arrays[0], seed, patient.noise_hu, geometry.spacing_mm)
    arrays, geometry = _flip((to_hounsfield(image), arrays[1], arrays[2]), geometry, flipped)
    provenance = Provenance("phantom", "CT", "phantom", spacing_mm[0], contrast=False)
    return Phantom(Volume(arrays[0], geometry, provenance=provenance), arrays[1], arrays[2], parameters)


def _check(spacing_mm: Triple, disease: str, extent: float) -> None:
    if disease not in DIAGNOSES:
        raise ValueError(f"disease is {disease!r}; it must be one of {', '.join(DIAGNOSES)}")
    if not 0 <= extent <= LARGEST_EXTENT:
        raise ValueError(f"extent is {extent}; it must lie between 0 and {LARGEST_EXTENT}")
    if len(spacing_mm) != 3 or not all(0.4 <= s <= 10 for s in spacing_mm):
        raise ValueError(f"spacing_mm is {spacing_mm}; it must be three lengths (z, y, x) of 0.4 to 10 mm")


def _make_scene(patient: Patient, disease: str, extent: float) -> Scene:
    anatomy = build_anatomy(patient)
    arteries, veins, bronchi = grow_trees(anatomy)
    nodules = arteries.end[arteries.supplied == 1]
    lesions = make_disease(anatomy, disease, extent, nodules)
    return Scene(anatomy, arteries, veins, bronchi, lesions, make_textures(patient.seed))


def _geometry(patient: Patient, spacing_mm: Triple, oblique_degrees: Triple) -> Geometry:
    """The scan's own grid: centred on the chest, its axes turned about the patient's."""
    scale, spacing = np.array(patient.scale), np.array(spacing_mm)
    low, high = ((np.array(end) - CENTRE) * scale for end in (FIELD_LOW, FIELD_HIGH))
    shape = np.floor((high - low) / spacing).astype(int) + 1
    direction = _rotation(oblique_degrees)[:, ::-1]
    middle = ((low + high) / 2)[::-1]
    origin = middle - direction @ ((shape - 1) / 2 * spacing)
    return Geometry(tuple(shape), tuple(spacing), tuple(origin), direction)


def _rotation(degrees: Triple) -> np.ndarray:
    """Turns about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _upright_around(geometry: Geometry) -> Geometry:
    """The smallest grid along the patient's axes, with the same spacing, that holds every voxel of ``geometry``."""
    index = np.array(geometry.shape) - 1
    corners = np.array([(z, y, x, 1.0) for z in (0, index[0]) for y in (0, index[1]) for x in (0, index[2])])
    world = (corners @ geometry.affine.T)[:, :3]
    low, high = world.min(0), world.max(0)
    shape = np.ceil((high - low)[::-1] / geometry.spacing_mm - 1e-6).astype(int) + 1
    return Geometry(tuple(shape), geometry.spacing_mm, tuple(low))


def _scan(scene: Scene, geometry: Geometry) -> Arrays:
    """HU (float32, no noise yet), lobes and lesions on an upright grid."""
    image = np.empty(geometry.shape, np.float32)
    lobes, lesions = np.empty(geometry.shape, np.uint8), np.empty(geometry.shape, np.uint8)
    for start in range(0, geometry.shape[0], SLAB_SLICES):
        stop = min(start + SLAB_SLICES, geometry.shape[0])
        slab = _scan_slab(scene, geometry, start, stop)
        image[start:stop], lobes[start:stop], lesions[start:stop] = slab
    return image, lobes, lesions


def _scan_slab(scene: Scene, geometry: Geometry, start: int, stop: int) -> Arrays:
    """Slices ``start`` to before ``stop``: each the mean of thin parts of it, its labels those of the middle part."""
    parts = 2 * int(np.ceil((geometry.spacing_mm[0] / THIN_MM - 1) / 2)) + 1
    offsets = (np.arange(parts) - parts // 2) / parts
    slices = (np.arange(start - 1, stop + 1)[:, None] + offsets).ravel()
    grid = _canonical_grid(scene.anatomy.patient, geometry, slices)
    image, lobes, lesions = render_slab(scene, grid, float(np.mean(geometry.spacing_mm[1:])))
    image = image.reshape(-1, parts, *image.shape[1:]).mean(1)
    middle = slice(parts + parts // 2, -parts, parts)
    return blur_slices(image), lobes[middle], lesions[middle]


def _canonical_grid(patient: Patient, geometry: Geometry, slices: np.ndarray) -> Grid:
    """Canonical positions of some (fractional) slices of an upright grid."""
    index = (slices, np.arange(geometry.shape[1]), np.arange(geometry.shape[2]))
    ends = zip(index, geometry.spacing_mm, geometry.origin_mm[::-1], patient.scale, CENTRE, strict=True)
    axes = [((i * spacing + origin) / scale + centre) for i, spacing, origin, scale, centre in ends]
    return Grid(*(axis.astype(np.float32) for axis in axes))


def _turned(arrays: Arrays, upright: Geometry, geometry: Geometry) -> Arrays:
    """Image (linear) and label maps (nearest) on a turned grid."""
    from scipy.ndimage import affine_transform

    to_upright = np.linalg.inv(upright.affine) @ geometry.affine
    image, lobes, lesions = (
        affine_transform(array, to_upright, output_shape=geometry.shape, order=order, mode="nearest")
        for array, order in zip(arrays, (1, 0, 0), strict=True)
    )
    return image, lobes, lesions


def _flip(arrays: Arrays, geometry: Geometry, flipped: tuple[bool, bool, bool]) -> tuple[Arrays, Geometry]:
    """Turn array axes round; every voxel keeps its place in the world."""
    axes = tuple(i for i in range(3) if flipped[i])
    last = [(n - 1) if turn else 0 for n, turn in zip(geometry.shape, flipped, strict=True)]
    origin = (geometry.affine @ [*last, 1.0])[:3]
    direction = geometry.direction * np.where(flipped, -1, 1)
    turned = Geometry(geometry.shape, geometry.spacing_mm, tuple(origin), direction)
    image, lobes, lesions = (np.ascontiguousarray(np.flip(array, axes)) for array in arrays)
    return (image, lobes, lesions), turned
