"""Synthetic scans: the network's own masks and answers against the truth.

Everything this command needs of the training code is imported here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from COVIDMultitaskLib.bundles import open_bundle, shipped_bundle
from COVIDMultitaskLib.engines.joint import JointEngine
from COVIDMultitaskLib.labels import DIAGNOSES, LOBES, SEVERITIES
from training.evaluate.records import means_by_class
from training.evaluate.showing import as_plain, print_weights, report, save_report, tracked
from training.metrics import dice

if TYPE_CHECKING:
    from COVIDMultitaskLib.networks.joint import JointNetwork
    from training.data.dataset import Case


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``cases``."""
    command.set_defaults(run=run)
    command.add_argument("--cases", type=Path, default=Path(".cache/cases/validation"), help="folder of the scans")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure and print. :raises InputError: when the folder holds no scans."""
    engine = JointEngine(open_bundle(options.bundle) if options.bundle else shipped_bundle("joint"), "cpu")
    figures = evaluate_cases(engine.load(), options.cases)
    means = means_by_class(figures, ["score"])
    print_weights(console, engine.identity)
    for name, measures in means.items():
        console.print(f"{name}: {measures['score']}", highlight=False)
    plain = {name: as_plain(one) for name, one in means.items()}
    document = report(engine.identity, options.command, means=plain, figures=figures)
    save_report(document, options.json, console)
    return 0


def evaluate_cases(network: JointNetwork, folder: Path) -> list[dict]:
    """One record per synthetic scan and class: Dice, or whether severity and diagnosis are right (0 or 1).

    :raises InputError: when the folder holds no scans.
    """
    import torch

    from training.data.synthetic import SyntheticCases

    records = []
    cases = SyntheticCases(folder)
    with torch.inference_mode():
        for number in tracked(range(len(cases)), "Scans"):
            scores = _scores(network, cases[number])
            records += [
                {"case": str(number), "patient": None, "class": name, "score": value} for name, value in scores.items()
            ]
    return records


def _scores(network: JointNetwork, case: Case) -> dict[str, float]:
    import torch

    from COVIDMultitaskLib.inference.device import autocast
    from COVIDMultitaskLib.preparation.intensity import normalise

    with autocast(torch.device("cpu")):
        found, read = network(normalise(case.hu)[None, None])
    assert case.lobes is not None and case.lesions is not None
    lobes, lesions = (logits[0].float().argmax(0).numpy() for logits in (found.lobes, found.lesions))
    true_lobes, true_lesions = case.lobes.numpy(), case.lesions.numpy()
    scores = {label.key: dice(lobes == label.value, true_lobes == label.value) for label in LOBES}
    scores["lungs"] = dice(lobes > 0, true_lobes > 0)
    scores["infection"] = dice(lesions > 0, true_lesions > 0)
    scores["severity"] = float(SEVERITIES[int(read.severity.argmax())] == case.record.severity)
    scores["diagnosis"] = float(DIAGNOSES[int(read.diagnosis.argmax())] == case.record.diagnosis)
    return scores
