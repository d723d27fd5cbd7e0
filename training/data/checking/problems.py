"""Contradictions in a set of records. Quick ones need headers alone, deep ones read every voxel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from COVIDMultitaskLib.labels import LOBES, LUNGS
from COVIDMultitaskLib.volume import Geometry, IntensityKind
from training.data.cache import content_digest
from training.data.images import read_stored, stored_geometry
from training.data.loading import Sample, check_same_grid, load
from training.data.record import LEFT_LUNG, RIGHT_LUNG, ImageFile, LabelFile, Reader, Record
from training.data.splits import kept_together

HEAD_BYTES = 1 << 16
MOST_LESION_OUTSIDE = 0.2
"""Share of lesion voxels that may lie outside the lung mask: masks of lungs often leave consolidation out."""

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Problem:
    """Something that needs a decision before training.

    :param where: a record's id, or the data set.
    :param sentence: what is wrong.
    """

    where: str
    sentence: str


def problems_between(records: Sequence[Record]) -> list[Problem]:
    """Contradictions between records: repeated ids, patients in several prescribed parts, images that are copies."""
    return [*_repeated_ids(records), *_patients_across_parts(records), *_same_content(records)]


def problems_within(records: Sequence[Record], deep: bool = False, tell: Tell = lambda done: None) -> list[Problem]:
    """Contradictions within each record, in their order: missing files, grids of image and mask that differ.

    :param deep: read all voxels too: label values, sides, empty masks, what the intensities mean.
    :param tell: called with the number of records looked at.
    """
    problems: list[Problem] = []
    for done, record in enumerate(records, start=1):
        problems += _of_voxels(record) if deep else _of_headers(record)
        tell(done)
    return problems


def _repeated_ids(records: Sequence[Record]) -> list[Problem]:
    seen: dict[str, int] = defaultdict(int)
    for record in records:
        seen[record.id] += 1
    return [Problem(name, f"{count} records have this id.") for name, count in seen.items() if count > 1]


def _patients_across_parts(records: Sequence[Record]) -> list[Problem]:
    problems = []
    for group in kept_together(records):
        parts = sorted({record.split for record in group if record.split})
        if len(parts) > 1:
            name = group[0].patient_id or group[0].group or group[0].id
            problems.append(Problem(name, f"This patient's records are prescribed to {' and '.join(parts)}."))
    return problems


def _same_content(records: Sequence[Record]) -> list[Problem]:
    """Images of different records whose files are byte for byte the same.

    Only files of equal size whose first bytes agree are read whole.
    """
    owners: dict[Path, str] = {}
    for record in records:
        if record.image and record.image.slice_index is None and record.image.paths[0].is_file():
            # Of a stack of pictures the middle one stands for all.
            owners[record.image.paths[len(record.image.paths) // 2]] = record.id
    alike = _grouped(_grouped([list(owners)], lambda path: path.stat().st_size), _head)
    problems = []
    for paths in _grouped(alike, content_digest):
        first, *others = sorted(paths, key=lambda path: owners[path])
        if names := sorted({owners[path] for path in others} - {owners[first]}):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            problems.append(Problem(owners[first], f"The image is the same file as that of {names[0]}{more}."))
    return problems


def _grouped(groups: list[list[Path]], key: Callable[[Path], object]) -> list[list[Path]]:
    """Each group divided by a key; those of a single file are dropped."""
    result: list[list[Path]] = []
    for group in groups:
        divided: dict[object, list[Path]] = defaultdict(list)
        for path in group:
            try:
                divided[key(path)].append(path)
            except OSError:  # told of when the record itself is looked at
                continue
        result += [paths for paths in divided.values() if len(paths) > 1]
    return result


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _of_headers(record: Record) -> list[Problem]:
    try:
        _refuse_missing(record)
        image = stored_geometry(record.image) if record.image else None
        if record.image is not None and record.image.reader is Reader.PICTURES:
            _refuse_empty_files(record.image)
        for labels in (record.lobes, record.lungs, record.lesions):
            image = _check_grid(labels, image, record)
    except CovidMultitaskError as error:
        return [Problem(record.id, str(error))]
    return []


def _refuse_missing(record: Record) -> None:
    for file in record.files:
        for path in file.paths:
            if not path.exists():
                raise InputError(f"{path} is missing.")


def _refuse_empty_files(image: ImageFile) -> None:
    for path in image.paths:
        if path.stat().st_size == 0:
            raise InputError(f"{path.parent.name}/{path.name} is empty.")


def _check_grid(labels: LabelFile | None, image: Geometry | None, record: Record) -> Geometry | None:
    """The grid all masks must have: the image's, or the first mask's where the image tells none."""
    for part, _ in labels.parts if labels else ():
        geometry = stored_geometry(part)
        if geometry is not None and image is not None:
            check_same_grid(
                geometry, image, part.name, record.files[0].name, bool(labels and labels.takes_image_geometry)
            )
        image = image or geometry
    return image


def _of_voxels(record: Record) -> list[Problem]:
    try:
        sample = load(record)
        sentences = [*_of_lobes(sample), *_of_lungs(sample), *_of_lesions(sample), *_of_intensity(sample)]
    except CovidMultitaskError as error:
        return [Problem(record.id, str(error))]
    return [Problem(record.id, sentence) for sentence in sentences]


def _of_lobes(sample: Sample) -> list[str]:
    if sample.lobes is None:
        return []
    counts = np.bincount(sample.lobes.ravel(), minlength=len(LOBES) + 1)
    absent = [label.name for label in LOBES if not counts[label.value]]
    sentences = [f"The lobe map has no {', '.join(absent).lower()}."] if absent else []
    left, right = np.isin(sample.lobes, LUNGS["left"]), np.isin(sample.lobes, LUNGS["right"])
    return [*sentences, *_sides_swapped(left, right, sample.geometry, "lobe map")]


def _of_lungs(sample: Sample) -> list[str]:
    if sample.lungs is None:
        return []
    if not sample.lungs.any():
        return ["The lung mask is empty."]
    return _sides_swapped(sample.lungs == LEFT_LUNG, sample.lungs == RIGHT_LUNG, sample.geometry, "lung mask")


def _sides_swapped(left: np.ndarray, right: np.ndarray, geometry: Geometry, what: str) -> list[str]:
    if not left.any() or not right.any():
        return []
    if _centre_x(left, geometry) > _centre_x(right, geometry):
        return []
    return [f"In the {what} the left lung lies on the patient's right: image or labels are mirrored."]


def _centre_x(mask: np.ndarray, geometry: Geometry) -> float:
    """Mean LPS x of a mask's voxels."""
    index = [float(place.mean()) for place in np.nonzero(mask)]
    return float((geometry.affine @ [*index, 1.0])[0])


def _of_lesions(sample: Sample) -> list[str]:
    record, lesions = sample.record, sample.lesions
    if lesions is None:
        return []
    sentences = []
    is_slice = lesions.shape[0] == 1
    if not lesions.any() and record.covid and not is_slice:
        sentences.append("The lesion mask is empty although the diagnosis is COVID-19.")
    if lesions.any() and record.ct_grade == 0:
        sentences.append("The lesion mask is not empty although the grade is CT-0.")
    inside = sample.lobes if sample.lobes is not None else sample.lungs
    if inside is not None and lesions.any():
        outside = float(np.mean(inside[lesions > 0] == 0))
        if outside > MOST_LESION_OUTSIDE:
            sentences.append(f"{outside:.0%} of the lesion mask lies outside the lungs.")
    return sentences


def _of_intensity(sample: Sample) -> list[str]:
    """Whether the values mean what the source says, judged as the reader judges a user's scan."""
    from COVIDMultitaskLib.reading.intensities import recognise

    record = sample.record
    if record.image is None or record.intensity is IntensityKind.PICTURE or sample.geometry.shape[0] == 1:
        return []
    seen = recognise(read_stored(record.image).array)
    if seen is record.intensity:
        return []
    return [f"The values look like {seen.value}, not {record.intensity.value}."]
