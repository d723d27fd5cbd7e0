"""The overview of a picture: as it was given, with its lesions, and the findings."""

from __future__ import annotations

import io

import numpy as np

from COVIDMultitaskLib.engines.contract import Prediction
from COVIDMultitaskLib.findings import Findings
from COVIDMultitaskLib.labels import GROUND_GLASS, LESIONS
from COVIDMultitaskLib.reporting.canvas import INK, Canvas, css, new_canvas
from COVIDMultitaskLib.reporting.panel import draw_picture_panel
from COVIDMultitaskLib.volume import Volume

WIDTH, HEIGHT = 1860, 760
_EDGE, _HEAD, _GAP = 28, 30, 8
_PANEL_LEFT, _PANEL_WIDTH = 1264, 568
_FILL = 0.5


def draw_picture_overview(volume: Volume, prediction: Prediction, findings: Findings) -> bytes:
    """Draw the overview of a picture.

    :param volume: the picture (1, y, x).
    :param prediction: lesions on the same pixels, or None.
    :returns: a PNG of 1860 x 760 pixels.
    """
    canvas = new_canvas(WIDTH, HEIGHT)
    grey = np.repeat(_stretched(volume.array[0])[:, :, None], 3, axis=2)
    side = (_PANEL_LEFT - 36 - _EDGE - _GAP) / 2
    titles = ("Picture", "Picture with lesions")
    for place, (title, picture) in enumerate(zip(titles, (grey, _painted(grey, prediction)), strict=True)):
        left = _EDGE + place * (side + _GAP)
        canvas.text(left + side / 2, _EDGE + 16, title, 16, INK, ha="center", weight="bold")
        _draw(canvas, picture, left, side)
    draw_picture_panel(canvas, findings, _PANEL_LEFT, _EDGE, _PANEL_WIDTH, HEIGHT - _EDGE)
    stream = io.BytesIO()
    canvas.agg.print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def _stretched(grey: np.ndarray) -> np.ndarray:
    """Grey values as 0..1."""
    low, high = np.percentile(grey, [0.5, 99.5])
    return np.clip((grey.astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1)


def _painted(grey: np.ndarray, prediction: Prediction) -> np.ndarray:
    if prediction.lesions is None:
        return grey
    color = next(np.array(css(label.color), np.float32) for label in LESIONS if label.value == GROUND_GLASS)
    alpha = _FILL * (prediction.lesions[0] > 0)[:, :, None].astype(np.float32)
    return grey * (1 - alpha) + alpha * color


def _draw(canvas: Canvas, picture: np.ndarray, left: float, side: float) -> None:
    """Centred in its column, in true proportion."""
    room = HEIGHT - 2 * _EDGE - _HEAD
    scale = min(side / picture.shape[1], room / picture.shape[0])
    high, wide = scale * picture.shape[0], scale * picture.shape[1]
    x, y = left + (side - wide) / 2, _EDGE + _HEAD + (room - high) / 2
    figure = canvas.axes.figure
    axes = figure.add_axes((x / WIDTH, 1 - (y + high) / HEIGHT, wide / WIDTH, high / HEIGHT))
    axes.set_axis_off()
    axes.imshow(picture, interpolation="bilinear", aspect="auto", vmin=0, vmax=1)
