"""Gathers what a run's folder tells, however far the run is, and fills it into ``page.html.j2``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from COVIDMultitaskLib.bundles import Bundle, open_bundle
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.labels import LESIONS, LOBES
from COVIDMultitaskLib.writing import write_text
from training.configuration import Experiment
from training.data.splits import read_split
from training.evaluate.results import Evaluation, read_evaluations
from training.export import EVALUATIONS, card_template, data_of_stages, trained_on
from training.learning.run import Run
from training.report.curves import Points, draw_curves, draw_reliability
from training.report.pictures import held_out_pictures

MEAN = "mean"
"""Of the scores of all tasks, as the training logs it."""


def write_report(run: Run, path: Path) -> None:
    """Write the report of a run, finished or not.

    :raises InputError: when the folder holds no run, or a damaged file of one.
    :raises OutputError: when the file cannot be written.
    """
    write_text(render(run), path)


def render(run: Run) -> str:
    """The page. :raises InputError: as :func:`write_report`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"duration": duration, "energy": energy}
    return environment.get_template("page.html.j2").render(contents(run))


def contents(run: Run) -> dict[str, Any]:
    """Everything the template shows; ``None`` or empty for what is not there yet."""
    experiment = run.experiment()
    rows = run.metrics()
    summary, resources, data = (_told(path) for path in (run.summary_file, run.resources_file, run.data_file))
    losses, scores = _series(rows, "train/"), _series(rows, "val/")
    return {
        "experiment": experiment,
        "configuration": run.experiment_file.read_text(encoding="utf-8"),
        "summary": summary,
        "steps": summary["steps"] if summary else int(max((row["step"] for row in rows), default=-1)) + 1,
        "resumed": resumed_at(run),
        "resources": resources,
        "scans_per_second": resources and _scans_per_second(experiment, resources),
        "data": data,
        "trained_on": data and trained_on(data_of_stages(run), experiment.engine),
        "parts": parts(run, data),
        "curves": _curves(losses, scores, resumed_at(run)),
        "losses": {task: (points[0][1], points[-1][1]) for task, points in losses.items()},
        "scores": {task: (max(points, key=lambda point: point[1]), points[-1]) for task, points in scores.items()},
        "mean": MEAN,
        "evaluations": list(_evaluations(run)),
        "pictures": held_out_pictures(run.folder / "tensorboard", experiment),
        "labels": {"lobes": LOBES, "lesions": LESIONS},
        "bundle": _bundle(run),
        "limits": limits(experiment),
    }


def parts(run: Run, data: dict[str, Any] | None) -> dict[str, Counter[str]]:
    """How many records of each source are in each part; simulated scans are held out by shape, not by the split."""
    synthetic = run.experiment().data.synthetic
    found: dict[str, Counter[str]] = {}
    if synthetic and data:
        simulated = next(one for one in data["sources"] if one["simulated"])
        found[simulated["name"]] = Counter(train=simulated["records"], val=synthetic.val)
    if run.split_file.exists():
        for part, ids in read_split(run.split_file).parts.items():
            for name in ids:
                found.setdefault(name.partition("/")[0], Counter())[part] += 1
    return found


def resumed_at(run: Run) -> list[int]:
    """The first logged step of each start of the training after the first."""
    import pandas as pd

    logs = (folder / "metrics.csv" for folder in (run.folder / "metrics").glob("part_*"))
    tables = [pd.read_csv(log) for log in logs if log.exists() and log.stat().st_size]
    return sorted(int(table["step"].min()) for table in tables if len(table))[1:]


def limits(experiment: Experiment) -> list[str]:
    """The sentences of the model card's section on limits; none when its card folder is gone."""
    try:
        template = card_template(experiment, "card.md.j2")
    except InputError:
        return []
    text = "".join(template.blocks["limits"](template.new_context({"experiment": experiment})))
    return [" ".join(item.split()) for item in f"\n{text}".replace("`", "").split("\n- ") if item.strip()]


def duration(seconds: float) -> str:
    """In words: "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def energy(kilowatt_hours: float) -> str:
    """In kWh, or in Wh where that is little."""
    return f"{kilowatt_hours:.3g} kWh" if kilowatt_hours >= 0.1 else f"{1000 * kilowatt_hours:.2g} Wh"


def _series(rows: list[dict[str, float]], prefix: str) -> dict[str, Points]:
    """The logged figures by name, with those of the last step last."""
    names = sorted({name for row in rows for name in row if name.startswith(prefix)})
    return {name.removeprefix(prefix): [(row["step"] + 1, row[name]) for row in rows if name in row] for name in names}


def _curves(losses: dict[str, Points], scores: dict[str, Points], resumed: list[int]) -> dict[str, str]:
    drawn = {}
    if losses:
        is_positive = all(value > 0 for points in losses.values() for _, value in points)
        drawn["Loss of each task"] = draw_curves(losses, "losses", "loss", resumed, is_positive)
    if scores:
        drawn["Score of each task on held-out cases"] = draw_curves(scores, "scores", "score", resumed)
    return drawn


def _evaluations(run: Run) -> Iterator[dict[str, Any]]:
    """Each with its reliability curves, and whether it is of other weights than the run's."""
    ours = run.weights_digest if run.weights_file.exists() else None
    for number, one in enumerate(read_evaluations(run.folder / EVALUATIONS)):
        yield {"results": one, "is_of_others": one.is_of_others(ours), "reliability": _reliability(one, number)}


def _reliability(one: Evaluation, number: int) -> str | None:
    return draw_reliability(one.curves, f"reliability-{number}") if one.curves else None


def _bundle(run: Run) -> Bundle | None:
    """The run's bundle, where it has been exported into its folder."""
    folder = run.folder / "bundle"
    return open_bundle(folder) if folder.is_dir() else None


def _scans_per_second(experiment: Experiment, resources: dict[str, Any]) -> float:
    """Scans and slices that the training went through in a second, all processes together."""
    sampling = experiment.sampling
    cases = (sampling.scans + sampling.slices) * experiment.schedule.accumulate * resources["processes"]
    return cases * resources["steps"] / max(resources["seconds"], 1e-9)


def _told(path: Path) -> dict[str, Any] | None:
    """A file of the run; ``None`` where it is not written yet. :raises InputError: when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged; run the same training command again.") from error
