"""The parts of scans that a network is shown while it learns: as large and as placed as an engine may choose them.

An engine shows its network the box around the lungs, with a margin, as far as the scan goes, its sides rounded up. A
network that has met whole simulated scans alone, which all end in the same way, relies on that: without the air
beyond their backs it loses a tenth of the lobes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from COVIDMultitaskLib.preparation.grid import AIR_HU
from training.data.dataset import MASKS
from training.data.record import NOT_ANNOTATED
from training.learning.learner import Batch
from training.learning.sampling import SCAN_MULTIPLE

MARGIN_MM = (10.0, 60.0)
"""From the lungs to the field's ends, at least and at most; the ends of rounding come on top."""


def in_some_field(scans: Batch, spacing_mm: float, generator: torch.Generator) -> Batch:
    """The scans of a batch in a field around the lungs of all, with air where they do not reach.

    Where no lungs are annotated, the batch as it is.

    :param spacing_mm: of the scans' voxels.
    """
    lungs = _lungs(scans)
    if lungs is None or not lungs.any():
        return scans
    least, most = MARGIN_MM
    margins = (least + (most - least) * torch.rand(3, 2, generator=generator)) / spacing_mm
    starts, sizes = [], []
    for axis, (near, far) in enumerate(margins.round().int().tolist()):
        seen = lungs.any(0).amax([other for other in range(3) if other != axis]).nonzero().flatten()
        start, stop = int(seen[0]) - near, int(seen[-1]) + 1 + far
        size = -(-(stop - start) // SCAN_MULTIPLE) * SCAN_MULTIPLE
        starts.append(start - (size - (stop - start)) // 2)
        sizes.append(size)
    if set(sizes) == {SCAN_MULTIPLE}:  # a single position at the lowest resolution cannot be normalised
        return scans
    shown = {"hu": _window(scans["hu"], starts, sizes, AIR_HU)}
    for name, axes in (*((mask, 3) for mask in MASKS), ("slice_flags", 1), ("lobe_flags", 1)):
        if scans[name] is not None:
            shown[name] = _window(scans[name], starts[:axes], sizes[:axes], NOT_ANNOTATED)
    return {**scans, **shown}


def _lungs(scans: Batch) -> torch.Tensor | None:
    """Where any mask says that there is lung, bool (b, z, y, x); ``None`` without such a mask."""
    known = [scans[name] for name in ("lobes", "lungs") if scans[name] is not None]
    return torch.stack([(mask > 0) & (mask != NOT_ANNOTATED) for mask in known]).any(0) if known else None


def _window(array: torch.Tensor, starts: list[int], sizes: list[int], outside: float) -> torch.Tensor:
    """A part of (b, z, ...), along as many axes after the first as there are starts."""
    ends = [
        (-start, start + size - have) for start, size, have in zip(starts, sizes, array.shape[1:], strict=False)
    ] + [(0, 0)] * (array.ndim - 1 - len(starts))
    return F.pad(array, [end for pair in ends[::-1] for end in pair], value=outside)
