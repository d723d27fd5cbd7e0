"""A comparison as a researcher meets it: killed, resumed, reported, and refused where it is not fair."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from COVIDMultitaskLib.errors import InputError
from Testing.training.tiny_comparison import write_comparison
from Testing.training.tiny_experiment import write_experiment
from training.compare.__main__ import main
from training.compare.configuration import Claim, read_comparison
from training.compare.findings import Verdict, find, verdict_on
from training.compare.held_out import Scan
from training.compare.measures import MEASURES, measure_of
from training.configuration import read_experiment
from training.data.synthetic import PartlyLabelled, SyntheticCases
from training.evaluate.answers import Answers, Found, Truth
from training.metrics.differences import Difference

REPOSITORY = Path(__file__).resolve().parents[2]


class Compared(NamedTuple):
    """A comparison that was killed after its first training and started again."""

    config: Path
    folder: Path
    first: Path
    first_was_written: int


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("compare")
    config, output = write_comparison(folder, val=4), folder / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "training.compare", str(config), "--output", str(output)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(output.rglob("held_out.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "all trainings ended before the first one's answers were there"
    (first,) = output.rglob("held_out.json")
    weights = first.with_name("model.safetensors")
    written = weights.stat().st_mtime_ns
    assert main([str(config), "--output", str(output)]) == 0
    return Compared(config, output, weights, written)


def test_a_killed_comparison_goes_on(compared: Compared) -> None:
    runs = {path.parent.relative_to(compared.folder).as_posix() for path in compared.folder.rglob("held_out.json")}
    assert runs == {f"{arm}/seed_{seed}" for arm in ("joint", "alone") for seed in range(3)}
    assert compared.first.stat().st_mtime_ns == compared.first_was_written


def test_the_report_tells_what_was_found(compared: Compared) -> None:
    report = (compared.folder / "report.md").read_text()
    found = json.loads((compared.folder / "findings.json").read_text())
    (claim,) = found["claims"]
    assert claim["difference"]["trainings"] == 3 and claim["difference"]["cases"] == 4
    row = next(line for line in report.splitlines() if line.startswith("| Lobes help to find lesions."))
    assert f"{claim['difference']['value']:+.3f}" in row and f"**{claim['verdict']}**" in row
    assert "All scans are simulated" in report and "These are two boxes." in report
    trainings = found["figures"]["joint"]["lesions"]["trainings"]
    assert f"{np.mean(trainings):.3f} (" in next(line for line in report.splitlines() if line.startswith("| joint"))
    assert "python -m training.compare" in report


def test_every_table_is_whole(compared: Compared) -> None:
    """As many cells in each row as in the head, and no template's leavings."""
    report = (compared.folder / "report.md").read_text()
    assert not re.search(r"{{|{%|None|nan", report)
    for table in re.findall(r"(?:^\|.*\n)+", report, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table
        assert len(table.splitlines()) > 2


def test_the_page_is_one_file_with_tables_and_plots(compared: Compared) -> None:
    page = (compared.folder / "report.html").read_text()
    assert page.count("<table>") == 3
    assert page.count("data:image/png;base64,") == 2 == page.count("<img")


def test_a_report_of_whole_seeds_alone(compared: Compared, tmp_path: Path, capsys) -> None:
    """With one training left out, its seed does not count, and two seeds decide nothing."""
    kept, hidden = compared.folder / "alone/seed_2/held_out.json", tmp_path / "hidden.json"
    kept.rename(hidden)
    try:
        options = [str(compared.config), "--output", str(compared.folder), "--report", str(tmp_path), "--report-only"]
        assert main(options) == 0
    finally:
        hidden.rename(kept)
    (claim,) = json.loads((tmp_path / "findings.json").read_text())["claims"]
    assert claim["difference"]["trainings"] == 2 and claim["verdict"] == "undecided"
    assert "2 of 3 seeds" in (tmp_path / "report.md").read_text()
    assert main([str(compared.config), "--output", str(tmp_path / "empty"), "--report-only"]) == 2
    assert "no seed with which all arms are trained" in capsys.readouterr().err


def test_a_folder_belongs_to_one_comparison(compared: Compared, capsys) -> None:
    changed = ["--set", "shared.schedule.steps=6"]
    assert main([str(compared.config), "--output", str(compared.folder), *changed]) == 2
    assert "another experiment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"claims": [{"source": "", "says": "", "arm": "joint", "against": "them", "measure": "lobes"}]}, "arm them"),
        ({"measures": ["beauty"]}, "measure beauty"),
        ({"seeds": [1, 1]}, "same seed twice"),
        ({"arms": {"joint": {"title": "", "like": "alone"}, "alone": {"title": ""}}}, "no arm before it"),
        ({"choice": {"among": ["joint", "alone"], "measure": "beauty"}}, "measure beauty"),
        (
            {"arms": {"one": {"title": ""}, "two": {"title": "", "changes": {"schedule": {"steps": 5}}}}},
            "differ in schedule.steps",
        ),
        (
            {"arms": {"one": {"title": ""}, "two": {"title": "", "changes": {"data": {"spacing_mm": 4.0}}}}},
            "differ in data",
        ),
        ({"arms": {"one": {"title": ""}, "two": {"title": "", "changes": {"engine": 3}}}}, "arm two of tiny: engine"),
    ],
)
def test_what_is_not_fair_or_not_there_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    merged = {"claims": [], "choice": None, **changes}
    with pytest.raises(InputError, match=words):
        read_comparison(write_comparison(tmp_path, merged, train=1, val=1))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "training" / "configs").glob("compare_*.yaml")))
@pytest.mark.parametrize("smoke", [False, True])
def test_shipped_comparisons_are_fair_and_whole(path: Path, smoke: bool) -> None:
    """Three seeds, every arm's experiment valid, and every arm of an engine's learner with tasks that it knows."""
    from training.engines import make_learner
    from training.learning.loop import weigh

    comparison = read_comparison(path, smoke=smoke)
    assert len(comparison.seeds) >= 3
    for arm in comparison.arms:
        experiment = comparison.experiment(arm, 0)
        learner = make_learner(experiment.engine, experiment.data.spacing_mm, experiment.network)
        assert any(weigh(experiment, learner).values())


def claim(goal: str = "more", margin: float = 0.02) -> Claim:
    return Claim(source="", says="", arm="a", against="b", measure="lobes", goal=goal, margin=margin)


@pytest.mark.parametrize(
    ("goal", "low", "high", "trainings", "wanted"),
    [
        ("more", 0.001, 0.2, 3, Verdict.HOLDS),
        ("more", -0.2, -0.1, 3, Verdict.FAILS),
        ("more", -0.01, 0.019, 3, Verdict.FAILS),
        ("more", -0.01, 0.021, 3, Verdict.UNDECIDED),
        ("more", 0.001, 0.2, 2, Verdict.UNDECIDED),
        ("no_less", -0.019, 0.01, 3, Verdict.HOLDS),
        ("no_less", -0.021, 0.01, 3, Verdict.UNDECIDED),
        ("no_less", -0.2, -0.021, 3, Verdict.FAILS),
        ("no_less", -0.2, -0.021, 2, Verdict.UNDECIDED),
    ],
)
def test_the_interval_decides(goal: str, low: float, high: float, trainings: int, wanted: Verdict) -> None:
    assert verdict_on(claim(goal), Difference((low + high) / 2, low, high, trainings, 60, 20)) == wanted


def scan(number: int, diagnosis: str, covid: float | None, **overlaps: float) -> Scan:
    truth = Truth(diagnosis=diagnosis, covid=diagnosis == "covid_19")
    return Scan(Answers(str(number), f"shape {number % 2}", truth, Found(covid=covid)), overlaps)


@pytest.mark.parametrize(
    ("measure", "knowing", "wanted"),
    [
        ("covid.roc_auc", False, Verdict.NOT_LEARNED),
        ("covid.roc_auc", True, Verdict.FAILS),
        ("lesions", False, Verdict.FAILS),
    ],
)
def test_of_two_arms_that_know_nothing_none_is_judged(
    tmp_path: Path, measure: str, knowing: bool, wanted: Verdict
) -> None:
    """Equal to the digit, which would leave no room for a difference; but there is nothing that could differ."""
    claims = [{"source": "", "says": "", "arm": "joint", "against": "alone", "measure": measure}]
    path = write_comparison(tmp_path, {"claims": claims, "measures": [measure], "choice": None}, train=1, val=1)
    told = [("covid_19" if number % 3 else "other_pneumonia") for number in range(24)]
    guess, known = ([scan(n, one, p(n, one), lesions=0.3) for n, one in enumerate(told)] for p in (
        lambda number, one: 0.1 * (number % 2), lambda number, one: 0.1 + 0.8 * (one == "covid_19")
    ))  # fmt: skip
    found = find(read_comparison(path), {"joint": [guess] * 3, "alone": [known if knowing else guess] * 3})
    assert [one.verdict for one in found.judged] == [wanted]


def test_measures_are_of_the_scans_they_name() -> None:
    told = [("covid_19", 0.6), ("other_pneumonia", 0.7), ("no_pneumonia", 0.1), ("covid_19", 0.9)]
    scans = [scan(n, one, covid, lesions=n / 10) for n, (one, covid) in enumerate(told)]
    values = {name: measure_of(name, scans, ()) for name in MEASURES}
    everything = np.arange(4)
    assert values["lesions"](everything) == pytest.approx(0.15)
    assert values["covid_lesions"](everything) == pytest.approx(0.15)
    assert values["covid_lesions"](np.array([1, 3])) == pytest.approx(0.3)
    assert values["covid_lesions"](np.array([1, 2])) is None
    assert values["covid.roc_auc"](everything) == pytest.approx(0.75)
    assert values["covid_or_pneumonia.roc_auc"](everything) == pytest.approx(0.5)
    assert values["covid_or_pneumonia.roc_auc"](np.array([1, 2, 3])) == 1.0
    assert values["lobes"] is None and values["severity.roc_auc"] is None
    mean = measure_of("mean", scans, ["lesions", "covid.roc_auc"])
    assert mean(everything) == pytest.approx((0.15 + 0.75) / 2)
    assert measure_of("mean", scans, ["lesions", "lobes"]) is None


def test_hidden_labels_are_unknown_and_those_of_a_larger_share_are_more(tmp_path: Path) -> None:
    write_comparison(tmp_path, train=10)
    cases = SyntheticCases(tmp_path / "cases/train")
    few, more = (PartlyLabelled(cases, {"lesions": share, "diagnosis": 0.0}, 5) for share in (0.2, 0.6))
    labelled = [{n for n, tasks in enumerate(part.tasks) if "lesions" in tasks} for part in (few, more)]
    assert [len(one) for one in labelled] == [2, 6] and labelled[0] < labelled[1]
    for number in range(10):
        case = few[number]
        assert (case.lesions is not None) == (number in labelled[0])
        assert case.record.diagnosis is None and all(case.record.possible_diagnoses)
        assert case.lobes is not None and case.record.severity is not None
    other = PartlyLabelled(cases, {"lesions": 0.2}, 6)
    assert other.tasks != few.tasks


def test_some_task_needs_a_weight(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"losses.weights": {"lobes": 0.0}}, train=1, val=1)
    with pytest.raises(InputError, match="at least one task needs a weight above 0"):
        read_experiment(path)
