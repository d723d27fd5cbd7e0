"""Scores that stand for a percentage of affected lung."""

from __future__ import annotations


def lobe_score(lesion_percent: float) -> int:
    """A lobe's share, 0..5, of the CT severity score.

    0 none, 1 below 5 %, 2 from 5 to 25 %, 3 above 25 and below 50 %, 4 from 50 to 75 %,
    5 above 75 %.

    >>> [lobe_score(p) for p in (0, 4.9, 5, 25, 25.1, 50, 75, 75.1)]
    [0, 1, 2, 2, 3, 4, 4, 5]
    """
    if lesion_percent <= 0:
        return 0
    passed = (lesion_percent >= 5, lesion_percent > 25, lesion_percent >= 50, lesion_percent > 75)
    return 1 + sum(passed)


def ct_grade(worst_lung_percent: float) -> int:
    """CT-0 .. CT-4 as in MosMedData: none, up to 25, up to 50, up to 75 %, above.

    >>> [ct_grade(p) for p in (0, 0.1, 25, 50, 75, 75.1)]
    [0, 1, 1, 2, 3, 4]
    """
    return sum(worst_lung_percent > limit for limit in (0, 25, 50, 75))
