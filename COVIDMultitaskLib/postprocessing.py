"""Lobes made whole and lesions kept in the lungs, on the network's own grid.

The rules know nothing of orientation: which side a label belongs to is in the label, and
which side a piece of lung is on is told by the labels most of it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.labels import LOBES, LUNGS

MIN_LOBE_ML = 10.0
"""A piece of lung that is all there is of a lobe is kept from this volume on."""
MIN_LUNG_FRACTION = 0.1
"""Any other piece of lung is kept from this share of the largest on."""
STRAY_SIDE_FRACTION = 0.05
"""Below this share of a piece of lung, labels of the other side are taken for errors."""
STRAY_HOME_FRACTION = 0.25
"""Likewise below this share of what the other side has in its own main piece of lung."""
MIN_LESION_MM3 = 10.0

_MAX_PASSES = 8
_N = len(LOBES) + 1
_SIDE_OF_LOBE = np.array([0] + [1 if label.value in LUNGS["left"] else 2 for label in LOBES], np.uint8)


def clean_lobes(labels: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Make every lobe one piece, without islands and holes, on its own side.

    Islands outside the main lungs go; holes in the lungs (vessels, dense disease) are filled;
    pieces of a lobe that are cut off from its main piece, and labels of the other side, take the
    label of what they touch. Cleaning a clean map changes nothing.

    :param labels: uint8 (z, y, x), values of ``labels.LOBES``; some may be absent.
    :param spacing_mm: (z, y, x).
    :returns: uint8 (z, y, x), with no label that was not there before.
    """
    current = np.asarray(labels, np.uint8)
    box = _labelled_box(current)
    if box is None:
        return np.zeros_like(current)
    inner = np.pad(current[box], 1)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    for _ in range(_MAX_PASSES):
        cleaned = _clean_once(inner, voxel_ml)
        if np.array_equal(cleaned, inner):
            break
        inner = cleaned
    result = np.zeros_like(current)
    result[box] = inner[1:-1, 1:-1, 1:-1]
    return result


def clean_lesions(lesions: np.ndarray, lobes: np.ndarray | None, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Keep lesions inside the lungs and drop 26-connected specks below 10 mm3.

    :param lesions: uint8 (z, y, x), values of ``labels.LESIONS``.
    :param lobes: uint8 (z, y, x), or None to keep lesions wherever they are.
    :param spacing_mm: (z, y, x).
    :returns: uint8 (z, y, x).
    """
    kept = np.array(lesions, np.uint8)
    if lobes is not None:
        kept[lobes == 0] = 0
    box = _labelled_box(kept)
    if box is None:
        return kept
    pieces, _ = _components(kept[box] > 0)
    small = np.bincount(pieces.ravel()) * float(np.prod(spacing_mm)) < MIN_LESION_MM3
    kept[box][small[pieces]] = 0
    return kept


def _clean_once(labels: np.ndarray, voxel_ml: float) -> np.ndarray:
    """One pass over a map whose border voxels are all background."""
    lung = _fill_holes(_main_lungs(labels, voxel_ml))
    labels = np.where(lung, labels, 0).astype(np.uint8)
    parts, n_parts = _components(lung)
    labels[_on_wrong_side(labels, parts, n_parts)] = 0
    labels[_cut_off(labels, parts)] = 0
    return _spread(labels, lung)


def _labelled_box(labels: np.ndarray) -> tuple[slice, ...] | None:
    from scipy import ndimage

    boxes = ndimage.find_objects((labels > 0).astype(np.uint8))
    return boxes[0] if boxes else None


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """26-connected pieces, numbered from 1, and how many."""
    from scipy import ndimage

    return ndimage.label(mask, structure=np.ones((3, 3, 3)), output=np.int32)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Pieces:
    """Connected pieces of equal label: ``numbers`` (z, y, x); label and voxels by number, entry 0 unused."""

    numbers: np.ndarray
    label: np.ndarray
    voxels: np.ndarray


def _pieces_of_lobes(labels: np.ndarray) -> _Pieces:
    from scipy import ndimage

    numbers = np.zeros(labels.shape, np.int32)
    label = [0]
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == value
        pieces, n = _components(mask)
        numbers[box] += pieces + mask * np.int32(len(label) - 1)
        label += [value] * n
    return _Pieces(numbers, np.array(label), np.bincount(numbers.ravel(), minlength=len(label)))


def _main_piece_of_each_lobe(pieces: _Pieces) -> np.ndarray:
    """Numbers of the largest piece of each label that is there; the first of equals."""
    return np.array(
        [
            found[int(pieces.voxels[found].argmax())]
            for value in range(1, _N)
            if (found := np.flatnonzero(pieces.label == value)).size
        ],
        dtype=np.intp,
    )


def _part_of_pieces(pieces: _Pieces, parts: np.ndarray) -> np.ndarray:
    """For every piece, the piece of lung it lies in."""
    part = np.zeros(pieces.label.size, np.intp)
    part[pieces.numbers] = parts
    return part


def _main_lungs(labels: np.ndarray, voxel_ml: float) -> np.ndarray:
    """Lung without islands: large pieces, and those that are a lobe's main piece."""
    parts, n_parts = _components(labels > 0)
    voxels = np.bincount(parts.ravel(), minlength=n_parts + 1)
    voxels[0] = 0
    pieces = _pieces_of_lobes(labels)
    keep = voxels >= max(MIN_LUNG_FRACTION * voxels.max(), 1)
    homes = _part_of_pieces(pieces, parts)[_main_piece_of_each_lobe(pieces)]
    keep[homes] |= voxels[homes] * voxel_ml >= MIN_LOBE_ML
    return keep[parts]


def _fill_holes(lung: np.ndarray) -> np.ndarray:
    """Fill what the lung encloses on all sides."""
    from scipy import ndimage

    outside, _ = ndimage.label(~lung, output=np.int32)
    return outside != outside[0, 0, 0]


def _on_wrong_side(labels: np.ndarray, parts: np.ndarray, n_parts: int) -> np.ndarray:
    """Labels of one side on a piece of lung of the other side."""
    sides = _SIDE_OF_LOBE[labels]
    lung = parts > 0
    counts = np.bincount(parts[lung] * 3 + sides[lung], minlength=3 * (n_parts + 1)).reshape(-1, 3)[:, 1:]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    stray = (share < STRAY_SIDE_FRACTION) | (counts < STRAY_HOME_FRACTION * counts.max(axis=0))
    wrong = np.zeros((n_parts + 1, 3), bool)
    wrong[:, 1:] = stray & (share < 0.5)
    return wrong[parts, sides]


def _cut_off(labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Pieces of a lobe other than its main one, where something else can take their place.

    A piece of lung that holds no lobe's main piece keeps its largest piece, and so is whole too.
    """
    pieces = _pieces_of_lobes(labels)
    stays = np.zeros(pieces.label.size, bool)
    stays[_main_piece_of_each_lobe(pieces)] = True
    part = _part_of_pieces(pieces, parts)
    for without in np.setdiff1d(part[1:], part[stays]):
        found = np.flatnonzero(part == without)
        stays[found[int(pieces.voxels[found].argmax())]] = True
    stays[0] = True
    return ~stays[pieces.numbers]


def _spread(labels: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """Give every unlabelled lung voxel the label that most of its labelled neighbours have.

    Labels grow one voxel at a time, so that a voxel is always connected to the lobe it joins.
    Of labels with equally many neighbours the lowest wins.
    """
    flat = labels.ravel().copy()
    strides = np.array([labels.shape[1] * labels.shape[2], labels.shape[2], 1])
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ strides
    waiting = np.flatnonzero(lung.ravel() & (flat == 0))
    while waiting.size:
        votes = np.zeros((waiting.size, _N), np.uint8)
        for step in steps:
            votes[np.arange(waiting.size), flat[waiting + step]] += 1
        winner = votes[:, 1:].argmax(axis=1) + 1
        reached = votes[:, 1:].any(axis=1)
        if not reached.any():
            break
        flat[waiting[reached]] = winner[reached]
        waiting = waiting[~reached]
    return flat.reshape(labels.shape)
