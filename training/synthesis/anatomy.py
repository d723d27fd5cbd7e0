"""Real lobe shapes, each with the organs of a whole thorax fitted around it.

A lobe map alone has no ribs, heart or liver. One whole thorax with its structures is
known; here it is registered to every lobe map (box-matching scale, then demons on the
lungs' signed distances), so that each shape gets surroundings that touch its lungs as
they should. The result is cached, one small file per shape, for the synthesiser.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.preparation.body import convex_hull
from COVIDMultitaskLib.writing import write_bytes
from training.processes import map_in_processes

if TYPE_CHECKING:
    import SimpleITK as sitk

LOBE_SPACING_MM = 2.0
TISSUE_SPACING_MM = 3.0
REGISTRATION_SPACING_MM = 5.0
MARGINS_MM = ((66.0, 36.0), (36.0, 54.0), (42.0, 42.0))
"""Room around the lungs: (below, above), (in front, behind), (right, left)."""

TISSUES: dict[str, tuple[str, ...]] = {
    "soft": (),
    "bone": ("rib_", "scapula", "clavicula", "sternum", "skull"),
    "arm": ("humerus",),
    "vertebra": ("vertebrae",),
    "cartilage": ("costal_cartilages",),
    "muscle": ("autochthon", "iliopsoas"),
    "heart": ("heart", "atrial_appendage"),
    "artery": ("aorta", "brachiocephalic_trunk", "common_carotid", "subclavian"),
    "vein": ("vein", "vena_cava"),
    "airway": ("trachea",),
    "esophagus": ("esophagus",),
    "liver": ("liver",),
    "spleen": ("spleen",),
    "stomach": ("stomach",),
    "bowel": ("colon", "small_bowel", "duodenum"),
    "kidney": ("kidney",),
    "gland": ("pancreas", "adrenal", "gallbladder", "thyroid"),
    "cord": ("spinal_cord",),
}
"""Tissue classes by the beginnings (or parts) of the structure names they gather."""

TISSUE_VALUES: dict[str, int] = {name: value for value, name in enumerate(TISSUES)}


@dataclass(frozen=True)
class Anatomy:
    """One shape. All arrays are (z, y, x) with z up, y to the back, x to the left.

    :param lobes: uint8 at ``LOBE_SPACING_MM``, values of ``labels.LOBES``.
    :param tissue: uint8 at ``TISSUE_SPACING_MM`` over the same box, ``TISSUE_VALUES``.
    :param hull_mm: uint8, at the tissue's spacing: distance outside the ribs' hull.
    """

    name: str
    lobes: np.ndarray
    tissue: np.ndarray
    hull_mm: np.ndarray


def load_anatomy(path: Path) -> Anatomy:
    """Read one cached shape."""
    import lzma

    with lzma.open(path) as stream, np.load(stream) as arrays:
        return Anatomy(path.name.split(".")[0], arrays["lobes"], arrays["tissue"], arrays["hull_mm"])


def _save(anatomy: Anatomy, path: Path) -> None:
    import lzma

    content = BytesIO()
    with lzma.open(content, "wb", preset=6) as stream:
        np.savez(stream, lobes=anatomy.lobes, tissue=anatomy.tissue, hull_mm=anatomy.hull_mm)
    write_bytes(content.getvalue(), path)


def tissue_of_structures(structures: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Gather the thorax's structures into ``TISSUES``; its lobes become "soft"."""
    table = np.zeros(256, np.uint8)
    for value, name in names.items():
        for tissue, parts in TISSUES.items():
            if any(part in name for part in parts):
                table[value] = TISSUE_VALUES[tissue]
    return table[structures]


def _lungs_image(labels: sitk.Image) -> sitk.Image:
    """Signed distance to the lungs in mm, clipped: what the registration matches."""
    import SimpleITK as sitk

    distance = sitk.SignedMaurerDistanceMap(
        labels > 0, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    return sitk.Clamp(sitk.Cast(distance, sitk.sitkFloat32), sitk.sitkFloat32, -24.0, 24.0)


def _grid(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """An empty axis-aligned LPS grid over the labelled box of ``image`` plus the margins."""
    import SimpleITK as sitk

    filled = np.argwhere(sitk.GetArrayViewFromImage(image) > 0)[:, ::-1]
    ends = np.array([filled.min(0), filled.max(0)])
    corners = [(x, y, z) for x in ends[:, 0] for y in ends[:, 1] for z in ends[:, 2]]
    points = np.array([image.TransformIndexToPhysicalPoint([int(c) for c in corner]) for corner in corners])
    below = np.array([m[0] for m in MARGINS_MM[::-1]])
    above = np.array([m[1] for m in MARGINS_MM[::-1]])
    start, stop = points.min(0) - below, points.max(0) + above
    size = np.ceil((stop - start) / spacing_mm).astype(int)
    grid = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetOrigin([float(s) for s in start])
    return grid


def _onto(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    import SimpleITK as sitk

    return sitk.Resample(image, grid, transform or sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)


def _box_match(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Scale and shift that lay the lungs' bounding boxes on each other."""
    import SimpleITK as sitk

    def box(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
        filled = np.argwhere(sitk.GetArrayViewFromImage(image) > 0)[:, ::-1] * np.array(image.GetSpacing())
        low, high = np.percentile(filled, [0.5, 99.5], axis=0) + np.array(image.GetOrigin())
        return (low + high) / 2, high - low

    (fixed_centre, fixed_size), (moving_centre, moving_size) = box(fixed), box(moving)
    scale = moving_size / fixed_size
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(np.diag(scale).ravel().tolist())
    affine.SetTranslation((moving_centre - scale * fixed_centre).tolist())
    return affine


def _register(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Transform from the fixed lungs' space into the moving thorax's."""
    import SimpleITK as sitk

    affine = _box_match(fixed, moving)
    target = _lungs_image(fixed)
    source = sitk.Resample(_lungs_image(moving), target, affine, sitk.sitkLinear, 24.0)
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(80)
    demons.SetStandardDeviations(2.0)
    field = demons.Execute(target, source)
    field = sitk.Cast(sitk.SmoothingRecursiveGaussian(field, 5.0), sitk.sitkVectorFloat64)
    # The last transform of the list comes first: fixed space, displaced, then scaled.
    return sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(field)])


def _with_ends_continued(tissue: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Copy the outermost known slices above and below into those the thorax does not reach."""
    known = np.flatnonzero(inside.any(axis=(1, 2)))
    source = np.clip(np.arange(len(tissue)), known[0] + 1, known[-1] - 1)
    return tissue[source]


def _hull_distance(core: np.ndarray) -> np.ndarray:
    """Distance in mm outside the slice-wise convex hull of ``core``, 0 inside, at most 120."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter1d

    hull = np.array([convex_hull(plane) for plane in core], np.float32)
    # Neighbouring slices agree on the skin, though their hulls hop from rib to rib.
    hull = gaussian_filter1d(hull, 2.5, axis=0, mode="nearest")
    return np.clip(distance_transform_edt(hull < 0.5) * TISSUE_SPACING_MM, 0, 120).astype(np.uint8)


def fit_thorax(lobe_map: sitk.Image, thorax: sitk.Image, names: dict[int, str], name: str) -> Anatomy:
    """Fit the thorax's structures around one lobe map."""
    import SimpleITK as sitk

    lung_values = [value for value, structure in names.items() if structure.startswith("lung_")]
    structures = sitk.GetArrayFromImage(thorax)
    lungs = sitk.GetImageFromArray(np.isin(structures, lung_values).astype(np.uint8))
    lungs.CopyInformation(thorax)
    tissue = sitk.GetImageFromArray(tissue_of_structures(structures, names) + 1)
    tissue.CopyInformation(thorax)

    coarse = _grid(lobe_map, REGISTRATION_SPACING_MM)
    transform = _register(_onto(lobe_map, coarse) > 0, _onto(lungs, _grid(lungs, REGISTRATION_SPACING_MM)))
    tissue_grid = _grid(lobe_map, TISSUE_SPACING_MM)
    warped = sitk.GetArrayFromImage(_onto(tissue, tissue_grid, transform))
    filled = _with_ends_continued(np.maximum(warped, 1) - 1, warped > 0)
    lung_here = sitk.GetArrayFromImage(_onto(lobe_map, tissue_grid)) > 0
    hull = _hull_distance(lung_here | ~np.isin(filled, [TISSUE_VALUES["soft"], TISSUE_VALUES["arm"]]))
    lobes = sitk.GetArrayFromImage(_onto(lobe_map, _grid(lobe_map, LOBE_SPACING_MM))).astype(np.uint8)
    return Anatomy(name, lobes, filled.astype(np.uint8), hull)


def _make_one(path: Path, data: Path, cache: Path) -> str:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    name = path.name.split(".")[0]
    target = cache / f"{name}.npz.xz"
    if not target.exists():
        names = {int(k): v for k, v in json.loads(_only(data, "*.json").read_text()).items()}
        thorax = sitk.DICOMOrient(sitk.ReadImage(str(_only(data, "*_structures.nii.gz"))), "LPS")
        _save(fit_thorax(sitk.ReadImage(str(path)), thorax, names, name), target)
    return name


def _only(data: Path, pattern: str) -> Path:
    return next((data / "thorax").glob(pattern))


def make_anatomies(data: Path, cache: Path, processes: int = 1, limit: int | None = None) -> None:
    """Fit and cache the first ``limit`` lobe maps under ``data/lobe_maps``, or all; those already there are kept."""
    from tqdm import tqdm

    cache.mkdir(parents=True, exist_ok=True)
    paths = sorted((data / "lobe_maps").glob("*.nii.gz"))[:limit]
    for _ in tqdm(map_in_processes(partial(_make_one, data=data, cache=cache), paths, processes), total=len(paths)):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with lobe_maps/ and thorax/")
    parser.add_argument("--cache", type=Path, default=Path(".cache/anatomy"))
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    make_anatomies(arguments.data, arguments.cache, arguments.processes)
