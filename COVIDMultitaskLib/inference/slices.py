"""Lesions on a single slice, read by a network that sees volumes.

A slice is brought to the network's spacing, laid in the middle of a field of air, and shown as a
slab of copies of itself. Training and inference build the slab alike, from :func:`slab`. Where
nobody wrote the size of a pixel down, several guesses can be tried and their answers averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from COVIDMultitaskLib.engines.contract import EngineIdentity
from COVIDMultitaskLib.preparation.grid import AIR_HU

if TYPE_CHECKING:
    import torch

    from COVIDMultitaskLib.networks.joint import JointNetwork

SLAB_DEPTH = 16
"""A slice is shown to a 3D network as this many copies of itself."""

SMALLEST_FIELD = (144, 176)
"""Rows and columns of the field: room around any adult's lungs at 2.5 mm. Larger slices get a larger one.

The network normalises over the whole field, so that the air around a slice decides too: without it, the weights
shipped with 0.1 lose 0.29 of their 0.71 Dice on the expert slices they were trained on.
"""


@runtime_checkable
class SliceEngine(Protocol):
    """An engine that finds lesions on a single slice too."""

    identity: EngineIdentity

    def predict_slice(self, hu: np.ndarray, pixel_mm: float | Sequence[float], mirrored: bool = False) -> np.ndarray:
        """Probabilities of background, ground-glass and consolidation, float32 (3, y, x).

        :param hu: (y, x), front up; of a picture approximate.
        :param pixel_mm: side of a pixel; of several guesses the answers are averaged.
        :param mirrored: show the slice mirrored left to right too, and average.
        """
        ...


def slab(hu: torch.Tensor, pixel_mm: float, spacing_mm: float, field: tuple[int, int] | None = None) -> torch.Tensor:
    """Slices as the network sees them, normalised, (b, 1, 16, Y, X).

    :param hu: (b, y, x) Hounsfield units, front up.
    :param pixel_mm: side of a pixel of ``hu``.
    :param spacing_mm: of the network's grid.
    :param field: rows and columns of the result, multiples of 16, to which slices are padded with air
        or cropped about their middle; else :func:`field_of` the slices.
    """
    from COVIDMultitaskLib.preparation.intensity import normalise

    on_grid = _resized(hu[:, None].float(), _size_on_grid(hu.shape[-2:], pixel_mm, spacing_mm))
    centred = _centred(on_grid, field or field_of(on_grid.shape[-2:]), AIR_HU)
    return _copies(normalise(centred))


def slab_labels(
    labels: torch.Tensor, pixel_mm: float, spacing_mm: float, field: tuple[int, int] | None = None, outside: int = 0
) -> torch.Tensor:
    """Label maps of slices on the grid of their :func:`slab`, (b, 16, Y, X), of the same type.

    A pixel gets the label that covers most of it, where labels cover half of it.

    :param labels: (b, y, x), 0 is background.
    :param outside: label beyond the slice.
    """
    import torch

    size = _size_on_grid(labels.shape[-2:], pixel_mm, spacing_mm)
    values = torch.unique(labels[labels > 0])
    best = torch.zeros(len(labels), 1, *size, dtype=labels.dtype, device=labels.device)
    if len(values):
        shares = _resized(torch.stack([(labels == value).float() for value in values], 1), size)
        covered = shares.sum(1, keepdim=True) >= 0.5
        best = torch.where(covered, values[shares.argmax(1, keepdim=True)], best)
    return _copies(_centred(best, field or field_of(size), outside))[:, 0]


def field_of(size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the smallest field that holds a slice of that many; multiples of 16."""
    from COVIDMultitaskLib.networks.joint import SIDE_MULTIPLE

    rows, columns = (
        max(-(-have // SIDE_MULTIPLE) * SIDE_MULTIPLE, least) for have, least in zip(size, SMALLEST_FIELD, strict=True)
    )
    return rows, columns


def lesion_probabilities(
    network: JointNetwork,
    hu: np.ndarray,
    pixel_mm: float | Sequence[float],
    spacing_mm: float,
    mirrored: bool = False,
) -> np.ndarray:
    """Probabilities of background, ground-glass and consolidation at every pixel of a slice.

    :param hu: (y, x) Hounsfield units, front up, the patient's sides along x.
    :param pixel_mm: side of a pixel; of several guesses the answers are averaged.
    :param spacing_mm: of the network's grid.
    :param mirrored: show the slice mirrored left to right too, and average.
    :return: float32 (3, y, x), sums to 1.
    """
    import torch

    device = next(network.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(hu, np.float32)).to(device)[None]
    sizes = [pixel_mm] if isinstance(pixel_mm, int | float) else list(pixel_mm)
    with torch.inference_mode():
        looks = [_look(network, image, size, spacing_mm) for size in sizes]
        if mirrored:
            looks += [_look(network, image.flip(-1), size, spacing_mm).flip(-1) for size in sizes]
        return torch.stack(looks).mean(0).cpu().numpy()


def _look(network: JointNetwork, image: torch.Tensor, pixel_mm: float, spacing_mm: float) -> torch.Tensor:
    """Probabilities (3, y, x) of one slice (1, y, x), averaged over the slab's copies."""
    from COVIDMultitaskLib.inference.device import autocast

    with autocast(image.device):
        found = network.segment(slab(image, pixel_mm, spacing_mm)).lesions
    probability = found.float().softmax(1).mean(2)
    size = image.shape[-2:]
    return _resized(_centred(probability, _size_on_grid(size, pixel_mm, spacing_mm), 0.0), size, smooth=True)[0]


def _size_on_grid(size: Sequence[int], pixel_mm: float, spacing_mm: float) -> tuple[int, int]:
    rows, columns = (max(1, round(n * pixel_mm / spacing_mm)) for n in size)
    return rows, columns


def _resized(maps: torch.Tensor, size: Sequence[int], smooth: bool = False) -> torch.Tensor:
    """(b, c, y, x) maps over the same field with other pixels: means where they grow, else linear between them.

    :param smooth: linear in any case.
    """
    import torch.nn.functional as F

    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if not smooth and all(have >= want for have, want in zip(maps.shape[-2:], size, strict=True)):
        return F.interpolate(maps, size=tuple(size), mode="area")
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _centred(maps: torch.Tensor, size: Sequence[int], outside: float) -> torch.Tensor:
    """(b, c, y, x) maps cropped or padded about their middle; a crop undoes a padding exactly."""
    import torch.nn.functional as F

    padding: list[int] = []
    for have, want in zip(maps.shape[:-3:-1], tuple(size)[::-1], strict=True):
        before = (want - have) // 2 if want >= have else -((have - want) // 2)
        padding += [before, want - have - before]
    return F.pad(maps, padding, value=outside)


def _copies(maps: torch.Tensor) -> torch.Tensor:
    """(b, c, y, x) maps as slabs (b, c, 16, y, x)."""
    return maps[:, :, None].expand(-1, -1, SLAB_DEPTH, -1, -1).contiguous()
