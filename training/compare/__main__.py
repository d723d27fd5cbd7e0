"""Compare all engines and their ablations: ``python -m training.compare``; or what a file says, given as an argument.

Each arm is trained with each seed on the same data and budget, in a run folder of its own, and asked about the same
held-out scans. Killed and started again, it goes on where it was. Written to the output folder: ``report.md`` with
its plots, ``report.html``, which is one file, and ``findings.json``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from COVIDMultitaskLib.errors import Cancelled, CovidMultitaskError, InputError, explain
from training.configuration import DATA_VARIABLE

ENGINES = Path(__file__).parents[1] / "configs" / "compare_engines.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compare and write the report; returns 0, or another number after one sentence that says what is wrong."""
    options = _parser().parse_args(arguments)
    if options.data:
        os.environ[DATA_VARIABLE] = str(options.data)
    try:
        _compare(options)
    except (CovidMultitaskError, MemoryError) as error:
        sentence, code = explain(error)
    except KeyboardInterrupt:
        sentence, code = "Stopped; the same command goes on from here.", Cancelled.exit_code
    else:
        return 0
    print(sentence, file=sys.stderr)
    return code


def _compare(options: argparse.Namespace) -> None:
    from training.compare.configuration import read_comparison
    from training.compare.findings import find
    from training.compare.report import write_report
    from training.compare.trainings import read_all, train_all, trainings_of, whole_seeds

    comparison = read_comparison(options.comparison, options.set, options.smoke)
    name = f"{comparison.name}-smoke" if options.smoke else comparison.name
    folder = options.output or Path("runs", "compare", name)
    trainings = trainings_of(comparison, folder)
    if not options.report_only:
        train_all(trainings, options.processes)
    seeds = whole_seeds(comparison, trainings)
    if not seeds:
        raise InputError(f"{folder} holds no seed with which all arms are trained; run the same without --report-only.")
    findings = find(comparison, read_all(trainings, seeds))
    target = options.report or folder
    write_report(comparison, findings, [one for one in trainings if one.seed in seeds], _command(options), target)
    print(f"Report: {target / 'report.md'}, {target / 'report.html'}")


def _command(options: argparse.Namespace) -> str:
    """What reproduces the report, wherever its folders are."""
    words = ["python", "-m", "training.compare"]
    words += [str(options.comparison)] if options.comparison != ENGINES else []
    words += ["--smoke"] if options.smoke else []
    words += [word for change in options.set for word in ("--set", change)]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.compare", description=__doc__)
    parser.add_argument(
        "comparison", nargs="?", type=Path, default=ENGINES, help="what to compare (default: all engines)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change an entry of it")
    parser.add_argument("--smoke", action="store_true", help="its small version, to try the way in minutes")
    parser.add_argument(
        "--data", type=Path, help=f"folder of data sets, ${{data}} in comparisons; else ${DATA_VARIABLE}"
    )
    parser.add_argument("--output", type=Path, help="folder of the trainings (default: runs/compare/NAME)")
    parser.add_argument("--report", type=Path, help="folder of the report (default: that of the trainings)")
    parser.add_argument("--report-only", action="store_true", help="train nothing; report the seeds that are whole")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time (default: 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
