"""Text and bars placed in pixels on a dark figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

BACKGROUND, PANEL, TRACK = "#0e1116", "#171c24", "#262d38"
INK, QUIET, FAINT = "#e8ecf1", "#9aa5b4", "#5f6b7a"
ACCENT, WARNING = "#6cb2ff", "#f2b84b"
FAMILY = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same
DPI = 100


def css(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """A label's colour (0..255) as matplotlib takes it (0..1)."""
    red, green, blue = (part / 255 for part in color)
    return red, green, blue


@dataclass(frozen=True)
class Canvas:
    """Axes whose data coordinates are the figure's pixels, y downwards.

    :param axes: covers the figure; see :func:`new_canvas`.
    """

    axes: Axes
    agg: FigureCanvasAgg

    def text(self, x: float, y: float, words: str, size: float = 14, color: str = INK, **options: str) -> None:
        """One line; ``size`` in pixels, ``y`` its baseline unless ``va`` says otherwise."""
        style: dict[str, Any] = {"va": "baseline", "ha": "left", "family": FAMILY, "parse_math": False, **options}
        self.axes.text(x, y, words, fontsize=size * 72 / DPI, color=color, **style)

    def bar(self, x: float, y: float, width: float, height: float, color: object, radius: float = 0) -> None:
        """A filled rectangle with its upper left corner at (x, y)."""
        from matplotlib.patches import FancyBboxPatch, Rectangle

        if width <= 0:
            return
        style = f"round,pad=0,rounding_size={min(radius, width / 2, height / 2)}"
        shape = (
            FancyBboxPatch((x, y), width, height, boxstyle=style, linewidth=0, facecolor=color)
            if radius
            else Rectangle((x, y), width, height, linewidth=0, facecolor=color)
        )
        self.axes.add_patch(shape)

    def wrapped(self, words: str, width: float, size: float) -> list[str]:
        """The words broken into lines no wider than ``width`` pixels."""
        lines: list[str] = []
        for word in words.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def width(self, words: str, size: float) -> float:
        """Width of one line in pixels."""
        from matplotlib.font_manager import FontProperties

        font = FontProperties(family=FAMILY, size=size * 72 / DPI)
        width, _, _ = self.agg.get_renderer().get_text_width_height_descent(words, font, ismath=False)
        return float(width)


def new_canvas(width: int, height: int) -> Canvas:
    """An empty dark figure of that many pixels, made without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)
    agg = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return Canvas(axes, agg)
