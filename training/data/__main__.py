"""Look at data before training, and divide them: ``python -m training.data check ROOT``, ``... split ROOT``.

``... example DIR`` writes made-up data to try both with.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from training.data.adapters.contract import Adapter, Collection
from training.data.adapters.manifest import read_manifest
from training.data.checking.contact_sheet import MOST, contact_sheet
from training.data.checking.problems import Problem, problems_between, problems_within
from training.data.checking.table import Checked, report
from training.data.conventions import LOBE_CODES
from training.data.example import write_example
from training.data.record import Record
from training.data.registry import ADAPTERS, adapter, discover
from training.data.similarity import group_similar
from training.data.splits import fold_records, split_records

_T = TypeVar("_T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 2 when data are laid out wrongly or contradict themselves."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options, Console())
    except CovidMultitaskError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False, highlight=False)
        return error.exit_code


def check(options: argparse.Namespace, console: Console) -> int:
    """Print what was found, what is missing and what is inconsistent; draw pictures if asked.

    :raises InputError: missing, of no known layout, or laid out otherwise than the data set that was named.
    """
    checked = []
    for one, folder in _sets(options):
        collection, mistakes = _collected(one, folder, options.lobe_convention)
        found = _with_bar(console, one.title, collection.records, _within(collection.records, options.deep))
        if options.pictures is not None:
            _draw(collection.records, options.pictures, one.name, console)
        problems = (*mistakes, *found)
        checked.append(Checked(one.name, one.title, str(folder), collection.records, collection.absent, problems))
    between = problems_between([record for one in checked for record in one.records])
    console.print(report(checked, between))
    return 2 if between or any(one.problems for one in checked) else 0


def split(options: argparse.Namespace, console: Console) -> int:
    """Write a split by patient of everything under the root.

    :raises InputError: unreadable records, or too few patients.
    :raises OutputError: the file cannot be written.
    """
    records = [record for one, folder in _sets(options) for record in one.collect(folder).records]
    similar = group_similar(records)
    made = (
        fold_records(records, options.folds, options.seed, similar)
        if options.folds
        else split_records(records, seed=options.seed, similar=similar)
    )
    made.write(options.output)
    sizes = Counter({part: len(ids) for part, ids in made.parts.items()})
    console.print(", ".join(f"{part}: {count} records" for part, count in sizes.items()), highlight=False)
    console.print(f"{options.output}, SHA-256 {made.digest}", markup=False, highlight=False)
    return 0


def example(options: argparse.Namespace, console: Console) -> int:
    """Write a made-up data set. :raises OutputError: the folder cannot be written."""
    write_example(options.root, options.patients)
    console.print(f"Made-up patients: {options.root / 'manifest.csv'}", markup=False, highlight=False)
    return 0


def _sets(options: argparse.Namespace) -> list[tuple[Adapter, Path]]:
    return [(adapter(options.dataset), options.root)] if options.dataset else discover(options.root)


def _collected(one: Adapter, folder: Path, lobe_convention: str | None) -> tuple[Collection, list[Problem]]:
    """A manifest's wrong rows are problems, all of them; elsewhere the first error is the answer."""
    if one.name == "manifest":
        path = folder if folder.is_file() else folder / "manifest.csv"
        records, mistakes = read_manifest(path)
        return Collection(tuple(records)), [Problem(path.name, sentence) for sentence in mistakes]
    options = {"lobe_convention": lobe_convention} if lobe_convention and one.name == "covid19_ct_seg" else {}
    return one.collect(folder, **options), []


def _within(records: Sequence[Record], deep: bool) -> Callable[[Callable[[int], None]], list[Problem]]:
    return lambda tell: problems_within(records, deep, tell)


def _draw(records: Sequence[Record], folder: Path, name: str, console: Console) -> None:
    page = folder / f"{name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _with_bar(console, "pictures", records[:MOST], lambda tell: contact_sheet(records, page, tell))
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from error
    console.print(f"Pictures: {page}", markup=False, highlight=False)


def _with_bar(
    console: Console, title: str, records: Sequence[Record], work: Callable[[Callable[[int], None]], _T]
) -> _T:
    if not console.is_terminal:
        return work(lambda done: None)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(title, total=len(records))
        return work(lambda done: bar.update(task, completed=done))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = _command(commands, "check", check, "what a folder holds, lacks, and where it contradicts itself")
    command.add_argument("--pictures", type=Path, metavar="DIR", help="draw a page of labelled slices of each data set")
    command.add_argument("--deep", action="store_true", help="read every voxel, not headers alone")
    command.add_argument("--lobe-convention", choices=list(LOBE_CODES), help="numbering of extra lobe maps")
    command = _command(commands, "split", split, "write which records train, validate and test, by patient")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    command.add_argument("--folds", type=int, metavar="K", help="K parts for cross-validation instead of three")
    command.add_argument("--seed", type=int, default=0)
    command = commands.add_parser("example", help="write a made-up data set to try the training with")
    command.set_defaults(run=example)
    command.add_argument("root", type=Path, metavar="DIR", help="folder to write")
    command.add_argument("--patients", type=int, default=9, metavar="N")
    command.add_argument("--spacing", type=float, nargs=3, default=(5.0, 4.0, 4.0), metavar=("Z", "Y", "X"))
    return parser


def _command(commands: argparse._SubParsersAction, name: str, run: Callable, words: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=words, description=words)
    command.set_defaults(run=run)
    command.add_argument("root", type=Path, help="folder of a data set, of several, or a CSV manifest")
    command.add_argument("--dataset", metavar="NAME", help=f"one of {', '.join(sorted(ADAPTERS))}; else recognised")
    return command


if __name__ == "__main__":
    sys.exit(main())
