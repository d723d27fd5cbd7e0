"""Look at data before training: ``python -m training.data check ROOT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from training.data.adapters.contract import Adapter, Collection
from training.data.adapters.manifest import read_manifest
from training.data.checking.contact_sheet import contact_sheet
from training.data.checking.problems import Problem, find_problems
from training.data.checking.table import Checked, report
from training.data.conventions import LOBE_CODES
from training.data.record import Record
from training.data.registry import ADAPTERS, adapter, discover


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 2 when something is missing its layout or contradicts itself."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        checked = check(options.root, options.dataset, options.deep, options.pictures, console, options.lobe_convention)
    except CovidMultitaskError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return error.exit_code
    console.print(report(checked))
    return 2 if any(one.problems for one in checked) else 0


def check(
    root: Path,
    dataset: str | None,
    deep: bool,
    pictures: Path | None,
    console: Console,
    lobe_convention: str | None = None,
) -> list[Checked]:
    """Look at every data set under ``root``, or at the one named.

    :param pictures: folder for a contact sheet of each.
    :raises InputError: missing, of no known layout, or laid out otherwise than ``dataset``.
    """
    sets = [(adapter(dataset), root)] if dataset else discover(root)
    checked = []
    for one, folder in sets:
        collection, mistakes = _collected(one, folder, lobe_convention)
        records = collection.records
        problems = [
            *mistakes,
            *_with_bar(console, one.title, records, lambda tell, r=records: find_problems(r, deep, tell)),
        ]  # type: ignore[misc]
        if pictures is not None:
            _draw(records, pictures, one.name, console)
        checked.append(Checked(one.name, one.title, str(folder), records, collection.absent, tuple(problems)))
    return checked


def _collected(one: Adapter, folder: Path, lobe_convention: str | None) -> tuple[Collection, list[Problem]]:
    """A manifest's bad rows are problems, all of them; elsewhere the first error is the answer."""
    if one.name == "manifest":
        path = folder if folder.is_file() else folder / "manifest.csv"
        records, mistakes = read_manifest(path)
        return Collection(tuple(records)), [Problem(path.name, sentence) for sentence in mistakes]
    options = {"lobe_convention": lobe_convention} if lobe_convention and one.name == "covid19_ct_seg" else {}
    return one.collect(folder, **options), []


def _draw(records: Sequence[Record], folder: Path, name: str, console: Console) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _with_bar(console, "pictures", records[:24], lambda tell: contact_sheet(records, folder / f"{name}.png", tell))
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from error
    console.print(f"Pictures: {folder / f'{name}.png'}", markup=False)


def _with_bar(console: Console, title: str, records: Sequence[Record], work: Callable) -> list:
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(title, total=len(records))
        return work(lambda done: bar.update(task, completed=done)) or []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("check", help="what a folder holds, lacks, and where it contradicts itself")
    command.add_argument("root", type=Path, help="folder of a data set, of several, or a CSV manifest")
    command.add_argument("--dataset", metavar="NAME", help=f"one of {', '.join(sorted(ADAPTERS))}; else recognised")
    command.add_argument("--pictures", type=Path, metavar="DIR", help="draw a page of labelled slices of each data set")
    command.add_argument("--deep", action="store_true", help="read every voxel, not headers alone")
    command.add_argument("--lobe-convention", choices=list(LOBE_CODES), help="numbering of extra lobe maps")
    return parser


if __name__ == "__main__":
    sys.exit(main())
