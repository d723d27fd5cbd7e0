"""How statistics of lesions are distributed in cases of known diagnosis, as a bundle tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from COVIDMultitaskLib.labels import DIAGNOSES


@dataclass(frozen=True)
class ReferenceRange:
    """How a statistic is distributed over the cases of one class: its percentiles.

    :param cases: how many cases have it.
    :param simulated: how many of these are simulated.
    """

    cases: int
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    simulated: int = 0


Reference = Mapping[str, Mapping[str, ReferenceRange]]
"""By diagnosis and statistic."""


def scans_of(ranges: Iterable[Mapping[str, Any]]) -> str:
    """What kind of scans distributions are of, in words.

    :param ranges: as :func:`dataclasses.asdict` gives them.

    >>> scans_of([{"cases": 9, "simulated": 9}]), scans_of([{"cases": 9}])
    ('simulated scans', 'scans')
    """
    shares = {one.get("simulated", 0) / one["cases"] for one in ranges}
    if shares <= {1.0}:
        return "simulated scans"
    return "scans, some of them simulated" if shares != {0.0} else "scans"


def read_reference(told: Mapping[str, Any]) -> dict[str, dict[str, ReferenceRange]]:
    """The distributions that a bundle tells, as :func:`dataclasses.asdict` wrote them.

    :raises KeyError, TypeError, ValueError: when they make no sense.
    """
    return {
        diagnosis: {key: _checked(ReferenceRange(**one)) for key, one in of_class.items()}
        for diagnosis, of_class in told.items()
        if DIAGNOSES.index(diagnosis) >= 0
    }


def _checked(one: ReferenceRange) -> ReferenceRange:
    order = (one.p5, one.p25, one.p50, one.p75, one.p95)
    if not 0 <= one.simulated <= one.cases:
        raise ValueError("a reference distribution has more simulated cases than cases")
    if one.cases < 1 or not all(np.isfinite(order)) or sorted(order) != list(order):
        raise ValueError("the percentiles of a reference distribution do not ascend")
    return one
