"""What the commands print, and how their results reach the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from COVIDMultitaskLib.engines.contract import EngineIdentity
from COVIDMultitaskLib.errors import OutputError
from COVIDMultitaskLib.labels import DIAGNOSIS_NAMES
from COVIDMultitaskLib.writing import write_json
from training.evaluate.records import WHERE_THERE
from training.metrics import Interval

_T = TypeVar("_T")
_WRITTEN = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "f1": "F1", "dice": "Dice", "hausdorff_95_mm": "HD95 (mm)",
            "mae": "MAE", "percentile_95": "95th percentile", "2_percent": "2 %"}  # fmt: skip
Failures = Sequence[tuple[str, str]]
"""Names of what could not be measured, each with a sentence."""


def tracked(items: Iterable[_T], title: str) -> Iterator[_T]:
    """The items, with a progress bar on standard error where that is a terminal."""
    console = Console(stderr=True)
    yield from track(items, title, console=console, transient=True, disable=not console.is_terminal)


def measures_table(
    title: str,
    rows: Mapping[str, Mapping[str, Interval | None]],
    columns: Mapping[str, str],
    empty: Mapping[str, int],
    drawn: str = "patients",
) -> Table:
    """A line for each class: means, with their intervals below.

    :param columns: key of a measure to its heading.
    :param empty: number of empty references by class.
    :param drawn: whom the intervals draw with all their cases: "patients", or "shapes" of simulated scans.
    """
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left", box=box.SIMPLE_HEAD)
    table.padding, table.pad_edge, table.collapse_padding = (0, 1), False, True  # so that it fits into 80 columns
    table.caption = (
        f"Below each mean its 95 % bootstrap interval. n: cases, /{drawn} where they have several. "
        "Empty: references without the class."
    )
    table.add_column("class", no_wrap=True)
    for heading in (*columns.values(), "n", "empty"):
        table.add_column(heading, justify="right")
    for name, measures in rows.items():
        counted = next((one for one in measures.values() if one), None)
        table.add_row(name, *(in_two_lines(measures[key]) for key in columns), _count(counted), str(empty[name]))
    return table


def _count(interval: Interval | None) -> str:
    if interval is None:
        return "0"
    same = interval.cases == interval.patients
    return str(interval.cases) if same else f"{interval.cases}/{interval.patients}"


def in_words(measure: str) -> str:
    """A measure's name as people write it; of one class against the others: "ROC AUC, COVID-19"."""
    if measure.startswith("tool_"):
        return f"{in_words(measure.removeprefix('tool_'))}, as the released tool"
    if measure.endswith(WHERE_THERE):
        return f"{in_words(measure.removesuffix(WHERE_THERE))} where the class is there"
    for key, name in DIAGNOSIS_NAMES.items():
        measure = measure.replace(f"_{key}", f", {name}")
    for written, words in _WRITTEN.items():
        measure = measure.replace(written, words)
    return measure.replace("_", " ")


def in_two_lines(interval: Interval | None) -> str:
    """A figure with its interval below."""
    return "-" if interval is None else f"{interval.value:.3f}\n[dim]{interval.low:.3f}-{interval.high:.3f}[/dim]"


def print_weights(console: Console, identity: EngineIdentity) -> None:
    """Which weights were measured and what they were trained on: no figure is worth anything without."""
    words = f"Weights: {identity.bundle} {identity.version} ({identity.engine}), trained on {identity.trained_on}"
    console.print(words, markup=False, highlight=False)


def print_failures(console: Console, failures: Failures, tried: int) -> None:
    """What could not be measured, and why."""
    if not failures:
        return
    console.print(f"{len(failures)} of {tried} could not be measured:", style="bold red", highlight=False)
    for name, sentence in failures:
        console.print(f"  {name}: {sentence}", markup=False, highlight=False, soft_wrap=True)


def as_plain(intervals: Mapping[str, Interval | None]) -> dict[str, Any]:
    """For JSON."""
    return {name: None if interval is None else asdict(interval) for name, interval in intervals.items()}


def report(identity: EngineIdentity, command: str, **results: Any) -> dict[str, Any]:
    """The document a command writes: the weights, the command as it was typed, and what was measured."""
    return {"weights": asdict(identity), "command": command, **results}


def save_report(document: Mapping[str, Any], path: Path | None, console: Console) -> None:
    """Write the document where one is wanted. :raises OutputError: when it cannot be written."""
    if path is None:
        return
    make_folder(path.parent)
    write_json(document, path)
    console.print(f"Written to {path}", markup=False, highlight=False, soft_wrap=True)


def make_folder(path: Path) -> Path:
    """Create a folder, those above it included. :raises OutputError: when it cannot be created."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {path} cannot be created ({error.strerror}); give another.") from error
    return path
