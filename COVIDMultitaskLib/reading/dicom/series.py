"""Which slices belong together, and which of the stacks is the chest CT."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from COVIDMultitaskLib.errors import InputError, NotChestCTError
from COVIDMultitaskLib.reading.dicom.headers import SliceHeader

SAME_PLANE_MM = 0.01
_AXIAL_COSINE = 0.8  # a gantry tilts by at most 30 degrees, whose cosine is 0.87
_REFORMATTED = {"MPR", "REFORMATTED", "MIP", "MINIP", "PROJECTION IMAGE", "CSA MPR", "CURVED", "VRT", "CSAPARALLEL"}
_OTHER_BODY_PARTS = ("HEAD", "BRAIN", "NECK", "ABDOMEN", "PELVIS", "LEG", "KNEE", "FOOT", "ARM", "HAND")


@dataclass(frozen=True)
class Candidate:
    """Slices of one series with the same size, pixel spacing and orientation."""

    slices: tuple[SliceHeader, ...]

    @property
    def first(self) -> SliceHeader:
        """Any one slice: those of a candidate share series, size, spacing and orientation."""
        return self.slices[0]

    @property
    def normal(self) -> np.ndarray:
        """LPS unit normal of the planes, column direction x row direction."""
        return slice_normal(self.first)

    @property
    def depths_mm(self) -> np.ndarray:
        """Place of every slice along the normal."""
        return np.array([header.position_mm for header in self.slices]) @ self.normal

    @property
    def planes(self) -> int:
        """Number of distinct planes."""
        return len({round(depth / SAME_PLANE_MM) for depth in self.depths_mm})

    @property
    def is_axial(self) -> bool:
        """Whether the planes lie across the body, a tilted gantry allowed for."""
        return bool(abs(self.normal[2]) >= _AXIAL_COSINE)

    @property
    def is_reformatted(self) -> bool:
        """Whether the images were computed from other images."""
        return bool(_REFORMATTED & set(self.first.image_type))

    @property
    def rank(self) -> tuple[float, ...]:
        """Greater is more probably the chest CT to analyse: whole, original, and of most slices."""
        body_part = self.first.body_part
        with_chest = any(part in body_part for part in ("CHEST", "THORAX", "LUNG"))
        elsewhere = not with_chest and any(part in body_part for part in _OTHER_BODY_PARTS)
        covers_a_chest = bool(np.ptp(self.depths_mm) >= 150.0)
        number = self.first.series_number
        return (
            not self.is_reformatted,
            not elsewhere,
            covers_a_chest,
            self.planes,
            "ORIGINAL" in self.first.image_type,
            -(number if number is not None else 10**9),
        )


def choose_series(slices: Iterable[SliceHeader], series: str | None = None) -> tuple[Candidate, tuple[str, ...]]:
    """The stack of slices to analyse, and sentences that say what was chosen and left out.

    :param series: Series Instance UID to take instead of the best one.
    :raises InputError: when ``series`` is not among the slices, or no slice has a position.
    :raises NotChestCTError: when there is no CT, or only localisers and other planes.
    """
    images = list(slices)
    if series is not None:
        images = [header for header in images if header.series == series]
        if not images:
            raise InputError("The folder holds no images of the chosen series; choose one of those it holds.")
    _refuse_other_modalities(images)
    stacks = group_stacks(header for header in images if header.modality == "CT" and not _is_localiser(header))
    usable = [stack for stack in stacks if stack.is_axial or series is not None]
    if not usable:
        raise NotChestCTError(
            "The folder holds no axial CT series, only localisers, single images or other planes; "
            "export the axial series of the chest."
        )
    chosen = max(usable, key=lambda stack: stack.rank)
    return chosen, _notes(chosen, images, stacks)


def group_stacks(slices: Iterable[SliceHeader]) -> list[Candidate]:
    """Slices grouped by series, size, pixel spacing, orientation and, where planes repeat, acquisition."""
    stacks: dict[tuple[str, int, int], list[list[SliceHeader]]] = defaultdict(list)
    for header in slices:
        if not header.has_geometry:
            continue
        alike = stacks[header.series, header.rows, header.columns]
        for stack in alike:
            if _is_parallel(header, stack[0]):
                stack.append(header)
                break
        else:
            alike.append([header])
    parallel = (Candidate(tuple(stack)) for alike in stacks.values() for stack in alike)
    return [part for stack in parallel for part in _split_acquisitions(stack)]


def slice_normal(header: SliceHeader) -> np.ndarray:
    """LPS unit normal of a plane: its row direction x its column direction."""
    along_row, along_column = np.array(header.orientation).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    length = float(np.linalg.norm(normal))
    if not length > 0.1:
        raise InputError("The slices' orientation is not valid; export the series again.")
    return normal / length


def _split_acquisitions(stack: Candidate) -> list[Candidate]:
    """Two phases of one series repeat every plane; each phase is a scan of its own."""
    acquisitions: dict[tuple[int, int], list[SliceHeader]] = defaultdict(list)
    for header in stack.slices:
        acquisitions[header.acquisition].append(header)
    parts = [Candidate(tuple(part)) for part in acquisitions.values()]
    if stack.planes == len(stack.slices) or any(part.planes < len(part.slices) for part in parts):
        return [stack]
    return parts


def _is_parallel(a: SliceHeader, b: SliceHeader) -> bool:
    same_plane = all(abs(m - n) < 2e-3 for m, n in zip(a.orientation, b.orientation, strict=True))
    return same_plane and all(abs(m - n) < 1e-3 for m, n in zip(a.pixel_spacing_mm, b.pixel_spacing_mm, strict=True))


def _is_localiser(header: SliceHeader) -> bool:
    return bool({"LOCALIZER", "SCOUT", "SCREEN SAVE"} & set(header.image_type))


def _refuse_other_modalities(images: list[SliceHeader]) -> None:
    modalities = sorted({header.modality for header in images})
    if "CT" not in modalities:
        named = ", ".join(filter(None, modalities)) or "unknown"
        raise NotChestCTError(f"The DICOM images are of modality {named}, not CT; give a chest CT.")


def _notes(chosen: Candidate, images: list[SliceHeader], stacks: list[Candidate]) -> tuple[str, ...]:
    left = [stack for stack in stacks if stack is not chosen]
    localisers = sum(header.modality == "CT" and _is_localiser(header) for header in images)
    others = Counter(header.modality or "unknown" for header in images if header.modality != "CT")
    lost = sum(header.modality == "CT" and not _is_localiser(header) and not header.has_geometry for header in images)
    parts = [_describe(stack) for stack in sorted(left, key=lambda stack: stack.rank, reverse=True)[:10]]
    parts += [f"{len(left) - 10} more stacks"] if len(left) > 10 else []
    parts += [f"{localisers} localiser image(s)"] if localisers else []
    parts += [f"{lost} image(s) without a position"] if lost else []
    parts += [f"{count} {modality} image(s)" for modality, count in sorted(others.items())]
    if not parts:
        return ()
    return (f"Chosen: {_describe(chosen)}; left out: {', '.join(parts)}.",)


def _describe(stack: Candidate) -> str:
    number = "a series" if stack.first.series_number is None else f"series {stack.first.series_number}"
    plane = "axial" if stack.is_axial else "not axial"
    kind = f"{plane}, reformatted" if stack.is_reformatted else plane
    return f"{number} ({len(stack.slices)} images, {kind})"
