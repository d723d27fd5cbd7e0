"""Curves as SVG that stands in a page of either brightness: text, axes and grid take the page's own colour."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from training.metrics import ReliabilityBin

Points = Sequence[tuple[float, float]]
"""Step and value."""

COLORS = ("#3d7fd1", "#d9772b", "#2f9e63", "#b65cc0", "#a8861f", "#cf4f5f", "#2b9fb3")
"""At least 3 to 1 against both white and near black; lines differ by their dashes, too."""

DASHES = ("-", "--", "-.", ":")
SMOOTHED_ABOVE = 40
"""A curve of more points than this is drawn as a running mean over a twentieth of it, with its points behind."""

_PAGE = "#010203"
"""Stands for the page's own colour until the picture is written."""


def draw_curves(
    curves: Mapping[str, Points], name: str, label: str, resumed: Sequence[float] = (), logarithmic: bool = False
) -> str:
    """SVG of figures over the steps.

    :param name: of the picture in its page; the ids in it begin so.
    :param label: of the upright axis.
    :param resumed: steps at which the training went on after it was interrupted.
    """
    figure, axes = _figure(6.6, 3.1)
    for number, (title, points) in enumerate(curves.items()):
        _draw(axes, number, title, points)
    for place, step in enumerate(resumed):
        axes.axvline(step, color=_PAGE, linewidth=0.8, alpha=0.45, linestyle=":", label=None if place else "resumed")
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return _svg(figure, name)


def draw_reliability(curves: Mapping[str, Sequence[ReliabilityBin]], name: str) -> str:
    """SVG of how often what was told with some probability was so."""
    figure, axes = _figure(3.6, 3.1)
    axes.plot((0, 1), (0, 1), color=_PAGE, alpha=0.5, linewidth=0.8)
    for number, (title, curve) in enumerate(curves.items()):
        points = [(one.probability, one.frequency) for one in curve if one.cases]
        axes.plot(*zip(*points, strict=True), label=title, marker="o", markersize=4, **_line(number))
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.03), xlabel="probability told", ylabel="observed share")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure, name)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.grid(color=_PAGE, alpha=0.15, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _line(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number % len(DASHES)]}


def _draw(axes: Axes, number: int, title: str, points: Points) -> None:
    import pandas as pd

    steps, values = zip(*points, strict=True)
    if len(points) <= SMOOTHED_ABOVE:
        marker = "o" if len(points) < 12 else None
        axes.plot(steps, values, label=title, linewidth=1.6, marker=marker, markersize=4, **_line(number))
        return
    mean = pd.Series(values).rolling(max(3, len(points) // 20), center=True, min_periods=1).mean()
    axes.plot(steps, values, linewidth=0.7, alpha=0.3, color=_line(number)["color"])
    axes.plot(steps, mean, label=title, linewidth=1.6, **_line(number))


def _svg(figure, name: str) -> str:
    """Without what belongs to a file of its own; ids are unique in a page."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.tick_params(which="both", color=_PAGE, labelcolor=_PAGE)
        for spine in axes.spines.values():
            spine.set_edgecolor(_PAGE)
    for text in figure.findobj(Text):
        text.set_color(_PAGE)
    content = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :].replace(_PAGE, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
