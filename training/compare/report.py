"""The report of a comparison: Markdown with plots beside it, the same as one HTML file, and all figures as JSON."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from COVIDMultitaskLib.errors import OutputError
from COVIDMultitaskLib.writing import write_bytes, write_json, write_text
from training.compare.configuration import Claim, Comparison
from training.compare.findings import FEWEST_TRAININGS, Figure, Findings, Judged, shown
from training.compare.held_out import read_held_out
from training.compare.measures import MEAN, MEAN_TITLE, MEASURES
from training.compare.plots import draw_differences, draw_figures
from training.compare.trainings import Training
from training.export import trained_on
from training.learning.trained import load_learner

FIGURES_FILE, DIFFERENCES_FILE = "figures.png", "differences.png"


@dataclass(frozen=True)
class Cost:
    """What an arm's trainings cost on average.

    :param parameters: of its network.
    :param scans: drawn in a training.
    """

    parameters: int
    scans: int
    minutes: float


def write_report(
    comparison: Comparison, findings: Findings, trainings: Sequence[Training], command: str, folder: Path
) -> None:
    """Write ``report.md``, its plots, ``report.html`` and ``findings.json``.

    :param trainings: those that the findings are from.
    :param command: that makes the report.
    :raises OutputError: no permission, or a full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created ({error.strerror}); give another --report.") from error
    plots = {FIGURES_FILE: draw_figures(comparison, findings)}
    if findings.judged:
        labels = [f"{_difference_of(comparison, one.claim)}\n{_title(one.claim.measure)}" for one in findings.judged]
        plots[DIFFERENCES_FILE] = draw_differences(findings.judged, labels)
    text = _markdown(comparison, findings, trainings, command)
    for name, content in plots.items():
        write_bytes(content, folder / name)
    write_text(text, folder / "report.md")
    write_text(as_html(comparison.title, text, plots), folder / "report.html")
    write_json(_plain(comparison, findings), folder / "findings.json")


def _markdown(comparison: Comparison, findings: Findings, trainings: Sequence[Training], command: str) -> str:
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=templates, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "measure_title": _title, "comma": lambda number: f"{number:,}"}
    first = trainings[0]
    scans = read_held_out(first.run)
    return environment.get_template("report.md.j2").render(
        comparison=comparison,
        findings=findings,
        command=command,
        costs={arm: _cost([one for one in trainings if one.arm == arm]) for arm in comparison.arms},
        seeds=list(dict.fromkeys(one.seed for one in trainings)),
        fewest=FEWEST_TRAININGS,
        experiment=first.experiment,
        data=trained_on(first.run.data(), first.experiment.engine),
        scans=len(scans),
        patients=len({scan.answers.drawn_with for scan in scans}),
        without_lesions=sum("lesions" in scan.empty for scan in scans),
        figures_file=FIGURES_FILE,
        differences_file=DIFFERENCES_FILE,
        measures=shown(comparison),
        among=[comparison.arms[arm].title for arm in comparison.choice.among] if comparison.choice else [],
        is_simulated=all(source["simulated"] for source in first.run.data()["sources"]),
    )


def as_html(title: str, markdown: str, pictures: dict[str, bytes]) -> str:
    """A Markdown text as one HTML file.

    :param pictures: PNG by the name under which the text shows it.
    """
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, content in pictures.items():
        data = base64.b64encode(content).decode()
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{data}"')
    page = (Path(__file__).parent / "templates" / "page.html").read_text(encoding="utf-8")
    return page.replace("{{ title }}", html.escape(title)).replace("{{ body }}", body)


def _cost(trainings: Sequence[Training]) -> Cost:
    experiment = trainings[0].experiment
    schedule = experiment.schedule
    return Cost(
        sum(one.numel() for one in load_learner(trainings[0].run).network.parameters()),
        schedule.steps * schedule.accumulate * (experiment.sampling.scans + experiment.sampling.slices),
        float(np.mean([one.run.resources()["seconds"] for one in trainings])) / 60,
    )


def _figure(one: Figure | None) -> str:
    if one is None:
        return "-"
    spread = "" if one.spread is None else f" ± {one.spread:.3f}"
    return f"{one.interval.value:.3f} ({one.interval.low:.3f} to {one.interval.high:.3f}){spread}"


def _title(measure: str) -> str:
    return MEAN_TITLE if measure == MEAN else MEASURES[measure]


def _difference_of(comparison: Comparison, claim: Claim) -> str:
    return f"{comparison.arms[claim.arm].title} − {comparison.arms[claim.against].title}"


def _plain(comparison: Comparison, findings: Findings) -> dict[str, Any]:
    return {
        "comparison": comparison.model_dump(mode="json"),
        "figures": {
            arm: {name: None if one is None else asdict(one) for name, one in figures.items()}
            for arm, figures in findings.figures.items()
        },
        "claims": [_plain_claim(one) for one in findings.judged],
        "chosen": None if findings.chosen is None else asdict(findings.chosen),
    }


def _plain_claim(judged: Judged) -> dict[str, Any]:
    difference = None if judged.difference is None else asdict(judged.difference)
    return {**judged.claim.model_dump(), "difference": difference, "verdict": judged.verdict.value}
