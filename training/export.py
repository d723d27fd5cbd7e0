"""Make a weight bundle from a run: ``python -m training.export --run runs/joint --target Resources/Bundles/joint``.

Calibrates the network on the run's held-out cases and fills the model card in from the run: what it learned from
and under which licences, how it was trained, what that cost, and how good it is. Files that
``python -m training.evaluate ... --json FILE`` wrote into the run's folder ``evaluations`` go into the card, each
with the command that made it, and so do ``notes.md`` beside it, what was seen by eye and where the weights fail, and
``failures.png``, made of cases that may be shown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from COVIDMultitaskLib.errors import CovidMultitaskError, InputError, OutputError

if TYPE_CHECKING:
    from training.evaluate.results import Evaluation
    from training.learning.sampling import Cases
    from training.learning.trained import Score

EVALUATIONS = "evaluations"
"""Folder, in a run's, of what ``training.evaluate`` wrote."""

REFERENCE = "reference.json"
"""File, in a run's folder, in which ``Testing/benchmarks/analyze.py --save`` wrote the time of the reference scan."""

NON_COMMERCIAL = ("nc", "non-commercial", "noncommercial", "research use", "research only")
"""What a licence says that forbids commercial use."""


def export(run, target: Path, tell=print) -> Path:
    """Write the bundle of a run under a temporary name, check it, and put it in place.

    :param run: a :class:`training.learning.run.Run` whose training has ended.
    :param tell: is told what could not be calibrated.
    :return: ``target``.
    :raises InputError: when the training has not ended, or the licence is laxer than the data's.
    :raises OutputError: when the bundle cannot be written.
    """
    from COVIDMultitaskLib import bundles
    from training.learning.trained import held_out_cases, held_out_sources, load_learner, scores_of

    experiment, data = run.experiment(), run.data()
    check_licence(experiment.card.licence, data)
    learner, held_out = load_learner(run), held_out_sources(run)
    calibration = learner.calibration(held_out_cases(held_out))
    for note in calibration.notes:
        tell(note)
    validation, kind = scores_of(learner, held_out), held_out_kind(held_out)
    inference = {**run.summary()["inference"], **calibration.settings}
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in ("configs", "models", "docs"):
            (partial / folder).mkdir(parents=True)
        _write_json(partial / bundles.INFERENCE, inference)
        _write_json(partial / bundles.METADATA, metadata(run, learner, validation, kind))
        (partial / bundles.CARD).write_text(model_card(run, calibration, validation, kind), encoding="utf-8")
        shutil.copyfile(run.weights_file, partial / bundles.WEIGHTS)
        licence = card_template(experiment, "LICENSE").render(experiment=experiment)
        (partial / bundles.LICENCE).write_text(licence, encoding="utf-8")
        shutil.copyfile(run.experiment_file, partial / bundles.EXPERIMENT)
        for file, name in ((run.split_file, bundles.SPLIT), (run.failures_file, bundles.FAILURES)):
            if file.exists():
                shutil.copyfile(file, partial / name)
        bundles.write_sums(partial)
        bundles.open_bundle(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        raise OutputError(f"The bundle {target} cannot be written ({error.strerror}); give another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def check_licence(licence: str, data: dict[str, Any]) -> None:
    """:raises InputError: when weights trained on non-commercial data were to be free for commercial use."""
    strict = [one for one in data["sources"] if _is_non_commercial(one["licence"])]
    if strict and not _is_non_commercial(licence):
        raise InputError(
            f"{strict[0]['name']} is licensed {strict[0]['licence']}, so the weights cannot be {licence}; "
            "correct card.licence of the experiment."
        )


def _is_non_commercial(licence: str) -> bool:
    words = licence.lower().replace("-", " ").replace("_", " ").split()
    return "nc" in words or any(phrase.replace("-", " ") in " ".join(words) for phrase in NON_COMMERCIAL[1:])


def metadata(run, learner, validation: list[Score], kind: str) -> dict[str, Any]:
    """MONAI's metadata of the bundle, with what is ours under "covid_multitask".

    :param kind: of the held-out cases, as :func:`held_out_kind` tells it.
    """
    from importlib.metadata import version

    from COVIDMultitaskLib import bundles

    experiment, data = run.experiment(), data_of_stages(run)
    template = json.loads(card_template(experiment, "metadata.json").render(experiment=experiment))
    return {
        **template,
        "name": experiment.card.name,
        "version": experiment.card.version,
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "data_source": "; ".join(f"{one['name']} ({one['licence']})" for one in data["sources"]),
        "covid_multitask": {
            "engine": experiment.engine,
            "format": bundles.FORMAT,
            "licence": experiment.card.licence,
            "trained_on": trained_on(data, experiment.engine),
            "parameters": sum(parameter.numel() for parameter in learner.network.parameters()),
            "quality": quality(validation, kind),
            "seconds": reference_seconds(run.folder / REFERENCE),
        },
        "training": {"experiment": experiment.model_dump(mode="json"), "resources": run.resources()},
    }


def data_of_stages(run) -> dict[str, Any]:
    """What a run and those whose weights it began with learned from: each source with the most records of it."""
    largest: dict[str, dict[str, Any]] = {}
    for stage in run.stages():
        for source in stage.data()["sources"]:
            if source["records"] > largest.get(source["name"], {"records": 0})["records"]:
                largest[source["name"]] = source
    return {**run.data(), "sources": list(largest.values())}


def trained_on(data: dict[str, Any], engine: str) -> str:
    """One quiet line for the panel and the report: what was learned from, and which answers from simulation only."""
    from COVIDMultitaskLib.engines.registry import ENGINES

    parts, real_tasks = [], set()
    for source in data["sources"]:
        if source["simulated"]:
            parts.append(f"{source['records']} simulated scans ({source['from']})")
        else:
            parts.append(f"{source['records']} real records of {source['name']}")
            real_tasks |= set(source["labels"])
    simulated = any(source["simulated"] for source in data["sources"])
    learned = ENGINES[engine].answers
    only = [task for task in ("lobes", "lesions", "severity", "diagnosis") if task in learned - real_tasks]
    if simulated and real_tasks and only:
        parts.append(f"{', '.join(only)} from simulation only")
    return "; ".join(parts)


def held_out_kind(held_out: list[Cases]) -> str:
    """Whether held-out cases are "simulated", "real" or "simulated and real"."""
    from training.data.synthetic import SyntheticCases

    kinds = {isinstance(source, SyntheticCases) for source in held_out if len(source)}
    return {frozenset({True}): "simulated", frozenset({False}): "real"}.get(frozenset(kinds), "simulated and real")


def quality(scores: list[Score], kind: str) -> str | None:
    """One line of the scores on held-out cases, and on what; ``None`` without any."""
    masks = ", ".join(f"{one.name} {one.mean:.2f}" for one in scores if one.commonest is None)
    answers = ", ".join(
        f"{one.name} {one.mean:.2f} (always the commonest: {one.commonest:.2f})"
        for one in scores
        if one.commonest is not None
    )
    told = "; ".join(part for part in (masks and f"Dice of {masks}", answers and f"right answers: {answers}") if part)
    if not told:
        return None
    return f"{told}; held-out {kind} cases"


def reference_seconds(path: Path) -> float | None:
    """How long the reference scan took; ``None`` where nobody measured it.

    :raises InputError: for a file that the benchmark did not write.
    """
    if not path.exists():
        return None
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))["median"]["seconds"]
        return round(float(sum(stages.values())), 1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no measurement of Testing/benchmarks/analyze.py --save; make it again.") from error


def model_card(run, calibration, validation: list[Score], kind: str) -> str:
    """The bundle's README from the template of the experiment's card folder.

    :param kind: of the held-out cases, as :func:`held_out_kind` tells it.
    """
    from training.synthesis.facts import simulation_facts

    experiment = run.experiment()
    return card_template(experiment, "card.md.j2").render(
        experiment=experiment,
        data=data_of_stages(run),
        stages=[
            {"experiment": one.experiment(), "summary": one.summary(), "resources": one.resources()}
            for one in run.stages()
        ],
        summary=run.summary(),
        resources=run.resources(),
        validation=validation,
        calibration=calibration,
        kind=kind,
        units={"simulated": "lobe shapes", "real": "patients"}.get(kind, "patients and lobe shapes"),
        evaluations=evaluations_of(run),
        notes=run.notes,
        failures=run.failures_file.exists(),
        simulation=simulation_facts(),
    )


def evaluations_of(run) -> list[Evaluation]:
    """What was measured of the run's weights.

    :raises InputError: for figures of other weights: they would stand in the card as if they were of these.
    """
    from training.evaluate.results import read_evaluations

    found = read_evaluations(run.folder / EVALUATIONS)
    ours = run.weights_digest
    for one in found:
        if one.is_of_others(ours):
            raise InputError(
                f"{EVALUATIONS}/{one.name}.json was measured with other weights than {run.folder} holds; measure again."
            )
    return found


def card_template(experiment, name: str):
    """A template of the experiment's card folder. :raises InputError: when it has none of this name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

    folder = experiment.path(experiment.card.folder)
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent / "cards"]), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    try:
        return environment.get_template(name)
    except TemplateNotFound as error:
        raise InputError(f"{folder} holds no {name}, a template of the model card; see training/cards.") from error


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Read the command line and export; returns 0, or 2 after one sentence."""
    from training.learning.run import Run

    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training that has ended")
    parser.add_argument("--target", type=Path, help="bundle folder to write (default: bundle in the run's folder)")
    options = parser.parse_args()
    try:
        print(f"Bundle: {export(Run(options.run), options.target or options.run / 'bundle')}")
    except CovidMultitaskError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
