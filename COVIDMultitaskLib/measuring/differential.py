"""What about the lesions may tell one disease from another, beside what each disease usually shows.

DeepSC-COVID (Wang X. et al., IEEE TMI 40(9), 2021) rests on four published findings about how the lesions of
COVID-19 and of community-acquired pneumonia differ; their wording is not known to us, and we state none. What is
measured here is what radiology expects to differ: count, size, place, density and boundary. Whether it does differ,
a study can tell from its own cases, with :func:`reference_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from COVIDMultitaskLib.findings import LesionFindings, LesionStatistic, LobeFindings, RegionFindings
from COVIDMultitaskLib.labels import DIAGNOSES, LOBES
from COVIDMultitaskLib.reference_ranges import Reference, ReferenceRange

PERCENTILES = (5, 25, 50, 75, 95)
LEAST_CASES = 5
"""Fewer cases of a class make no distribution."""


class Measured(Protocol):
    """What the statistics are read from: ``Findings``, or ``MaskMeasures`` of corrected masks."""

    @property
    def lobes(self) -> tuple[LobeFindings, ...] | None:
        """By lobe; None where not assessed."""
        ...

    @property
    def lungs(self) -> tuple[RegionFindings, ...] | None:
        """Left and right lung; None where not assessed."""
        ...

    @property
    def total(self) -> RegionFindings | None:
        """Both lungs; None where not assessed."""
        ...

    @property
    def lesions(self) -> LesionFindings | None:
        """The lesions; None where not assessed."""
        ...


@dataclass(frozen=True)
class Statistic:
    """One number about a scan's lesions; ``value`` gives None where it cannot be told."""

    key: str
    name: str
    unit: str
    value: Callable[[Measured], float | None]


def _of_lesions(field: str) -> Callable[[Measured], float | None]:
    def value(findings: Measured) -> float | None:
        found = getattr(findings.lesions, field, None)
        return None if found is None else float(found)

    return value


def _of_total(field: str) -> Callable[[Measured], float | None]:
    return lambda findings: getattr(findings.total, field, None)


def _share_of(part: Callable[[Measured], float | None]) -> Callable[[Measured], float | None]:
    """Percentage of the whole lesion volume; None without lesions."""

    def value(findings: Measured) -> float | None:
        whole, volume = _of_total("lesion_volume_ml")(findings), part(findings)
        return None if not whole or volume is None else 100.0 * volume / whole

    return value


def _lesion_ml(key: str) -> Callable[[Measured], float | None]:
    """Lesion volume of a lobe or lung."""

    def value(findings: Measured) -> float | None:
        regions = (*(findings.lobes or ()), *(findings.lungs or ()))
        return next((region.lesion_volume_ml for region in regions if region.key == key), None)

    return value


STATISTICS: tuple[Statistic, ...] = (
    Statistic("count", "Lesions above 50 mm³", "", _of_lesions("count")),
    Statistic("volume_ml", "Lesion volume", "ml", _of_total("lesion_volume_ml")),
    Statistic("affected_percent", "Affected", "% of the lungs", _of_total("lesion_percent")),
    Statistic("largest_percent", "In the largest lesion", "%", _of_lesions("largest_percent")),
    Statistic("bilateral", "Both lungs affected", "", _of_lesions("bilateral")),
    Statistic("left_percent", "In the left lung", "%", _share_of(_lesion_ml("left"))),
    *(
        Statistic(
            f"{lobe.key}_percent", f"In the {lobe.name[0].lower()}{lobe.name[1:]}", "%", _share_of(_lesion_ml(lobe.key))
        )
        for lobe in LOBES
    ),
    Statistic("peripheral_percent", "Peripheral", "%", _of_lesions("peripheral_percent")),
    Statistic("dorsal_percent", "Dorsal", "%", _of_lesions("dorsal_percent")),
    Statistic("height_percent", "Height in the lung", "%", _of_lesions("height_percent")),
    Statistic("mean_hu", "Mean density", "HU", _of_total("mean_lesion_hu")),
    Statistic("consolidation_percent", "Consolidation", "%", _share_of(_of_total("consolidation_volume_ml"))),
    Statistic("boundary_gradient", "Rise at the boundary", "HU/mm", _of_lesions("boundary_gradient_hu_per_mm")),
)


def lesion_statistics(findings: Measured) -> dict[str, float | None]:
    """All ``STATISTICS`` of a scan, by key."""
    return {statistic.key: statistic.value(findings) for statistic in STATISTICS}


class KnownCase(NamedTuple):
    """A case of known diagnosis.

    :param diagnosis: one of ``labels.DIAGNOSES``.
    :param findings: of a scan whose lesions were assessed.
    """

    diagnosis: str
    findings: Measured
    is_simulated: bool = False


def reference_of(cases: Iterable[KnownCase]) -> dict[str, dict[str, ReferenceRange]]:
    """How each statistic is distributed in each class.

    :return: classes and statistics of at least ``LEAST_CASES`` cases in which they can be told.
    :raises ValueError: for another diagnosis.
    """
    values: dict[str, dict[str, list[tuple[float, bool]]]] = {}
    for diagnosis, findings, is_simulated in cases:
        if diagnosis not in DIAGNOSES:
            raise ValueError(f"there is no diagnosis {diagnosis!r}; expected one of {', '.join(DIAGNOSES)}")
        for key, value in lesion_statistics(findings).items():
            if value is not None:
                values.setdefault(diagnosis, {}).setdefault(key, []).append((value, is_simulated))
    return {
        diagnosis: {key: _range(found) for key, found in of_class.items() if len(found) >= LEAST_CASES}
        for diagnosis, of_class in values.items()
    }


def _range(found: list[tuple[float, bool]]) -> ReferenceRange:
    """:param found: values, and whether each is of a simulated case."""
    p5, p25, p50, p75, p95 = (round(float(p), 4) for p in np.percentile([value for value, _ in found], PERCENTILES))
    return ReferenceRange(len(found), p5, p25, p50, p75, p95, sum(is_simulated for _, is_simulated in found))


def compare(findings: Measured, reference: Reference) -> tuple[LesionStatistic, ...]:
    """The scan's statistics beside their distributions; those that no class of the reference knows are left out."""
    values = _shown(findings)
    rows = []
    for statistic in STATISTICS:
        known = {name: reference[name][statistic.key] for name in DIAGNOSES if statistic.key in reference.get(name, {})}
        if known:
            rows.append(LesionStatistic(statistic.key, statistic.name, statistic.unit, values[statistic.key], known))
    return tuple(rows)


def compare_again(rows: Iterable[Mapping[str, Any]], measured: Measured) -> list[dict[str, Any]]:
    """The rows of a stored comparison (``differential`` of ``findings.json``) with the values of corrected masks."""
    values = _shown(measured)
    return [{**row, "value": values.get(row["key"])} for row in rows]


def _shown(findings: Measured) -> dict[str, float | None]:
    return {key: None if value is None else round(value, 4) for key, value in lesion_statistics(findings).items()}
