"""A page of slices with their labels, to see at a glance what no number tells: turned, mirrored, misplaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.errors import CovidMultitaskError
from COVIDMultitaskLib.labels import LESIONS, LOBES
from COVIDMultitaskLib.preparation.grid import resample
from COVIDMultitaskLib.volume import Geometry, Volume
from training.data.loading import Sample, load
from training.data.preparation import labels_on_grid
from training.data.record import LEFT_LUNG, LESION_OF_ANY_KIND, LUNG_OF_ANY_SIDE, RIGHT_LUNG, Record

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

TILE, CAPTION, COLUMNS, MOST = 240, 44, 6, 24
WINDOW_HU = (-1200.0, 300.0)
_INK, _QUIET, _WARNING, _PAPER = (232, 236, 241), (154, 165, 180), (242, 184, 75), (14, 17, 22)
_LUNG_COLORS = {LEFT_LUNG: (78, 201, 176), RIGHT_LUNG: (197, 134, 192), LUNG_OF_ANY_SIDE: (86, 156, 214)}
_LOBE_COLORS = {label.value: label.color for label in LOBES}
_LESION_COLORS = {label.value: label.color for label in LESIONS} | {LESION_OF_ANY_KIND: (235, 95, 40)}


def contact_sheet(records: Sequence[Record], path: Path, tell: Callable[[int], None] = lambda done: None) -> None:
    """Write a PNG of up to 24 records, evenly chosen: the axial slice with most label, else the middle one.

    The patient's right is at the left and the front is up, as the geometry says; what appears otherwise is stored
    or labelled wrongly. A record that cannot be read gets its sentence instead of a picture.

    :raises OSError: when the file cannot be written.
    """
    from PIL import Image

    chosen = evenly(records, MOST)
    rows = -(-len(chosen) // COLUMNS)
    columns = min(COLUMNS, len(chosen))
    sheet = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION)), _PAPER)
    for place, record in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        sheet.paste(_tile(record), (column * TILE, row * (TILE + CAPTION)))
        tell(place + 1)
    sheet.save(path)


def evenly(records: Sequence[Record], most: int) -> list[Record]:
    """At most that many records, evenly spread over the sequence."""
    if len(records) <= most:
        return list(records)
    return [records[round(n * (len(records) - 1) / (most - 1))] for n in range(most)]


def axial_view(sample: Sample, size: int = TILE) -> np.ndarray:
    """RGB (size, size, 3): an axial slice as radiologists look at it, labels in colour."""
    grid = _plane(sample, size)
    if sample.image is None:
        grey = np.full(grid.shape[1:], 40.0)
    else:
        hu = _on_plane(sample.image, grid)
        grey = np.clip((hu - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]), 0, 1) * 255
    picture = np.repeat(grey[..., None], 3, axis=2)
    for mask, colors, strength in (
        (sample.lungs if sample.lobes is None else None, _LUNG_COLORS, 0.25),
        (sample.lobes, _LOBE_COLORS, 0.45 if sample.image is not None else 0.9),
        (sample.lesions, _LESION_COLORS, 0.55),
    ):
        if mask is not None:
            _paint(picture, _mask_on_plane(mask, sample.geometry, grid), colors, strength)
    return picture.astype(np.uint8)


def _plane(sample: Sample, size: int) -> Geometry:
    """One upright plane of square pixels over the whole field of view, at the slice to be shown."""
    corners = sample.geometry.corners_mm()
    low, high = corners.min(0), corners.max(0)
    spacing = float(max(high[0] - low[0], high[1] - low[1])) / size
    centre = (low + high) / 2
    index = (np.array(sample.geometry.shape) - 1) / 2
    index[0] = _slice_to_show(sample)
    centre[2] = (sample.geometry.affine @ [*index, 1.0])[2]
    origin = centre - np.array([size - 1, size - 1, 0]) / 2 * spacing
    return Geometry((1, size, size), (spacing, spacing, spacing), tuple(origin))


def _slice_to_show(sample: Sample) -> int:
    for mask in (sample.lesions, sample.lobes, sample.lungs):
        if mask is not None and mask.any():
            return int(np.count_nonzero(mask, axis=(1, 2)).argmax())
    return sample.geometry.shape[0] // 2


def _on_plane(volume: Volume, grid: Geometry) -> np.ndarray:
    near = _near(volume.geometry, grid)
    return resample(_thick(Volume(volume.array[near], _cut(volume.geometry, near))), grid)[0]


def _mask_on_plane(mask: np.ndarray, geometry: Geometry, grid: Geometry) -> np.ndarray:
    near = _near(geometry, grid)
    thick = _thick(Volume(mask[near], _cut(geometry, near)))
    return labels_on_grid(thick.array, thick.geometry, grid)[0]


def _near(geometry: Geometry, grid: Geometry) -> slice:
    """The slices around the plane: resampling a whole scan for one plane would take seconds."""
    index = (np.linalg.inv(geometry.affine) @ np.c_[grid.corners_mm(), np.ones(8)].T)[0]
    first = int(np.clip(np.floor(index.min()) - 1, 0, geometry.shape[0] - 1))
    return slice(first, int(np.clip(np.ceil(index.max()) + 2, first + 1, geometry.shape[0])))


def _cut(geometry: Geometry, part: slice) -> Geometry:
    return geometry.cropped((part.start, 0, 0), (part.stop, *geometry.shape[1:]))


def _thick(volume: Volume) -> Volume:
    """A single slice has no neighbours to interpolate between; three copies of it have."""
    if volume.geometry.shape[0] > 1:
        return volume
    flat = volume.geometry
    origin = np.asarray(flat.origin_mm) - flat.direction[:, 0] * flat.spacing_mm[0]
    place = Geometry((3, *flat.shape[1:]), flat.spacing_mm, tuple(origin), flat.direction)
    return Volume(np.concatenate([volume.array] * 3), place)


def _paint(picture: np.ndarray, mask: np.ndarray, colors: dict[int, tuple[int, int, int]], strength: float) -> None:
    for value, color in colors.items():
        inside = mask == value
        picture[inside] = (1 - strength) * picture[inside] + strength * np.array(color)


def _tile(record: Record) -> Image.Image:
    from PIL import Image, ImageDraw

    tile = Image.new("RGB", (TILE, TILE + CAPTION), _PAPER)
    draw = ImageDraw.Draw(tile)
    try:
        sample = load(record)
    except CovidMultitaskError as error:
        _paragraph(draw, str(error))
    else:
        tile.paste(Image.fromarray(axial_view(sample, TILE - 4)), (2, 2))
    _line(draw, record.id.split("/", 1)[-1], TILE + 2, _INK)
    _line(draw, labels_in_words(record), TILE + 18, _QUIET)
    return tile


def labels_in_words(record: Record) -> str:
    """The labels of a record in a few words, such as "CT-1, covid_19, lesions"."""
    words = [
        None if record.ct_grade is None else f"CT-{record.ct_grade}",
        record.severity,
        record.diagnosis or (None if record.covid is None else "not covid_19"),
        "lobes" if record.lobes else None,
        "lungs" if record.lungs else None,
        None
        if record.lesions is None
        else f"lesions ({record.lesion_kind.value})"
        if record.lesion_kind
        else "lesions",
    ]
    return ", ".join(word for word in words if word) or "no label"


def _line(draw: ImageDraw.ImageDraw, words: str, y: int, color: tuple[int, int, int]) -> None:
    """One line under the picture; of an id too long for it the end, which tells records apart."""
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    shown = words
    while draw.textlength(shown, font) > TILE - 8:
        shown = "…" + shown[2:]
    draw.text((4, y), shown, fill=color, font=font)


def _paragraph(draw: ImageDraw.ImageDraw, words: str) -> None:
    import textwrap

    from PIL import ImageFont

    draw.multiline_text((8, 8), textwrap.fill(words, TILE // 8), fill=_WARNING, font=ImageFont.load_default(12))
