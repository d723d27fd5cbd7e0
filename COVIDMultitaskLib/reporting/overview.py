"""One picture of a result: three views, plain and with lobes and lesions, and the findings."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.findings import Findings
from COVIDMultitaskLib.labels import LESIONS, LOBES
from COVIDMultitaskLib.measuring.masks import Masks, cut_masks, lobes_or_lungs
from COVIDMultitaskLib.reporting.canvas import BACKGROUND, FAMILY, INK, QUIET, Canvas, css, new_canvas
from COVIDMultitaskLib.reporting.panel import draw_panel
from COVIDMultitaskLib.reporting.planes import (
    VIEWS,
    Box,
    Plane,
    View,
    basal_positions,
    lesion_positions,
    lung_box,
    make_plane,
    middle_positions,
    sample_grey,
    sample_label,
)
from COVIDMultitaskLib.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 1860, 1240

_EDGE, _GAP, _HEAD, _SIDE = 28, 8, 30, 26
_PANEL_LEFT, _PANEL_WIDTH = 1264, 568
_LOBE_FILL, _LESION_FILL = 0.2, 0.55


@dataclass(frozen=True)
class _Row:
    """One row of pictures: its name, where its planes lie (LPS x, y, z), with or without overlay."""

    name: str
    positions_mm: np.ndarray
    overlay: bool


@dataclass(frozen=True)
class _Grid:
    """Where pictures go: pixels per mm, and the left edge and width of each column."""

    scale: float
    lefts: tuple[float, ...]
    widths: tuple[float, ...]
    row_height: float


def draw_overview(volume: Volume, prediction: Prediction, findings: Findings) -> bytes:
    """Draw the overview.

    Radiological orientation: the patient's right at the left, front and head at the top, in true
    proportion, in the lung window. Only the planes shown are resampled.

    :param volume: the scan (z, y, x), of any orientation.
    :param prediction: lobes (or without them the lungs) and lesions on the scan's grid; any may be None.
    :returns: a PNG of 1860 x 1240 pixels.
    """
    known = lobes_or_lungs(prediction.lobes, prediction.lungs)
    masks = cut_masks(known, prediction.lesions, None, volume.geometry)
    box = lung_box(masks, volume.geometry)
    canvas = new_canvas(WIDTH, HEIGHT)
    rows = _rows(masks, box)
    grid = _grid(box, len(rows))
    _column_heads(canvas, grid)
    for place, row in enumerate(rows):
        _draw_row(canvas, volume, masks, box, row, grid, _EDGE + _HEAD + place * (grid.row_height + _GAP))
    draw_panel(canvas, findings, _PANEL_LEFT, _EDGE, _PANEL_WIDTH, HEIGHT - _EDGE)
    stream = io.BytesIO()
    canvas.agg.print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def _rows(masks: Masks, box: Box) -> list[_Row]:
    middle = middle_positions(masks, box)
    basal = basal_positions(masks, box)
    lesion = lesion_positions(masks)
    if not any(masks.shape):
        return [_Row("Middle of the scan", middle, False), _Row("Further down, back and left", basal, False)]
    if lesion is None:
        return [
            _Row("Middle of the lungs", middle, False),
            _Row("Middle of the lungs, overlay", middle, True),
            _Row("Further down, back and left; overlay", basal, True),
        ]
    return [
        _Row("Most affected planes", lesion, False),
        _Row("Most affected planes, overlay", lesion, True),
        _Row("Middle of the lungs, overlay", middle, True),
    ]


def _grid(box: Box, n_rows: int) -> _Grid:
    wide = [box.size_mm(view.across) for view in VIEWS]
    high = max(box.size_mm(view.down) for view in VIEWS)
    room = _PANEL_LEFT - 36 - _EDGE - _SIDE - _GAP * (len(wide) - 1)
    tall = HEIGHT - 2 * _EDGE - _HEAD - _GAP * (n_rows - 1)
    scale = min(room / sum(wide), tall / (n_rows * high))
    spare = (room - scale * sum(wide)) / len(wide)
    widths = tuple(scale * w + spare for w in wide)
    lefts = tuple(_EDGE + _SIDE + sum(widths[:n]) + n * _GAP for n in range(len(widths)))
    return _Grid(scale, lefts, widths, tall / n_rows)


def _column_heads(canvas: Canvas, grid: _Grid) -> None:
    for view, left, width in zip(VIEWS, grid.lefts, grid.widths, strict=True):
        canvas.text(left + width / 2, _EDGE + 16, view.name, 16, INK, ha="center", weight="bold")


def _draw_row(canvas: Canvas, volume: Volume, masks: Masks, box: Box, row: _Row, grid: _Grid, top: float) -> None:
    middle = top + grid.row_height / 2
    canvas.text(_EDGE + 8, middle, row.name, 14, QUIET, ha="center", va="center", rotation="vertical")
    for view, left, width in zip(VIEWS, grid.lefts, grid.widths, strict=True):
        wide, high = grid.scale * box.size_mm(view.across), grid.scale * box.size_mm(view.down)
        frame = (left + (width - wide) / 2, middle - high / 2, wide, high)
        plane = make_plane(volume.geometry, view, float(row.positions_mm[view.normal]), box)
        _draw_picture(canvas, volume, masks, plane, row.overlay, frame)


def _draw_picture(
    canvas: Canvas,
    volume: Volume,
    masks: Masks,
    plane: Plane,
    overlay: bool,
    frame: tuple[float, float, float, float],
) -> None:
    x, y, wide, high = frame
    figure = canvas.axes.figure
    axes = figure.add_axes((x / WIDTH, 1 - (y + high) / HEIGHT, wide / WIDTH, high / HEIGHT))
    axes.set_axis_off()
    picture = np.repeat(sample_grey(volume, plane)[:, :, None], 3, axis=2)
    if overlay:
        _paint(picture, axes, masks, plane)
    axes.imshow(picture, interpolation="bilinear", aspect="auto", vmin=0, vmax=1)
    _letters(axes, plane.view)


def _paint(picture: np.ndarray, axes: Axes, masks: Masks, plane: Plane) -> None:
    """Lobes as a light tint with an outline, lesions as a stronger tint, into (rows, columns, 3)."""
    in_box = Plane(plane.view, plane.position_mm, plane.index - np.array(masks.start_zyx)[:, None, None])
    for labels, table, fill in ((masks.lobes, LOBES, _LOBE_FILL), (masks.lesions, LESIONS, _LESION_FILL)):
        if labels is None:
            continue
        for label in table:
            share = sample_label(labels, label.value, in_box)
            if share.max() <= 0.5:
                continue
            alpha = fill * np.clip(4 * share - 1.5, 0, 1)[:, :, None]
            picture *= 1 - alpha
            picture += alpha * np.array(css(label.color), np.float32)
            if table is LOBES:
                axes.contour(share, levels=[0.5], colors=[css(label.color)], linewidths=1.1)


def _letters(axes: Axes, view: View) -> None:
    """Which side of the patient lies at each side of the picture, legible on any grey."""
    from matplotlib.patheffects import AbstractPathEffect, withStroke

    edge: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground=BACKGROUND)]
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    )
    for letter, (x, y, ha, va) in zip(view.letters, places, strict=True):
        text = axes.text(x, y, letter, transform=axes.transAxes, ha=ha, va=va, fontsize=10, color=INK, family=FAMILY)
        text.set_path_effects(edge)
