"""Pictures that show nearly the same: copies, other sizes or windows of a slice, and its neighbours.

A perceptual hash keeps the signs of the lowest frequencies of a small grey picture (as pHash, Zauner 2010).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from training.data.images import read_stored
from training.data.record import Reader, Record

THUMBNAIL = 64
FREQUENCIES = 16
NEAR_BITS = 48
"""Pictures that differ in at most this many of 255 bits are taken for the same patient's.

Measured on the 675 pseudo-labelled slices of COVID-SemiSeg, whose patients are known: 60 % of the neighbours up to
four slices apart differ by less, of pairs of different patients fewer than 1 in 10,000.
"""

NEIGHBOUR_BITS = 60
"""As ``NEAR_BITS``, for pictures with neighbouring numbers: 75 % of true neighbours, 1 in 1,000 others."""

NEIGHBOUR_STEPS = 3
"""Difference of the numbers in two file names up to which they count as neighbouring."""

_BLOCK = 2048
_LAST_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$")


def picture_hash(grey: np.ndarray) -> np.ndarray:
    """255 booleans for a picture (y, x): which of its lowest frequencies lie above their median.

    Size, brightness and contrast hardly change it.
    """
    from PIL import Image
    from scipy.fft import dctn

    scaled = grey.astype(np.float32)
    small = np.asarray(Image.fromarray(scaled).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    low = dctn(small, norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    return low > np.median(low)


def near_pairs(hashes: np.ndarray, bits: int = NEAR_BITS) -> list[tuple[int, int]]:
    """Pairs (i < j) of rows that differ in at most ``bits``; works in blocks."""
    signs = np.where(hashes, 1, -1).astype(np.float32)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(signs), _BLOCK):
        distance = (signs.shape[1] - signs[start : start + _BLOCK] @ signs.T) / 2
        rows, columns = np.nonzero(distance <= bits + 0.1)
        pairs += [(int(i + start), int(j)) for i, j in zip(rows, columns, strict=True) if i + start < j]
    return pairs


def neighbouring_pairs(names: Sequence[str], hashes: np.ndarray, bits: int = NEIGHBOUR_BITS) -> list[tuple[int, int]]:
    """Pairs of rows whose names differ only in a number, by little, and whose pictures are alike."""
    numbered: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, name in enumerate(names):
        if match := _LAST_NUMBER.match(name):
            numbered.setdefault((match.group(1), match.group(3)), []).append((int(match.group(2)), row))
    pairs = []
    for series in numbered.values():
        series.sort()
        for place, (number, i) in enumerate(series):
            for other, j in series[place + 1 : place + 1 + NEIGHBOUR_STEPS]:
                if other - number <= NEIGHBOUR_STEPS and np.count_nonzero(hashes[i] != hashes[j]) <= bits:
                    pairs.append((i, j))
    return pairs


def group_similar(records: Sequence[Record], bits: int = NEAR_BITS) -> dict[str, str]:
    """For records of single pictures without a patient, the id of the first one that looks alike.

    :return: record id to group; records that resemble no other are left out.
    :raises InputError: for a picture that cannot be read.
    """
    chosen = [record for record in records if record.patient_id is None and is_single_picture(record)]
    if len(chosen) < 2:
        return {}
    hashes = np.stack([picture_hash(read_stored(record.image).array[0]) for record in chosen if record.image])
    groups = Groups(range(len(chosen)))
    for i, j in near_pairs(hashes, bits) + neighbouring_pairs([record.id for record in chosen], hashes):
        groups.join(i, j)
    return {
        chosen[one].id: f"similar/{chosen[members[0]].id}"
        for members in groups.members()
        if len(members) > 1
        for one in members
    }


def is_single_picture(record: Record) -> bool:
    """Whether the image is one slice, whose neighbours may be records too."""
    image = record.image
    return image is not None and (
        image.slice_index is not None or (image.reader is Reader.PICTURES and len(image.paths) == 1)
    )


class Groups:
    """Disjoint groups of things that are joined pair by pair (union-find).

    >>> groups = Groups("abcd")
    >>> groups.join("a", "c")
    >>> groups.members()
    [['a', 'c'], ['b'], ['d']]
    """

    def __init__(self, things: Iterable) -> None:
        self._parent = {thing: thing for thing in things}

    def join(self, a: object, b: object) -> None:
        """Put the groups of ``a`` and ``b`` together."""
        self._parent[self._root(b)] = self._root(a)

    def members(self) -> list[list]:
        """The groups, and their members, in the order the things were given."""
        found: dict[object, list] = {}
        for thing in self._parent:
            found.setdefault(self._root(thing), []).append(thing)
        return list(found.values())

    def _root(self, thing: object) -> object:
        while self._parent[thing] != thing:
            self._parent[thing] = self._parent[self._parent[thing]]
            thing = self._parent[thing]
        return thing
