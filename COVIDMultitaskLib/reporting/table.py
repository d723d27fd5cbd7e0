"""Findings as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from COVIDMultitaskLib.findings import (
    COVID_ALONE,
    NOT_ASSESSED,
    Findings,
    LesionFindings,
    LesionStatistic,
    PictureFindings,
    RegionFindings,
)
from COVIDMultitaskLib.labels import DIAGNOSES, DIAGNOSIS_NAMES
from COVIDMultitaskLib.reference_ranges import ReferenceRange, scans_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_FIGURES = (
    ("Volume\nml", "volume_ml", 0),
    ("Lesion\nml", "lesion_volume_ml", 1),
    ("Lesion\n%", "lesion_percent", 1),
    ("Ground\nglass %", "ground_glass_percent", 1),
    ("Consol.\n%", "consolidation_percent", 1),
    ("Mean\nHU", "mean_lesion_hu", 0),
    ("Score", "score", 0),
)
_COMPARED = ("volume_ml", "lesion_volume_ml", "lesion_percent", "score")


def print_findings(findings: Findings, console: Console, truth: Findings | None = None) -> None:
    """Print findings to a rich console.

    :param truth: findings of the known labels of a phantom, shown beside what was found.
    """
    if findings.picture is not None:
        console.print(_picture_table(findings, findings.picture))
    else:
        if any(_regions(findings)):
            console.print(_regions_table(findings, truth))
        console.print(_summary_table(findings, truth))
    if findings.differential:
        console.print(_differential_table(findings.differential))
    for flag in findings.remarks:
        style = "yellow" if flag.level == "warning" else "dim"
        console.print(f"{'!' if flag.level == 'warning' else '-'} {flag.message}", style=style, markup=False)
    console.print(findings.notice, style="dim", markup=False)


def _regions_table(findings: Findings, truth: Findings | None) -> Table:
    table = _table("Lobes and lungs")
    table.add_column("Region", no_wrap=True)
    keys = [region.key for region in _regions(findings)]
    known = {region.key: region for region in _regions(truth) if region.key in keys} if truth else {}
    figures = [figure for figure in _FIGURES if truth is None or figure[1] in _COMPARED]
    figures = [figure for figure in figures if _is_told(figure[1], (*_regions(findings), *known.values()))]
    for name, _, _ in figures:
        table.add_column(name if truth is None else f"{name} (true)", justify="right", no_wrap=True)
    for region in _regions(findings):
        cells = []
        for _, field, digits in figures:
            found = _number(getattr(region, field, None), digits)
            true = _number(getattr(known.get(region.key), field, None), digits)
            cells.append(found if truth is None else f"{found} ({true})")
        table.add_row(region.name, *cells, end_section=region.key in ("right_lower", "right"))
    return table


def _is_told(field: str, regions: Iterable[RegionFindings]) -> bool:
    """Whether any region has that figure: a column of dashes says nothing."""
    return any(getattr(region, field, None) is not None for region in regions)


def _regions(findings: Findings) -> Iterator[RegionFindings]:
    yield from findings.lobes or ()
    yield from findings.lungs or ()
    if findings.total is not None:
        yield findings.total


def _summary_table(findings: Findings, truth: Findings | None) -> Table:
    table = _table("Whole scan")
    table.add_column("Finding", no_wrap=True)
    table.add_column("Value")
    if truth is not None:
        table.add_column("True", style="dim")
    known = {name: "–" if value == NOT_ASSESSED else value for name, value in _summary(truth)} if truth else {}
    for name, value in _summary(findings):
        table.add_row(name, value, *([known.get(name, "–")] if truth is not None else []))
    return table


def _summary(findings: Findings) -> Iterator[tuple[str, str]]:
    """Name and value of what is told of the scan as a whole; what needs a missing answer is one line."""
    severe = findings.severity
    yield "Severe", NOT_ASSESSED if severe is None else f"{100 * severe['severe']:.0f} %"
    yield "Diagnosis", _diagnosis(findings)
    if findings.lobes is None:
        yield "Lobes", NOT_ASSESSED
    if findings.lesions is None:
        yield "Lesions, extent, CT scores", NOT_ASSESSED
        return
    yield from _extent(findings)
    yield from _lesion_summary(findings.lesions)
    if findings.lungs is None:
        yield "Place in the lungs", NOT_ASSESSED
    else:
        yield from _places(findings.lesions)


def _extent(findings: Findings) -> Iterator[tuple[str, str]]:
    worst, score, grade = findings.worst_lung_percent, findings.ct_severity_score, findings.ct_grade
    yield "Worst lung", NOT_ASSESSED if worst is None else _with_unit(worst, "%")
    yield "Affected, by probability", _estimate(findings)
    yield "CT severity score", NOT_ASSESSED if score is None else f"{score} of 25"
    yield "CT grade", NOT_ASSESSED if grade is None else f"CT-{grade}"


def _picture_table(findings: Findings, picture: PictureFindings) -> Table:
    table = _table("Picture")
    table.add_column("Finding", no_wrap=True)
    table.add_column("Value")
    table.add_row("Size", f"{picture.width_px} x {picture.height_px} pixels")
    table.add_row("Diagnosis", _diagnosis(findings))
    if picture.lesion_count is None:
        table.add_row("Lesions", NOT_ASSESSED)
        return table
    share = picture.lesion_percent_of_lungs
    table.add_row("Pieces of lesion", f"{picture.lesion_count}")
    table.add_row("Affected share of the picture", _with_unit(picture.lesion_percent_of_picture, "%"))
    table.add_row("Affected share of the lungs", NOT_ASSESSED if share is None else _with_unit(share, "%"))
    return table


def _differential_table(statistics: tuple[LesionStatistic, ...]) -> Table:
    """The scan's lesions beside the median and the middle 90 % of scans of each diagnosis."""
    scans = scans_of(asdict(one) for row in statistics for one in row.reference.values())
    table = _table(f"Lesions beside those of held-out {scans}: median (5 to 95 %)")
    here = {row.key: _number(row.value, _digits(row)) for row in statistics}
    table.add_column("Statistic")
    table.add_column("Here", justify="right", no_wrap=True, min_width=max(map(len, here.values())))
    known = [key for key in DIAGNOSES if any(key in row.reference for row in statistics)]
    for key in known:
        cases = max(row.reference[key].cases for row in statistics if key in row.reference)
        table.add_column(f"{DIAGNOSIS_NAMES[key]}\n{cases} scans", justify="right")
    for row in statistics:
        cells = [_range(row.reference.get(key), _digits(row)) for key in known]
        unit = f", {row.unit}" if row.unit else ""
        table.add_row(f"{row.name}{unit}", here[row.key], *cells)
    return table


_WHOLE_NUMBERS = ("count", "bilateral")


def _digits(row: LesionStatistic) -> int:
    return 0 if row.key in _WHOLE_NUMBERS else 1


def _range(found: ReferenceRange | None, digits: int) -> str:
    if found is None:
        return "–"
    return f"{_number(found.p50, digits)} ({_number(found.p5, digits)} to {_number(found.p95, digits)})"


def _estimate(findings: Findings) -> str:
    total = (findings.affected_estimate or {}).get("total")
    if total is None:
        return NOT_ASSESSED
    low, high = _number(total.low_percent, 1), _number(total.high_percent, 1)
    return f"{_number(total.expected_percent, 1)} % (90 %: {low} to {high} %)"


def _diagnosis(findings: Findings) -> str:
    if findings.covid_probability is not None:
        return f"{DIAGNOSIS_NAMES['covid_19']} {100 * findings.covid_probability:.0f} %. {COVID_ALONE}"
    if findings.diagnosis is None:
        return NOT_ASSESSED
    order = sorted(DIAGNOSES, key=lambda key: -findings.diagnosis[key])  # type: ignore[index]
    shares = {key: f"{100 * findings.diagnosis[key]:.0f} %" for key in order}
    return ", ".join(f"{DIAGNOSIS_NAMES[key]} {share}" for key, share in shares.items() if share != "0 %")


def _lesion_summary(lesions: LesionFindings) -> Iterator[tuple[str, str]]:
    yield "Lesions", f"{lesions.count} above 50 mm³"
    yield "Largest lesion", _with_unit(lesions.largest_volume_ml, "ml")


def _places(lesions: LesionFindings) -> Iterator[tuple[str, str]]:
    """Where in the lungs; a dash where there is no lesion to tell it of."""
    yield "Both lungs affected", {True: "yes", False: "no", None: "–"}[lesions.bilateral]
    yield "Peripheral", _with_unit(lesions.peripheral_percent, "%")
    yield "Dorsal", _with_unit(lesions.dorsal_percent, "%")
    thirds = (lesions.upper_third_percent, lesions.middle_third_percent, lesions.lower_third_percent)
    yield "Upper / middle / lower third", " / ".join(_with_unit(third, "%") for third in thirds)


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _with_unit(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{_number(value, 1)} {unit}"
