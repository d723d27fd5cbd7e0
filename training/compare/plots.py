"""The plots of a comparison: every arm's figures, and the differences that claims are judged by."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from training.compare.configuration import Comparison
from training.compare.findings import Figure as ArmFigure
from training.compare.findings import Findings, Judged, Verdict
from training.compare.measures import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEAN, _TRAINING, _QUIET = "#1f5fa8", "#e08a2e", "#777777"
_VERDICTS = {Verdict.HOLDS: "#2e7d32", Verdict.FAILS: "#b3261e"}


def draw_figures(comparison: Comparison, findings: Findings) -> bytes:
    """PNG with a panel for each measure: of each arm that gives it the mean with its interval, and its trainings."""
    panels = {measure: _known(comparison, findings, measure) for measure in comparison.measures}
    heights = [0.7 + 0.25 * len(arms) for arms in panels.values()]
    figure = _figure(7.2, sum(heights))
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel()
    for one, (measure, arms) in zip(axes, panels.items(), strict=True):
        _draw_measure(one, MEASURES[measure], arms)
    return _png(figure)


def _known(comparison: Comparison, findings: Findings, measure: str) -> dict[str, ArmFigure]:
    """By title the arms that give a measure."""
    figures = {arm.title: findings.figures[name][measure] for name, arm in comparison.arms.items()}
    return {title: one for title, one in figures.items() if one is not None}


def _draw_measure(axes: Axes, title: str, figures: Mapping[str, ArmFigure]) -> None:
    for place, one in enumerate(figures.values()):
        interval = one.interval
        axes.plot((interval.low, interval.high), (place, place), color=_MEAN, linewidth=2, solid_capstyle="butt")
        axes.plot(interval.value, place, "o", color=_MEAN, markersize=6)
        axes.plot(one.trainings, [place + 0.28] * len(one.trainings), "o", color=_TRAINING, markersize=3)
    axes.set_yticks(range(len(figures)), list(figures))
    axes.set_ylim(max(len(figures), 1) - 0.4, -0.6)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.25)


def draw_differences(judged: Sequence[Judged], labels: Sequence[str]) -> bytes:
    """PNG with the difference of each claim, its interval, and the margin as a grey band.

    :param labels: of the claims.
    """
    figure = _figure(7.2, 0.9 + 0.34 * len(judged))
    axes = figure.subplots()
    axes.axvline(0, color=_QUIET, linewidth=1)
    for place, one in enumerate(judged):
        margin = one.claim.margin
        axes.fill_betweenx((place - 0.35, place + 0.35), -margin, margin, color=_QUIET, alpha=0.15, linewidth=0)
        if one.difference is not None:
            found, color = one.difference, _VERDICTS.get(one.verdict, _QUIET)
            axes.plot((found.low, found.high), (place, place), color=color, linewidth=2, solid_capstyle="butt")
            axes.plot(found.value, place, "o", color=color, markersize=6)
    axes.set_yticks(range(len(judged)), labels, fontsize=8)
    axes.set_ylim(len(judged) - 0.5, -0.5)
    axes.set_xlabel("difference of the measure; band: smaller than matters", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
