"""The reliability plot: how often what was told with some probability was so."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.evaluate.tasks import Task
from training.metrics import calibration_error_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVE, _BARS, _QUIET = "#1f5fa8", "#b9cfe6", "#777777"


def draw_reliability(tasks: Sequence[Task]) -> bytes:
    """PNG with a panel for each task: the curve above, how many scans each point is of below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(tasks), 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(tasks), sharex=True, squeeze=False, gridspec_kw={"height_ratios": (3, 1)})
    for (curve, counts), task in zip(panels.T, tasks, strict=True):
        _draw_curve(curve, task)
        _draw_counts(counts, task)
    panels[0, 0].set_ylabel("observed share")
    panels[1, 0].set_ylabel("scans")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _draw_curve(axes: Axes, task: Task) -> None:
    curve = task.curve or []
    points = [(one.probability, one.frequency) for one in curve if one.cases]
    axes.plot((0, 1), (0, 1), color=_QUIET, linewidth=1, linestyle="--")
    axes.plot(*zip(*points, strict=True), color=_CURVE, marker="o", markersize=5)
    axes.set_title(f"{task.title}\nexpected calibration error {calibration_error_of(curve):.3f}", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)


def _draw_counts(axes: Axes, task: Task) -> None:
    from matplotlib.ticker import MaxNLocator

    curve = task.curve or []
    axes.bar(
        [one.low for one in curve],
        [one.cases for one in curve],
        width=[one.high - one.low for one in curve],
        align="edge",
        color=_BARS,
        edgecolor="white",
    )
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.set_xlabel("probability told")
