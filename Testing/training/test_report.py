"""The report of a training run, finished or not, as somebody reads it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from COVIDMultitaskLib.writing import write_json
from Testing.training.tiny_experiment import write_experiment
from training.configuration import read_experiment
from training.data.splits import Split
from training.evaluate.results import Row
from training.learning.run import Run
from training.metrics import Interval, ReliabilityBin
from training.report.__main__ import main
from training.report.page import duration, energy, render

HEADER = "epoch,step,train/lesions,train/lobes,val/lesions,val/mean"
REAL = {"name": "hospital", "licence": "CC-BY-NC-4.0", "records": 5, "simulated": False, "labels": {"lesions": 4}}
SIMULATED = {"name": "synthetic", "licence": "CC-BY-4.0", "records": 4, "simulated": True, "from": "phantoms"}
VOID = {"meta", "br", "img", "hr", "link"}


class Page(HTMLParser):
    """What a reader sees, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"left open: {self._open}"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        self.images += [str(told["src"])] if tag == "img" else []
        self.links += [value for name, value in told.items() if name in ("href", "src", "xlink:href") and value]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attributes if name in ("href", "src", "xlink:href") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self.words.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def log(run: Run, part: int, lines: Sequence[str]) -> None:
    folder = run.folder / "metrics" / f"part_{part}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join([HEADER, *lines]) + "\n")


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    """A run whose experiment was written, and nothing more."""
    run = Run(tmp_path / "run")
    run.begin(read_experiment(write_experiment(tmp_path, {"schedule.steps": 40, "data.synthetic.train": 4}, train=0)))
    return run


@pytest.fixture
def interrupted(begun: Run) -> Run:
    """Two starts, the second of which went on from step 20; simulated and real data."""
    log(begun, 0, ["0,9,2.0,1.5,,", "1,19,1.6,1.2,0.30,0.35", "2,29,9.9,9.9,,"])
    log(begun, 1, ["2,29,1.1,1.0,,", "2,29,,,0.41,0.44"])
    write_json({"sources": [SIMULATED, REAL], "left_out": ["mosmed"], "split_sha256": "ab" * 32}, begun.data_file)
    Split({"train": ("hospital/a", "hospital/b", "hospital/c"), "val": ("hospital/d",)}, 0, "x").write(begun.split_file)
    resources = {"seconds": 7500.0, "steps": 30, "processes": 2, "device": "cpu", "threads": 1}
    measured = {"kilowatt_hours": 0.0125, "energy": "processor estimated", "peak_gpu_bytes": None}
    write_json({**resources, **measured}, begun.resources_file)
    return begun


@pytest.fixture
def finished(interrupted: Run) -> Run:
    """The same, ended, and measured."""
    summary = {"engine": "joint", "steps": 40, "kept": "last", "inference": {}, "task_weights": {"lesions": 2.0}}
    interrupted.write_weights(b"weights", summary)
    evaluate(interrupted, "lesions", "weights", means={"infection": {"dice": as_json(0.61, 0.5, 0.7), "mae": None}})
    return interrupted


def as_json(value: float, low: float, high: float) -> dict:
    return asdict(Interval(value, low, high, 7, 6))


def evaluate(run: Run, name: str, weights: str, **results: object) -> None:
    (run.folder / "evaluations").mkdir(exist_ok=True)
    weights = hashlib.sha256(weights.encode()).hexdigest()
    document = {"weights": {"sha256": weights}, "command": f"python -m training.evaluate {name}", **results}
    (run.folder / "evaluations" / f"{name}.json").write_text(json.dumps(document))


def test_a_run_that_has_just_begun(begun: Run) -> None:
    page = Page(render(begun))
    assert "State not begun" in page.text and "Steps 0 of 40" in page.text
    for missing in ("Nothing has been logged yet", "not been gathered yet", "No epoch has been finished yet"):
        assert missing in page.text
    assert "For research only. Not a medical device" in page.text


def test_an_interrupted_run_tells_how_far_it_is(interrupted: Run) -> None:
    """What the first start did beyond its checkpoint is not told."""
    html = render(interrupted)
    page = Page(html)
    assert "State not finished" in page.text and "Steps 30 of 40" in page.text
    assert "resumed 1 time, at step 29" in page.text and "9.900" not in page.text
    assert ["lesions", "", "2.000", "1.100"] in page.rows, "task, weight, first and last loss"
    assert ["lesions", "0.410", "30", "0.410"] in page.rows, "task, best score, its step, last score"
    assert "Time 2 h 5 min" in page.text and "Energy 12 Wh" in page.text


def test_data_are_listed_with_licence_and_split(interrupted: Run) -> None:
    page = Page(render(interrupted))
    assert ["hospital", "real", "5", "lesions\N{NO-BREAK SPACE}4", "CC-BY-NC-4.0"] in page.rows
    simulated = ["synthetic", "simulated from phantoms", "4", "all, true by construction", "CC-BY-4.0"]
    assert simulated in page.rows
    assert ["source", "train", "val"] in page.rows
    assert ["hospital", "3", "1"] in page.rows and ["synthetic", "4", "2"] in page.rows
    assert "left out: mosmed" in page.text and "ab" * 32 in page.text


def test_the_page_stands_alone_and_fits_both_styles(finished: Run) -> None:
    html = render(finished)
    outside = [link for link in Page(html).links if not link.startswith(("#", "data:"))]
    assert not outside and "<script" not in html and "@import" not in html
    assert "prefers-color-scheme: dark" in html
    drawn = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawn) == 2
    for svg in drawn:
        ElementTree.fromstring(svg)
        assert "currentColor" in svg and not re.search(r"(fill|stroke): #(000000|ffffff)", svg)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    tables = len(re.findall("<table", html))
    assert tables == len(re.findall(r'<div class="wide"><table', html)), "a wide table scrolls by itself"


def test_evaluations_are_told_with_intervals_and_their_weights(finished: Run) -> None:
    curve = [ReliabilityBin(0.0, 0.5, 3, 0.2, 0.3), ReliabilityBin(0.5, 1.0, 4, 0.8, 0.7)]
    tasks = {"severity": {"measures": {"roc_auc": as_json(0.9, 0.8, 1.0)}, "reliability": [asdict(b) for b in curve]}}
    evaluate(finished, "other", "other weights", tasks=tasks, failures={"a": "It is no scan."})
    evaluate(finished, "foreign", "weights", rows=[asdict(Row.exact("no chest CT", "refused", 23, 26))])
    html = render(finished)
    page = Page(html)
    assert ["infection", "Dice", "0.610", "0.500 to 0.700", "7", "6"] in page.rows
    assert ["severity", "ROC AUC", "0.900", "0.800 to 1.000", "7", "6"] in page.rows
    assert ["no chest CT", "refused", "23", "", "26", "26"] in page.rows, "a count has no interval"
    assert "MAE" not in page.text, "a measure without meaning has no row"
    assert page.text.count("Measured with other weights than this run's") == 1
    assert "python -m training.evaluate other" in page.text and "a: It is no scan." in page.text
    assert "Reliability: on the diagonal" in page.text and html.count("<svg") == 3


def test_names_are_shown_and_never_executed(finished: Run) -> None:
    evaluate(finished, "odd", "weights", failures={"<script>alert(1)</script>": "A & B"})
    html = render(finished)
    assert "<script>" not in html and "&lt;script&gt;alert(1)" in html and "A &amp; B" in html


def draw(run: Run, cases: int) -> None:
    with SummaryWriter(run.folder / "tensorboard") as writer:
        for step in (10, 20, 30):
            for case in range(cases):
                picture = np.full((4, 6, 3), 10 * step // 2 + case, np.uint8)
                writer.add_image(f"held-out {case}", picture, step, dataformats="HWC")


def test_pictures_are_of_simulated_cases_only(interrupted: Run) -> None:
    """Two simulated scans are held out; the third picture would be a real patient's."""
    draw(interrupted, 3)
    page = Page(render(interrupted))
    assert len(page.images) == 4 and all(image.startswith("data:image/png;base64,") for image in page.images)
    assert len(set(page.images)) == 4 and "After step 10" in page.text and "After step 30" in page.text
    assert "Simulated scan 2" in page.text and "Simulated scan 3" not in page.text
    assert "Left upper lobe" in page.text


def test_pictures_of_real_patients_stay_out(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    sources = [{"dataset": "manifest", "root": "m.csv"}]
    run.begin(read_experiment(write_experiment(tmp_path, {"data.synthetic": None, "data.sources": sources}, train=0)))
    draw(run, 1)
    page = Page(render(run))
    assert not page.images and "Pictures of real patients are left out" in page.text


def test_limits_and_the_configuration_are_told(finished: Run) -> None:
    page = Page(render(finished))
    assert "For research on chest CT of adults" in page.text
    assert "Simulated scans are part of what was learned from" in page.text
    assert finished.experiment_file.read_text().split() == [
        word for word in page.text.partition("The resolved configuration ")[2].split()
    ]


def test_the_command_writes_where_it_is_told(finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(finished.folder)]) == 0
    assert main([str(finished.folder), "--output", str(tmp_path / "page.html")]) == 0
    assert (finished.folder / "report.html").read_text() == (tmp_path / "page.html").read_text()
    assert "page.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: run.experiment_file.unlink(), "holds no run"),
        (lambda run: run.data_file.write_text("{"), "data.json is damaged"),
        (lambda run: (run.folder / "evaluations/lesions.json").write_text("[]"), "lesions.json is no evaluation"),
        (lambda run: run.split_file.write_text("{}"), "split.json is no split file"),
        (lambda run: (run.folder / "bundle").mkdir(), "no complete weight bundle"),
    ],
)
def test_a_wrong_folder_ends_with_one_sentence(finished: Run, spoil, words: str, capsys: pytest.CaptureFixture) -> None:
    spoil(finished)
    assert main([str(finished.folder)]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and said.endswith(".") and "\n" not in said
    assert not (finished.folder / "report.html").exists()


def test_durations_and_energies_are_words() -> None:
    assert [duration(s) for s in (4.25, 75, 3600, 7384)] == ["4.2 s", "1 min 15 s", "1 h 0 min", "2 h 3 min"]
    assert [energy(k) for k in (0.000033, 0.0125, 1.234)] == ["0.033 Wh", "12 Wh", "1.23 kWh"]
