"""Calibrate a bundle's network, and try what it makes of scans that are no chest CT.

python -m training.calibration held-out --cases .cache/cases/validation --save calibration.json
python -m training.calibration foreign --chests SCAN ... --calibration calibration.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.bundles import open_bundle, shipped_bundle
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.errors import CovidMultitaskError, InputError
from COVIDMultitaskLib.reading import read_label_map, read_volume
from COVIDMultitaskLib.writing import write_json
from training.calibration.foreign import Foreign, Structures, of_a_chest, of_a_thorax, without_a_chest
from training.calibration.held_out import read_held_out
from training.calibration.settings import BundleCalibration, calibrate_bundle
from training.calibration.verdicts import OUTCOMES, Verdict, judge, rows
from training.data.dataset import Case
from training.data.synthetic import SyntheticCases
from training.evaluate.results import as_recorded
from training.evaluate.showing import print_weights, report, save_report


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    held_out = commands.add_parser("held-out", help="temperatures and threshold from simulated scans held out")
    held_out.add_argument("--cases", type=Path, default=Path(".cache/cases/validation"))
    held_out.add_argument("--shapes", type=int, help="scans this far apart have one shape: they count as one patient")
    held_out.add_argument("--save", type=Path, help="write the settings for configs/inference.json")
    held_out.set_defaults(run=_held_out)
    foreign = commands.add_parser("foreign", help="what is refused, flagged or passed that is no chest, or one altered")
    foreign.add_argument("--chests", type=Path, nargs="*", default=[], metavar="SCAN", help="real chests, as they are")
    foreign.add_argument("--alter", type=Path, nargs="*", default=[], metavar="SCAN", help="chests to alter, too")
    foreign.add_argument("--structures", type=Path, help="label map of a thorax with a .json of names beside it")
    foreign.add_argument("--calibration", type=Path, help="settings of held-out, in place of the bundle's")
    foreign.add_argument("--json", type=Path, metavar="FILE", help="write all verdicts")
    foreign.set_defaults(run=_foreign)
    for command in (held_out, foreign):
        command.add_argument("--bundle", type=Path, help="folder; the shipped joint bundle when not given")
        command.add_argument("--device", default="cpu")
    words = sys.argv[1:] if words is None else words
    arguments = parser.parse_args(words)
    arguments.command = as_recorded("training.calibration", words)
    try:
        arguments.run(arguments)
    except CovidMultitaskError as error:
        raise SystemExit(f"{error}") from None


def _held_out(arguments: argparse.Namespace) -> None:
    engine = _engine(arguments)
    network = engine.load()
    held_out = read_held_out(network, _cases(arguments.cases, arguments.shapes), engine.settings.spacing_mm)
    calibration = calibrate_bundle(held_out, network.classifier_channels)
    _print_calibration(calibration)
    if arguments.save:
        write_json(calibration.settings, arguments.save)


def _cases(folder: Path, shapes: int | None) -> Iterator[Case]:
    from tqdm import tqdm

    simulated = SyntheticCases(folder)
    for number in tqdm(range(len(simulated)), desc="held-out scans"):
        case = simulated[number]
        if shapes:
            group = f"shape {int(simulated.paths[number].stem) % shapes}"
            case = replace(case, record=replace(case.record, group=group))
        yield case


def _print_calibration(calibration: BundleCalibration) -> None:
    """A line for each head, cross-fitted over patients."""
    print(f"{'head':<12}{'patients':>9}{'rows':>9}{'temperature':>13}{'NLL':>17}{'calibration error':>22}")
    for name, head in calibration.heads.items():
        nll, ece = (f"{getattr(head.before, m):.3f} -> {getattr(head.after, m):.3f}" for m in ("nll", "ece"))
        print(f"{name:<12}{head.patients:>9}{head.rows:>9}{head.temperature:>13.3f}{nll:>17}{ece:>22}")
    if fit := calibration.unlikeness:
        print(
            f"unlike the training data above {fit.settings['threshold']:g}:"
            f" {100 * fit.false_alarms:.1f} % of {len(fit.scores)} held-out scans (median {np.median(fit.scores):.2f},"
            f" largest {fit.scores.max():.2f}; shrinkage {fit.shrinkage:.3f})"
        )
    for note in calibration.notes:
        print(note)


def _foreign(arguments: argparse.Namespace) -> None:
    engine, console, verdicts = _engine(arguments), Console(), []
    print_weights(console, engine.identity)
    for one in _scans(arguments):
        verdicts.append(judge(engine, one))
        print(_line(verdicts[-1]), flush=True)
    _print_summary(verdicts)
    told = {"rows": [asdict(row) for row in rows(verdicts)], "verdicts": [asdict(verdict) for verdict in verdicts]}
    save_report(report(engine.identity, arguments.command, **told), arguments.json, console)


def _scans(arguments: argparse.Namespace) -> Iterator[Foreign]:
    yield from without_a_chest()
    if arguments.structures:
        yield from of_a_thorax(_structures(arguments.structures))
    for path in arguments.alter:
        yield from of_a_chest(path.name, read_volume(path))
    for path in arguments.chests:
        yield Foreign(path.name, "chest", read_volume(path))


def _structures(path: Path) -> Structures:
    """:raises InputError: when the names are not beside the map."""
    names = path.with_name(path.name.split(".")[0] + ".json")
    try:
        told = {int(value): str(name) for value, name in json.loads(names.read_text()).items()}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{names.name} with the structures' names cannot be read; put it beside {path.name}."
        ) from error
    return Structures.of(read_label_map(path), told)


def _line(verdict: Verdict) -> str:
    score = "" if verdict.score is None else f"{verdict.score:.2f}"
    return f"{verdict.kind:<9}{verdict.name:<44}{verdict.outcome:<9}{score:>6}  {'; '.join(verdict.reasons)}"


def _print_summary(verdicts: list[Verdict]) -> None:
    for kind in ("chest", "altered", "foreign"):
        outcomes = [verdict.outcome for verdict in verdicts if verdict.kind == kind]
        counts = ", ".join(f"{outcomes.count(each)} {each}" for each in OUTCOMES)
        print(f"{kind}: {len(outcomes)}, of which {counts}")


def _engine(arguments: argparse.Namespace) -> JointEngine:
    bundle = open_bundle(arguments.bundle) if arguments.bundle else shipped_bundle("joint")
    if calibration := getattr(arguments, "calibration", None):
        bundle = replace(bundle, inference={**bundle.inference, **json.loads(calibration.read_text())})
    return JointEngine(bundle, arguments.device)


if __name__ == "__main__":
    main()
