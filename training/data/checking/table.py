"""The report of a check as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from training.data.checking.problems import Problem
from training.data.record import LesionKind, Record

MOST_LINES = 20


@dataclass(frozen=True)
class Checked:
    """One data set that was looked at."""

    name: str
    title: str
    root: str
    records: tuple[Record, ...]
    absent: tuple[str, ...]
    problems: tuple[Problem, ...]


def report(checked: Sequence[Checked], between: Sequence[Problem] = ()) -> RenderableType:
    """What was found, what is missing and what is inconsistent.

    :param between: problems between records, of whatever data set.
    """
    parts: list[RenderableType] = [_found(checked)]
    missing = [(one.name, sentence) for one in checked for sentence in one.absent]
    within = [problem for one in checked for problem in one.problems]
    problems = [(problem.where, problem.sentence) for problem in (*between, *within)]
    parts.append(_sentences("Missing", missing, "yellow"))
    parts.append(_sentences("Inconsistent", problems, "red"))
    return Group(*parts)


def _found(checked: Sequence[Checked]) -> Table:
    table = Table(title="Found", title_justify="left", title_style="bold", show_lines=True)
    for name in ("data set", "records", "labels"):
        table.add_column(name)
    for one in checked:
        licences = ", ".join(sorted({record.licence for record in one.records}))
        title = Text.assemble((one.title, "bold"), f"\n{one.root}\n", (licences, "dim"), overflow="fold")
        table.add_row(title, "\n".join(_records(one.records)), "\n".join(_labels(one.records)))
    return table


def _records(records: Sequence[Record]) -> list[str]:
    lines = [f"{len(records)} records", _patients(records)]
    intensities = Counter(record.intensity.value for record in records if record.image)
    lines += [f"{count} images, {name}" for name, count in sorted(intensities.items())] or ["no image"]
    parts = Counter(record.split for record in records if record.split)
    return lines + [f"{count} prescribed to {part}" for part, count in sorted(parts.items())]


def _patients(records: Sequence[Record]) -> str:
    known = len({record.patient_id for record in records if record.patient_id})
    unknown = sum(record.patient_id is None for record in records)
    if not unknown:
        return f"{known} patients"
    return f"{known} patients, {unknown} records of unknown ones" if known else "patients unknown"


def _labels(records: Sequence[Record]) -> list[str]:
    """One line for each kind of label that is there."""
    in_classes = sum(record.lesion_kind is LesionKind.CLASSES for record in records)
    counts = {
        "lobe maps": sum(record.lobes is not None for record in records),
        "lung masks": sum(record.lungs is not None for record in records),
        f"lesion masks, {in_classes} in classes": sum(bool(one.lesions and one.lesions.parts) for one in records),
        "known to have no lesion": sum(one.lesions is not None and not one.lesions.parts for one in records),
        "with slice flags": sum(record.slice_flags is not None for record in records),
        "with lobe flags": sum(record.lobe_flags is not None for record in records),
    }
    lines = [f"{count} {name}" for name, count in counts.items() if count]
    covid = Counter(record.diagnosis or "not covid_19" for record in records if record.covid is not None)
    severity = Counter(record.severity for record in records if record.severity)
    grades = Counter(f"CT-{record.ct_grade}" for record in records if record.ct_grade is not None)
    return [*lines, *(_counted(one) for one in (covid, severity, grades) if one)] or ["none"]


def _counted(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _sentences(title: str, lines: list[tuple[str, str]], style: str) -> RenderableType:
    if not lines:
        return Text(f"{title}: nothing\n", style="bold green")
    table = Table(title=f"{title} ({len(lines)})", title_justify="left", title_style=f"bold {style}", show_header=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for where, sentence in lines[:MOST_LINES]:
        table.add_row(where, sentence)
    if len(lines) > MOST_LINES:
        table.add_row("", f"and {len(lines) - MOST_LINES} more")
    return table
