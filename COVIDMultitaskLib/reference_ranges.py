"""How statistics of lesions are distributed in cases of known diagnosis, as a bundle tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from COVIDMultitaskLib.labels import DIAGNOSES


@dataclass(frozen=True)
class ReferenceRange:
    """How a statistic is distributed over the cases of one class: its percentiles.

    :param cases: how many cases have it.
    """

    cases: int
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float


Reference = Mapping[str, Mapping[str, ReferenceRange]]
"""By diagnosis and statistic."""


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
    if one.cases < 1 or not all(np.isfinite(order)) or sorted(order) != list(order):
        raise ValueError("the percentiles of a reference distribution do not ascend")
    return one
