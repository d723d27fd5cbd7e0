"""Severity, grade, diagnosis and affected percentage of the scans in a CSV manifest.

The engine runs on each scan as a user would run it. A scan that cannot be analysed is listed, and the others go
on. What was found in a scan is kept beside the results: the same command, given again, goes on where it was.
Written to the output folder: ``cases.csv`` (a line for each scan), ``measures.json`` and ``reliability.png``.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from COVIDMultitaskLib.bundles import SUMS, shipped_bundles
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import BundleError, Cancelled, InputError, OutputError, explain
from COVIDMultitaskLib.writing import write_bytes, write_text
from training.data.adapters.manifest import read_manifest
from training.evaluate.answers import Answers, KeptAnswers, as_line
from training.evaluate.records import of_part
from training.evaluate.reliability import draw_reliability
from training.evaluate.showing import (
    Failures,
    make_folder,
    print_failures,
    print_weights,
    report,
    save_report,
    tracked,
)
from training.evaluate.tasks import Task, measure_tasks, tasks_of

CASES_FILE, MEASURES_FILE, CURVES_FILE, KEPT_FOLDER = "cases.csv", "measures.json", "reliability.png", "kept"


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``cohort``."""
    command.set_defaults(run=run)
    command.add_argument("--manifest", type=Path, required=True, help="CSV file, see training/data/README.md")
    command.add_argument("--output", type=Path, default=Path("cohort"), help="folder of the results (default: cohort)")
    command.add_argument("--json", type=Path, metavar="FILE", help=f"write {MEASURES_FILE} there too")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, print and write. Returns 2 when a scan could not be analysed.

    :raises InputError: no table, no scan that could be analysed, or nothing that could be compared.
    :raises OutputError: when a result cannot be written.
    """
    engine = make_engine(options.engine, options.bundle, options.device)
    records, mistakes = read_manifest(options.manifest)
    if options.split:
        records = of_part(records, lambda record: record.id, options.split, options.part)
    bundles = [*([options.bundle] if options.bundle else []), *shipped_bundles()]
    digests = [(bundle / SUMS).read_text(encoding="utf-8") for bundle in bundles]
    kept = KeptAnswers(make_folder(options.output / KEPT_FOLDER), engine, digests)
    answered: list[Answers] = []
    failures = [(options.manifest.name, sentence) for sentence in mistakes]
    for record in tracked(records, "Scans"):
        try:
            answered.append(kept.get(record))
        except (BundleError, Cancelled, OutputError):
            raise
        except Exception as error:  # whatever is wrong with one scan, the others can be measured
            failures.append((record.id, explain(error)[0]))
    write_text(cases_table(answered, failures), options.output / CASES_FILE)
    print_weights(console, engine.identity)
    print_failures(console, failures, len(records) + len(mistakes))
    _measure(tasks_of(answered), answered, failures, options, kept, console)
    return 2 if failures else 0


def _measure(
    tasks: Sequence[Task],
    answered: Sequence[Answers],
    failures: Failures,
    options: argparse.Namespace,
    kept: KeptAnswers,
    console: Console,
) -> None:
    """Measure each task, print it, and write all."""
    identity = kept.engine.identity
    if not answered:
        raise InputError(f"No scan of {options.manifest.name} could be analysed; see {options.output / CASES_FILE}.")
    if not tasks:
        raise InputError(
            f"{options.manifest.name} tells nothing that the engine {identity.engine} answers; fill severity, "
            "ct_grade, diagnosis, covid, or lesions and lungs."
        )
    plain = measure_tasks(tasks, console)
    curves = [task for task in tasks if task.curve is not None]
    if curves:
        write_bytes(draw_reliability(curves), options.output / CURVES_FILE)
    document = report(identity, options.command, scans=len(answered), failures=dict(failures), tasks=plain)
    save_report(document, options.output / MEASURES_FILE, console)
    save_report(document, options.json, console)


def cases_table(answered: Sequence[Answers], failures: Failures) -> str:
    """CSV with a line for each scan, those with a problem last; empty cells are unknown."""
    text = io.StringIO()
    columns = [*as_line(Answers("", None)), "problem"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_line(one) for one in answered)
    writer.writerows({"id": name, "problem": sentence} for name, sentence in failures)
    return text.getvalue()
