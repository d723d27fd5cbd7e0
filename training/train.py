"""Train an engine as an experiment says: ``python -m training.train --config training/configs/joint.yaml``.

A run that was killed goes on when the same command is started again. Several processes or machines:
``torchrun --nproc-per-node 2 -m training.train --config ... --set hardware.devices=2``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from COVIDMultitaskLib.errors import CovidMultitaskError, explain
from training.configuration import DATA_VARIABLE, Experiment, read_experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns 0, or another number after one sentence that says what is wrong."""
    options = _parser().parse_args(arguments)
    if options.data:
        os.environ[DATA_VARIABLE] = str(options.data)
    try:
        experiment = read_experiment(options.config, options.set, options.smoke)
        folder = options.output or Path("runs", f"{experiment.name}-smoke" if options.smoke else experiment.name)
        _train(experiment, folder, options)
    except Exception as error:
        if not isinstance(error, CovidMultitaskError) and options.trace:
            raise
        sentence, code = explain(_cause(error))
        print(sentence, file=sys.stderr)
        return code
    return 0


def _train(experiment: Experiment, folder: Path, options: argparse.Namespace) -> None:
    from training.learning.loop import fit
    from training.learning.run import Run

    is_main = os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0"
    tell = (lambda line: print(line, flush=True)) if is_main else (lambda line: None)
    run = Run(folder)
    fit(experiment, run, tell, bar=sys.stderr.isatty())
    if is_main:
        tell(f"Weights: {run.weights_file}")
        if not options.no_export:
            from training.export import export

            tell(f"Bundle: {export(run, options.bundle or folder / 'bundle')}")


def _cause(error: BaseException) -> BaseException:
    """Our own error where another process or library wrapped it."""
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, CovidMultitaskError):
            return _unwrapped(here)
        here = here.__cause__ or here.__context__
    return error


def _unwrapped(error: CovidMultitaskError) -> CovidMultitaskError:
    """A loader's process hands over its errors as text, traceback and all; the sentence is its last line."""
    text = str(error)
    if "Original Traceback" not in text:
        return error
    return type(error)(text.strip().splitlines()[-1].partition(": ")[2])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, help="the experiment, such as training/configs/joint.yaml"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change an entry of it")
    parser.add_argument("--smoke", action="store_true", help="its small version, from data to bundle in minutes")
    parser.add_argument(
        "--data", type=Path, help=f"folder of data sets, ${{data}} in experiments; else ${DATA_VARIABLE}"
    )
    parser.add_argument("--output", type=Path, help="folder of the run (default: runs/NAME)")
    parser.add_argument(
        "--bundle", type=Path, help="where the weight bundle goes (default: bundle in the run's folder)"
    )
    parser.add_argument("--no-export", action="store_true", help="make no bundle; training.export does it later")
    parser.add_argument("--trace", action="store_true", help="show where an unexpected error came from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
