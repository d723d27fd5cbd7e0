"""Chance applied to a case, so that one that comes again is not quite the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from COVIDMultitaskLib.preparation.grid import AIR_HU
from training.data.dataset import MASKS, Case
from training.data.record import NOT_ANNOTATED

ROTATION_DEGREES = 8.0
ZOOM = (0.9, 1.1)
SLICE_ZOOM = (0.85, 1.15)
"""Wider: the size of a picture's pixel is a guess."""


def augmented(case: Case, chance: np.random.Generator, move: bool) -> Case:
    """A case with other intensities, and turned and scaled a little where ``move`` says so.

    Nothing is mirrored but slices without lobes: lobes have a side.
    """
    if case.hu.shape[0] == 1:
        return _other_slice(case, chance)
    if move:
        case = _turned(case, chance)
    return replace(case, hu=_other_intensities(case.hu, chance))


def cropped(case: Case, largest: tuple[int, int, int], chance: np.random.Generator) -> Case:
    """At most ``largest`` voxels (z, y, x) of a case; what is true of the whole scan only is then unknown."""
    if all(have <= most for have, most in zip(case.hu.shape, largest, strict=True)):
        return case
    start = [int(chance.integers(max(have - most, 0) + 1)) for have, most in zip(case.hu.shape, largest, strict=True)]
    box = tuple(slice(first, first + most) for first, most in zip(start, largest, strict=True))
    masks = {name: None if (array := getattr(case, name)) is None else array[box] for name in MASKS}
    flags = {
        name: None if (array := getattr(case, name)) is None else array[box[0]]
        for name in ("slice_flags", "lobe_flags")
    }
    record = replace(case.record, severity=None, ct_grade=None, diagnosis=None, covid=None)
    if largest[1] < case.hu.shape[1] or largest[2] < case.hu.shape[2]:
        flags = dict.fromkeys(flags)  # what a plane shows may lie outside the box
    return Case(record, case.hu[box], **masks, **flags)


def _other_intensities(hu: torch.Tensor, chance: np.random.Generator) -> torch.Tensor:
    noise = torch.from_numpy(chance.standard_normal(tuple(hu.shape), dtype=np.float32)) * chance.uniform(0, 15)
    return hu * chance.uniform(0.97, 1.03) + chance.uniform(-20, 20) + noise


def _turned(case: Case, chance: np.random.Generator) -> Case:
    """Rotated about the patient's three axes and scaled, about the middle."""
    from monai.transforms import Affine

    angles = np.radians(chance.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, 3))
    move = Affine(tuple(angles), scale_params=(float(chance.uniform(*ZOOM)),) * 3, image_only=True)
    hu = move(case.hu[None] - AIR_HU, mode="bilinear", padding_mode="zeros")[0] + AIR_HU
    return _with_masks(replace(case, hu=torch.as_tensor(hu)), lambda mask: _moved_mask(mask, move))


def _moved_mask(mask: torch.Tensor, move) -> torch.Tensor:
    """What comes in from outside is not annotated; shifted by one, so that zero can say so."""
    shifted = (mask.int() + 1) % (NOT_ANNOTATED + 1)
    moved = move(shifted[None].float(), mode="nearest", padding_mode="zeros")[0]
    return torch.as_tensor((moved.round().int() - 1) % (NOT_ANNOTATED + 1)).to(torch.uint8)


def _other_slice(case: Case, chance: np.random.Generator) -> Case:
    zoom = float(chance.uniform(*SLICE_ZOOM))
    hu = F.interpolate(case.hu[None], scale_factor=zoom, mode="bilinear", align_corners=False)[0]
    hu = (hu - AIR_HU) * chance.uniform(0.92, 1.08) + AIR_HU + chance.uniform(-40, 40)
    mirrored = case.lobes is None and case.lungs is None and chance.random() < 0.5

    def moved(mask: torch.Tensor) -> torch.Tensor:
        zoomed = F.interpolate(mask[None].float(), scale_factor=zoom, mode="nearest")[0].to(torch.uint8)
        return zoomed.flip(-1) if mirrored else zoomed

    return _with_masks(replace(case, hu=hu.flip(-1) if mirrored else hu), moved)


def _with_masks(case: Case, moved: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    """A case with each of its masks changed."""
    lobes, lungs, lesions = (None if mask is None else moved(mask) for mask in (case.lobes, case.lungs, case.lesions))
    return replace(case, lobes=lobes, lungs=lungs, lesions=lesions)
