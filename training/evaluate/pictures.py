"""Pictures of single slices of known COVID-19 status, and what their mere look gives away.

Engines that read pictures are asked for the probability of COVID-19; of others that find lesions on a slice, the
share of the picture that is lesion ranks it. Pictures that show nearly the same, or are of one paper or subject, are
drawn together for the intervals. Where the classes come from different sources, a picture's size and brightness tell
them apart as well: how well they do, by the pictures most like it in other groups, is measured beside the engine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from COVIDMultitaskLib.engines.contract import Engine
from COVIDMultitaskLib.engines.registry import make_engine
from COVIDMultitaskLib.errors import CovidMultitaskError, InputError, explain
from COVIDMultitaskLib.inference.slices import SliceEngine
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import IntensityKind, Volume
from training.data.images import read_stored
from training.data.loading import load_image
from training.data.record import ImageFile, Record
from training.data.registry import adapter
from training.data.similarity import group_similar, is_single_picture
from training.data.splits import kept_together
from training.evaluate.records import of_part
from training.evaluate.showing import Failures, print_failures, print_weights, report, save_report, tracked
from training.evaluate.tasks import Task, binary_task, measure_tasks
from training.metrics import binary_measures

NEIGHBOURS = 15
"""Pictures of other groups that a picture's look is compared with."""

_RANKING = ("roc_auc", "pr_auc")
_REMARK = "A picture's origin can give its class away; no figure here says how well patients are told apart."


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``pictures``."""
    command.set_defaults(run=run)
    command.add_argument("--root", type=Path, required=True, help="folder of the data set")
    command.add_argument("--dataset", default="covid_vs_noncovid", help="its name (default: covid_vs_noncovid)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure and print. Returns 2 when a picture could not be read.

    :raises InputError: no pictures of both classes, or an engine without an answer.
    """
    engine = make_engine(options.engine, options.bundle, options.device)
    score = _score_by(engine)
    records = _pictures(options)
    shown, failures = _scores(records, score)
    known = [record for record in records if record.id in shown]
    patients = _drawn_together(known)
    truth = np.array([bool(record.covid) for record in known])
    found = np.array([shown[record.id] for record in known])
    looks = np.array([look_of(read_stored(_image(record)).array[0]) for record in known])
    look = told_by_look(looks, truth, patients)
    print_weights(console, engine.identity)
    tasks = [
        _asked(engine, found, truth, patients),
        _ranked("look", "COVID-19 or not, by size and brightness alone", look, truth, patients),
    ]
    document = report(engine.identity, options.command, tasks=measure_tasks(tasks, console))
    print_failures(console, failures, len(records))
    save_report(document, options.json, console)
    return 2 if failures else 0


def look_of(grey: np.ndarray) -> np.ndarray:
    """What can be seen of a picture (y, x) without looking at what it shows: its sides and its brightness."""
    return np.array([*grey.shape, grey.mean(), grey.std(), *np.percentile(grey, (5, 25, 50, 75, 95))], float)


def told_by_look(looks: np.ndarray, truth: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Share of positive pictures among those of other groups that look most like each, (n,).

    :param looks: (n, features) of :func:`look_of`.
    :param truth: bool (n,).
    :param patients: which group each is of.
    """
    scaled = (looks - looks.mean(0)) / np.maximum(looks.std(0), 1e-9)
    _, group = np.unique(patients, return_inverse=True)
    shares = np.zeros(len(scaled))
    for row, place in enumerate(scaled):
        distance = np.square(scaled - place).sum(1)
        distance[group == group[row]] = np.inf
        nearest = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        shares[row] = truth[nearest[np.isfinite(distance[nearest])]].mean()
    return shares


def _pictures(options: argparse.Namespace) -> list[Record]:
    found = adapter(options.dataset).find(options.root).records
    records = [record for record in found if record.covid is not None and is_single_picture(record)]
    if options.split:
        records = of_part(records, lambda record: record.id, options.split, options.part)
    if len({record.covid for record in records}) < 2:
        raise InputError(f"{options.root} holds no pictures of both classes; give the folder of {options.dataset}.")
    return records


def _score_by(engine: Engine | SliceEngine) -> Callable[[Record], float]:
    """How the engine answers for a picture. :raises InputError: where it does not."""
    if isinstance(engine, SliceEngine):
        return lambda record: _lesion_share(engine, load_image(record))
    if engine.takes == "picture" and "diagnosis" in engine.answers:
        return lambda record: _covid(engine, read_stored(_image(record)))
    raise InputError(f"The engine {engine.identity.engine} does not read single slices; choose another engine.")


def _lesion_share(engine: SliceEngine, volume: Volume) -> float:
    found = engine.predict_slice(volume.array[0].astype(np.float32), volume.geometry.spacing_mm[2])
    return float(1 - found[0].mean())


def _covid(engine: Engine, volume: Volume) -> float:
    probability = engine.predict(replace(volume, intensity=IntensityKind.PICTURE), Progress()).covid
    assert probability is not None
    return probability


def _scores(records: Sequence[Record], score: Callable[[Record], float]) -> tuple[dict[str, float], Failures]:
    """By record id; pictures that cannot be read are listed."""
    scores, failures = {}, []
    for record in tracked(records, "Pictures"):
        try:
            scores[record.id] = score(record)
        except CovidMultitaskError as error:
            failures.append((record.id, explain(error)[0]))
    return scores, failures


def _drawn_together(records: Sequence[Record]) -> list[str]:
    """The group of each record."""
    together = enumerate(kept_together(records, group_similar(records)))
    groups = {record.id: str(number) for number, group in together for record in group}
    return [groups[record.id] for record in records]


def _asked(engine: Engine | SliceEngine, found: np.ndarray, truth: np.ndarray, patients: list[str]) -> Task:
    if isinstance(engine, SliceEngine):
        return _ranked("lesions", "COVID-19 or not, by the share of lesion", found, truth, patients)
    task = binary_task("covid", "COVID-19", found, truth, patients)
    assert task is not None
    return task


def _ranked(key: str, title: str, found: np.ndarray, truth: np.ndarray, patients: list[str]) -> Task:
    """A score that is no probability: what it ranks alone is measured."""

    def measure(cases: np.ndarray) -> dict[str, float | None]:
        measures = binary_measures(found[cases], truth[cases])
        return {name: measures[name] for name in _RANKING}

    return Task(key, title, patients, measure, remark=_REMARK)


def _image(record: Record) -> ImageFile:
    assert record.image is not None
    return record.image
