"""From what the trainings said of the held-out scans to figures, differences and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from training.compare.configuration import Claim, Comparison
from training.compare.held_out import Scan
from training.compare.measures import CHANCE, LOWEST, MEAN, measure_of
from training.metrics import Interval, bootstrap
from training.metrics.differences import Difference, Measure, paired_difference, pseudo_values

FEWEST_TRAININGS = 3
"""Of each arm, below which no claim is decided."""

Read = Mapping[str, Sequence[Sequence[Scan]]]
"""Of each arm the held-out scans as each of its trainings saw them, in the order of the seeds."""


class Verdict(str, Enum):
    """What the interval of a difference says of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    NOT_LEARNED = "undecided: neither is better than chance"


@dataclass(frozen=True)
class Figure:
    """A measure of an arm.

    :param interval: of the mean over the trainings, by bootstrap over the patients of what each of them adds.
    :param trainings: each one's own figure, in the order of the seeds.
    """

    interval: Interval
    trainings: tuple[float, ...]

    @property
    def spread(self) -> float | None:
        """Standard deviation over the trainings; ``None`` of a single one."""
        return float(np.std(self.trainings, ddof=1)) if len(self.trainings) > 1 else None


@dataclass(frozen=True)
class Judged:
    """A claim and what became of it; ``difference`` is ``None`` where an arm does not give what is measured."""

    claim: Claim
    difference: Difference | None
    verdict: Verdict


@dataclass(frozen=True)
class Chosen:
    """Which arm to use, and by how much each other one differs from the first."""

    arm: str
    against_first: Mapping[str, Difference]


@dataclass(frozen=True)
class Findings:
    """All that a report tells.

    :param figures: by arm and measure; ``None`` where an engine does not give it.
    """

    figures: Mapping[str, Mapping[str, Figure | None]]
    judged: Sequence[Judged]
    chosen: Chosen | None


def find(comparison: Comparison, read: Read) -> Findings:
    """Measure, compare and judge.

    :param read: of all arms, with as many trainings each, of the same scans.
    """
    first = next(iter(read.values()))[0]
    patients = [scan.answers.drawn_with for scan in first]
    table = _Table(read, patients, comparison.measures)
    figures = {arm: {name: table.figure(arm, name) for name in shown(comparison)} for arm in comparison.arms}
    judged = [_judged(claim, table) for claim in comparison.claims]
    return Findings(figures, judged, _chosen(comparison, table))


def shown(comparison: Comparison) -> list[str]:
    """The measures of a report: those listed, and their mean where something is judged by it."""
    judged_by = [claim.measure for claim in comparison.claims]
    judged_by += [comparison.choice.measure] if comparison.choice else []
    return [*comparison.measures, *([MEAN] if MEAN in judged_by else [])]


class _Table:
    """Measures of all trainings; computed once."""

    def __init__(self, read: Read, patients: Sequence[str], listed: Sequence[str]) -> None:
        self._read, self._patients, self._listed = read, patients, listed
        self._measures: dict[tuple[str, str], list[Measure] | None] = {}

    def measures(self, arm: str, name: str) -> list[Measure] | None:
        """Of each training; ``None`` where the engine does not give it."""
        if (arm, name) not in self._measures:
            made = [measure_of(name, scans, self._listed) for scans in self._read[arm]]
            known = [one for one in made if one is not None]
            self._measures[arm, name] = known if len(known) == len(made) else None
        return self._measures[arm, name]

    def figure(self, arm: str, name: str) -> Figure | None:
        measures = self.measures(arm, name)
        values = [pseudo_values(measure, self._patients) for measure in measures or []]
        known = [one for one in values if one is not None]
        if not known or len(known) < len(values):
            return None
        interval = bootstrap(list(np.mean(known, 0)))
        low, high = (min(max(end, LOWEST.get(name, 0.0)), 1.0) for end in (interval.low, interval.high))
        return Figure(replace(interval, low=low, high=high), tuple(float(one.mean()) for one in known))

    def difference(self, arm: str, against: str, name: str) -> Difference | None:
        one, other = self.measures(arm, name), self.measures(against, name)
        if one is None or other is None:
            return None
        return paired_difference(list(zip(one, other, strict=True)), self._patients)


def _judged(claim: Claim, table: _Table) -> Judged:
    difference = table.difference(claim.arm, claim.against, claim.measure)
    if difference is None:
        return Judged(claim, None, Verdict.UNDECIDED)
    figures = [table.figure(arm, claim.measure) for arm in (claim.arm, claim.against)]
    verdict = verdict_on(claim, difference) if _some_is_better_than_chance(claim, figures) else Verdict.NOT_LEARNED
    return Judged(claim, difference, verdict)


def _some_is_better_than_chance(claim: Claim, figures: Sequence[Figure | None]) -> bool:
    """Whether there is something to judge: of two arms that know nothing, neither can be the better one.

    True of measures without a level of chance.
    """
    chance = CHANCE.get(claim.measure.rpartition(".")[2])
    return chance is None or any(one is not None and one.interval.low > chance for one in figures)


def verdict_on(claim: Claim, difference: Difference) -> Verdict:
    """What a difference's interval says of a claim.

    "more" holds when the whole interval is above 0, and does not when it is below 0 or leaves no room for a difference
    that matters. "no_less" holds when the whole interval is above minus the margin, and does not when it is below.
    With fewer than three trainings an arm nothing is decided.
    """
    if difference.trainings < FEWEST_TRAININGS:
        return Verdict.UNDECIDED
    holds_above, fails_below = (0.0, claim.margin) if claim.goal == "more" else (-claim.margin, -claim.margin)
    if difference.low > holds_above:
        return Verdict.HOLDS
    return Verdict.FAILS if difference.high < fails_below else Verdict.UNDECIDED


def _chosen(comparison: Comparison, table: _Table) -> Chosen | None:
    if comparison.choice is None:
        return None
    first, *others = comparison.choice.among
    found = {other: table.difference(other, first, comparison.choice.measure) for other in others}
    known = {other: one for other, one in found.items() if one is not None}
    better = {other: one.value for other, one in known.items() if one.low > 0 and one.trainings >= FEWEST_TRAININGS}
    return Chosen(max(better, key=lambda arm: better[arm]) if better else first, known)
