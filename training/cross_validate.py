"""Cross-validate an experiment on slices with expert masks.

Trains the experiment once for each fold, each time without that fold's slices, and measures every slice with the
weights that never saw it nor one that looks nearly the same. Killed and started again it goes on where it was::

    python -m training.cross_validate --config training/configs/joint.yaml --images IMGS --labels MASKS
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from COVIDMultitaskLib.errors import CovidMultitaskError, explain
from training.evaluate.results import as_recorded


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and print; returns 0, or another number after one sentence that says what is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        _cross_validate(options, as_recorded("training.cross_validate", arguments))
    except (CovidMultitaskError, MemoryError) as error:
        sentence, code = explain(error)
        print(sentence, file=sys.stderr)
        return code
    return 0


def _cross_validate(options: argparse.Namespace, command: str) -> None:
    from rich.console import Console

    from training.evaluate.slices import find_slices, show

    slices = find_slices(options.images, options.labels, options.multiclass, options.upright)
    figures: list[dict[str, Any]] = []
    weights = []
    for fold in range(options.folds):
        engine, run = _trained(options, fold)
        figures += _measured(engine, run, f"fold_{fold}", slices, options)
        weights.append(engine.identity)
    show(Console(), weights, command, figures, options.json)


def _trained(options: argparse.Namespace, fold: int) -> tuple[Any, Any]:
    """The engine of a fold and its run, trained and exported unless that was done before."""
    from COVIDMultitaskLib.engines.registry import make_engine
    from training.configuration import read_experiment
    from training.export import export
    from training.learning.loop import fit
    from training.learning.run import Run

    changes = ["schedule.settle=false", *options.set, f"data.folds={options.folds}", f"data.fold={fold}"]
    experiment = read_experiment(options.config, changes, options.smoke)
    run = Run((options.output or Path("runs", f"{experiment.name}-folds")) / f"fold_{fold}")
    if run.summary_file.exists():
        run.begin(experiment)
    else:
        fit(experiment, run, print, bar=sys.stderr.isatty())
    bundle = run.folder / "bundle"
    if not bundle.exists():
        export(run, bundle)
    return make_engine(None, bundle, options.device), run


def _measured(engine: Any, run: Any, part: str, slices: Sequence[Any], options: argparse.Namespace) -> list[dict]:
    """The figures of a fold's slices; see ``training.evaluate.slices``."""
    from training.evaluate.records import of_part
    from training.evaluate.slices import measure_slices

    held_out = of_part(slices, lambda one: one.name, run.split_file, part)
    return measure_slices(engine, held_out, options.patient, options.quick, options.save)


def _parser() -> argparse.ArgumentParser:
    from training.evaluate import slices

    parser = argparse.ArgumentParser(
        prog="python -m training.cross_validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, help="the experiment; its sources hold the slices")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change an entry of it")
    parser.add_argument("--smoke", action="store_true", help="its small version")
    parser.add_argument("--output", type=Path, help="folder of the runs (default: runs/NAME-folds)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    slices.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
