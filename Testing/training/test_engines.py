"""Every engine from its recipe to a bundle that answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import pytest
import torch

from COVIDMultitaskLib.bundles import open_bundle
from COVIDMultitaskLib.engines import registry
from COVIDMultitaskLib.engines.registry import ENGINES, make_engine
from COVIDMultitaskLib.engines.support import Support
from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.progress import Progress
from Testing.conftest import REPOSITORY
from Testing.library.lung_scenes import draw, grid
from Testing.library.test_engine_deepsc_covid import OracleOfLungs
from Testing.training.tiny_experiment import OF_ENGINES, write_experiment
from training.configuration import read_experiment
from training.data.dataset import Case
from training.data.record import Record
from training.engines import LEARNERS, make_learner
from training.export import quality, reference_seconds
from training.learning.learner import Learner
from training.learning.loop import weigh
from training.learning.trained import Score, scores_of
from training.metrics import Interval
from training.synthesis.chest import SIMULATOR
from training.train import main

FOUR = sorted(set(OF_ENGINES) - {"joint"})


@pytest.fixture(scope="module", params=FOUR)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An engine's name and the bundle of three steps of its training."""
    folder = tmp_path_factory.mktemp(request.param)
    schedule = {"schedule.steps": 3, "schedule.steps_per_epoch": 3, "schedule.validate_every": 1}
    config = write_experiment(folder, {"engine": request.param, **schedule})
    (folder / "run").mkdir()
    (folder / "run" / "reference.json").write_text(json.dumps({"median": {"seconds": {"read": 2.5, "predict": 10.0}}}))
    assert main(["--config", str(config), "--output", str(folder / "run")]) == 0
    return request.param, folder / "run" / "bundle"


def test_every_engine_can_be_trained() -> None:
    assert set(LEARNERS) == set(ENGINES) == set(OF_ENGINES)


@pytest.mark.parametrize("smoke", [False, True], ids=["full", "smoke"])
@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_every_engine_brings_an_experiment_and_a_card(name: str, smoke: bool) -> None:
    path = REPOSITORY / "training" / "configs" / f"{name.replace('-', '_')}.yaml"
    experiment = read_experiment(path, smoke=smoke)
    assert experiment.engine == name and experiment.card.name == name + ("-smoke" if smoke else "")
    with torch.device("meta"):
        learner = make_learner(name, experiment.data.spacing_mm, experiment.network)
    assert sum(weigh(experiment, learner).values()) > 0
    card = REPOSITORY / experiment.card.folder
    assert {"LICENSE", "card.md.j2", "metadata.json"} <= {file.name for file in card.iterdir()}


def test_a_trained_engine_answers(trained: tuple[str, Path]) -> None:
    name, bundle = trained
    engine = ENGINES[name](open_bundle(bundle), "cpu", Support(OracleOfLungs()))
    scan, _, _ = draw(grid((12.0, 8.0, 8.0)))
    found = engine.predict(scan, Progress())
    assert {answer for answer in ("lobes", "lesions", "severity") if getattr(found, answer) is not None} == (
        engine.answers - {"diagnosis"}
    )
    assert ("diagnosis" in engine.answers) == (found.diagnosis is not None or found.covid is not None)
    assert make_engine(None, bundle, "cpu").name == name


def test_its_card_tells_which_simulator_made_the_scans(trained: tuple[str, Path]) -> None:
    card = (trained[1] / "docs" / "README.md").read_text()
    assert f"| synthetic: phantoms, simulator version {SIMULATOR} | 4 |" in card
    assert f"Version {SIMULATOR} of the simulation" in card


def test_its_row_tells_all_that_is_known(trained: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, bundle = trained
    monkeypatch.setattr(registry, "shipped_bundles", lambda: [bundle])
    (row,) = (row for row in registry.engine_rows() if row["engine"] == name)
    assert set(row["answers"]) == ENGINES[name].answers and row["licence"] == "CC-BY-4.0"
    assert "simulated" in row["trained_on"] and row["seconds"] == 12.5
    trainable = sum(one.numel() for one in ENGINES[name](open_bundle(bundle), "cpu").load().parameters())
    assert row["parameters"] == trainable > 100
    dice, *right, whence = row["quality"].split("; ")
    assert re.fullmatch(r"Dice of (\w+ \d\.\d\d, )*\w+ \d\.\d\d", dice) and whence == "held-out simulated cases"
    assert all(
        re.fullmatch(r"right answers: (.+ \d\.\d\d \(always the commonest: \d\.\d\d\)(, )?)+", one) for one in right
    )
    assert len(right) == bool(ENGINES[name].answers & {"severity", "diagnosis"})


def test_right_answers_are_told_beside_those_of_always_saying_the_commonest() -> None:
    """Of four labelled scans three are severe and two have COVID-19; single slices and unknown labels do not count."""

    class Sees:
        """Gives each scan's brightness as its share of right answers."""

        def scores(self, scans, slices):
            if scans is None:
                return {"slices_lesions": torch.tensor(0.5)}
            return {task: scans["hu"].mean() for task in ("severity", "diagnosis", "covid", "lobes")}

    told = [("severe", "covid_19"), ("severe", "covid_19"), ("severe", "no_pneumonia"), ("not_severe", None)]
    records = [Record(f"{n}", "t", "", severity=severity, diagnosis=name) for n, (severity, name) in enumerate(told)]
    scans = [Case(record, torch.full((16, 16, 16), float(n % 2))) for n, record in enumerate(records)]
    slices = [Case(Record("slice", "t", "", diagnosis="no_pneumonia"), torch.zeros(1, 16, 16))] * 9
    scores = {one.task: one for one in scores_of(cast(Learner, Sees()), [scans, slices])}
    told = {task: one.commonest for task, one in scores.items() if one.commonest is not None}
    assert told == pytest.approx({"severity": 0.75, "diagnosis": 2 / 3, "covid": 2 / 3})
    assert scores["lobes"].interval == Interval(0.5, 0.0, 1.0, 4, 4)
    assert scores["slices_lesions"].interval == Interval(0.5, 0.5, 0.5, 9, 1)
    told = {"lobes": (0.83, None), "covid": (0.6, 2 / 3), "slices_lesions": (0.5, None)}
    scores = [Score(task, Interval(mean, 0.0, 1.0, 9, 9), common) for task, (mean, common) in told.items()]
    assert quality(scores, "simulated") == (
        "Dice of lobes 0.83, lesions of single slices 0.50; right answers: COVID-19 or not 0.60 "
        "(always the commonest: 0.67); held-out simulated cases"
    )
    assert quality([], "real") is None


def test_the_time_on_the_reference_scan_comes_from_the_benchmark(tmp_path: Path) -> None:
    assert reference_seconds(tmp_path / "reference.json") is None
    (tmp_path / "reference.json").write_text('{"median": {}}')
    with pytest.raises(InputError, match=r"is no measurement of Testing/benchmarks/analyze\.py --save"):
        reference_seconds(tmp_path / "reference.json")
