"""Measure a bundle on labelled data: ``python -m training.evaluate volumes|slices|cohort|pictures|cases --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from COVIDMultitaskLib.errors import Cancelled, CovidMultitaskError, explain
from training.evaluate import cases, cohort, pictures, slices, volumes
from training.evaluate.results import as_recorded

_COMMANDS = {
    "volumes": (volumes, "3D label maps: lungs, lobes or lesions"),
    "slices": (slices, "2D lesion masks: a folder of slices of the COVID-SemiSeg kind"),
    "cohort": (cohort, "severity, grade, diagnosis and affected percentage of scans in a CSV manifest"),
    "pictures": (pictures, "single slices of known COVID-19 status, as pictures"),
    "cases": (cases, "synthetic scans: lobes, lesions, severity and diagnosis"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 2 when something could not be measured."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.command = as_recorded("training.evaluate", arguments)
    try:
        return options.run(options, Console())
    except (CovidMultitaskError, MemoryError) as error:
        sentence, exit_code = explain(error)
    except KeyboardInterrupt:
        sentence, exit_code = "Stopped.", Cancelled.exit_code
    Console(stderr=True, soft_wrap=True).print(sentence, style="red", markup=False, highlight=False)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, words) in _COMMANDS.items():
        command = commands.add_parser(
            name, help=words, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_options(command)
        if module in (volumes, cohort, pictures):
            command.add_argument("--split", type=Path, metavar="FILE", help="split file: measure one part of it")
            command.add_argument("--part", default="test", help="of the split (default: test)")
        command.add_argument("--bundle", type=Path, help="folder of the weights; else those shipped")
        command.add_argument("--engine", metavar="NAME", help="engine, with its shipped weights")
        command.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


if __name__ == "__main__":
    sys.exit(main())
