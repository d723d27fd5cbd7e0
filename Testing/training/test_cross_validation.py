"""Cross-validation on made-up slices: every slice is measured once, by weights that never saw it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from Testing.training.tiny_experiment import write_experiment

SLICES = 4


def write_slices(root: Path) -> None:
    """Of the layout of COVID-SemiSeg, stored lying: two dark lungs, in one of them a brighter lesion."""
    for number in range(SLICES):
        chance = np.random.default_rng(number)
        shown = np.full((96, 128), 170.0)
        shown[20:76, 15:55], shown[20:76, 73:113] = 30, 30
        mask = np.zeros(shown.shape, np.uint8)
        row, column = int(chance.integers(24, 50)), int(chance.integers(18, 36))
        mask[row : row + 18, column : column + 14] = 1 + number % 2
        shown = np.where(mask > 0, 110, shown) + chance.normal(0, 6 + 4 * number, shown.shape)
        shown[:, ::7] += 9 * number  # so that no two look nearly the same
        name = f"case_{number}.png"
        for part, infected in (("LungInfection-Train/Doctor-label", 255), ("MultiClassInfection-Train", None)):
            folder = root / "TrainingSet" / part
            pictures = {
                "Imgs": shown.clip(0, 255).astype(np.uint8),
                "GT": mask if infected is None else (mask > 0) * np.uint8(255),
            }
            for kind, array in pictures.items():
                (folder / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.T).save(folder / kind / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("folds")


@pytest.fixture(scope="module")
def command(place: Path) -> list[str]:
    """After it was given once."""
    from training.cross_validate import main

    write_slices(place / "slices")
    source = {"dataset": "covid_semiseg", "root": str(place / "slices"), "annotators": ["expert"]}
    changes = {
        "data.sources": [source],
        "card.licence": "CC-BY-NC-4.0",
        "sampling.slices": 1,
        "losses.weights.slices": 1.0,
        "schedule.steps": 3,
        "schedule.validate_every": 3,
    }
    config = write_experiment(place, changes, train=2, val=1)
    classes = place / "slices" / "TrainingSet" / "MultiClassInfection-Train"
    infection = place / "slices" / "TrainingSet" / "LungInfection-Train" / "Doctor-label"
    arguments = [
        *("--config", str(config), "--folds", "2", "--output", str(place / "runs"), "--quick"),
        *("--images", str(infection / "Imgs"), "--labels", str(infection / "GT")),
        *("--multiclass", str(classes / "GT"), "--json", str(place / "figures.json")),
    ]
    assert main(arguments) == 0
    return arguments


def test_every_slice_is_measured_by_weights_that_never_saw_it(command, place: Path) -> None:
    figures = json.loads((place / "figures.json").read_text())
    assert len({one["sha256"] for one in figures["folds"]}) == 2
    infection = sorted(one["case"] for one in figures["figures"] if one["class"] == "infection")
    assert infection == [f"case_{number}" for number in range(SLICES)]
    parts = [json.loads((place / "runs" / f"fold_{n}" / "split.json").read_text())["parts"] for n in (0, 1)]
    assert parts[0] == parts[1] and sorted(map(len, parts[0].values())) == [2, 2]


def test_without_a_validation_part_all_slices_train(command, place: Path) -> None:
    from training.configuration import read_experiment
    from training.learning.run import Run
    from training.learning.sources import gather

    experiment = read_experiment(place / "tiny.yaml", ["data.fractions={train: 1}"])
    run = Run(place / "whole")
    run.begin(experiment)
    found = gather(experiment, run, lambda line: None)
    assert [len(pool.cases) for pool in found.pools if pool.slices] == [SLICES]
    assert [len(cases) for cases in found.held_out] == [1]


def test_something_must_be_left_to_validate_on(command, place: Path) -> None:
    from COVIDMultitaskLib.errors import InputError
    from training.configuration import read_experiment

    with pytest.raises(InputError, match="fractions must name val"):
        read_experiment(place / "tiny.yaml", ["data.fractions={train: 1}", "data.synthetic=null"])


def test_given_again_it_trains_nothing_anew_and_refuses_slices_it_does_not_know(command, place: Path, capsys) -> None:
    from training.cross_validate import main

    def written() -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted(place.glob("runs/*/model.safetensors"))]

    before = written()
    for path in (place / "slices").rglob("*.png"):
        path.rename(path.with_name("other_" + path.name))
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and said.endswith(".")
    assert written() == before
