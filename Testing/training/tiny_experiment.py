"""An experiment so small that a training takes seconds: made-up scans, a network of a few channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from training.synthesis.cases import SETTINGS, CaseSettings

SIZE = (32, 32, 48)
SPACING_MM = 8.0


OF_ENGINES: dict[str, dict[str, Any]] = {
    "joint": {},
    "m2unet": {
        "network": {"width": 4, "bottom": 8, "concepts": [6, 4], "patch": 16, "instances": 6, "test_instances": 8},
        "sampling.tasks": {"lobes": 1, "severity": 1},
        "losses.weights": {"severity": 1.0, "lobes": 1.0, "lungs": 1.0},
        "card.folder": "training/cards/m2unet",
    },
    "deepsc-covid": {
        "network": {"channels": [2, 4, 4, 6, 8], "shape": [16, 32, 32], "mask_bends_after": 1},
        "sampling.tasks": {"lesions": 1, "diagnosis": 1},
        "losses.weights": {"lesions": 1.0, "diagnosis": 1.0, "task_aware": 0.1},
        "card.folder": "training/cards/deepsc_covid",
    },
    "triage": {
        "network": {"width": 2, "hidden": 8},
        "sampling.tasks": {"lesions": 1, "diagnosis": 1},
        "losses.weights": {"lesions": 1.0, "covid": 0.1},
        "card.folder": "training/cards/triage",
    },
    "amyar": {
        "network": {"channels": [2, 4, 4, 6], "perceptron": [8, 4], "slices_of_scan": 3},
        "sampling.tasks": {"lesions": 1, "diagnosis": 1},
        "losses.weights": {"lesions": 1.0, "covid": 1.0, "reconstruction": 1.0},
        "card.folder": "training/cards/amyar",
    },
}
"""What the experiment changes for an engine."""


def write_cases(folder: Path, count: int, first: int = 0) -> None:
    """Scans of two boxes of lung with a lesion, in the simulation's file format."""
    folder.mkdir(parents=True)
    for seed in range(first, first + count):
        chance = np.random.default_rng(seed)
        lobes = np.zeros(SIZE, np.uint8)
        lobes[6:16, 6:26, 26:42], lobes[16:26, 6:26, 26:42] = 2, 1
        lobes[6:14, 6:26, 6:22], lobes[14:18, 6:26, 6:22], lobes[18:26, 6:26, 6:22] = 5, 4, 3
        lesions = np.zeros(SIZE, np.uint8)
        z, x = int(chance.integers(8, 20)), int(chance.integers(8, 16))
        lesions[z : z + 4, 12:20, x : x + 5] = 1 + seed % 2
        hu = np.where(lobes > 0, -850.0, 30.0)
        hu = np.where(lesions == 1, -500.0, np.where(lesions == 2, 20.0, hu)) + chance.normal(0, 20, SIZE)
        np.savez_compressed(
            folder / f"{seed}.npz",
            hu=hu.astype(np.int16),
            lobes=lobes,
            lesions=lesions,
            labels=np.array([seed % 2, seed % 3]),
            worst_lung_percent=5.0,
        )


def write_experiment(folder: Path, changes: dict[str, Any] | None = None, train: int = 4, val: int = 2) -> Path:
    """The experiment's file in ``folder``, with its scans beside it."""
    cases = folder / "cases"
    if train and not cases.exists():
        write_cases(cases / "train", train)
        write_cases(cases / "validation", val, 100)
        (cases / SETTINGS).write_text(json.dumps(CaseSettings(SIZE, SPACING_MM).described()))
    content = {
        "name": "tiny",
        "engine": "joint",
        "network": {"channels": [4, 4, 8, 8], "classifier_channels": 4},
        "data": {
            "spacing_mm": SPACING_MM,
            "cache": str(folder / "prepared"),
            "synthetic": {
                "folder": str(cases),
                "anatomies": str(folder / "anatomies"),
                "material": str(folder / "nothing"),
                "size": list(SIZE),
                "train": train,
                "val": val,
            },
        },
        "sampling": {"scans": 1, "slices": 0},
        "schedule": {"steps": 12, "steps_per_epoch": 3, "validate_every": 2},
        "losses": {"weights": {"lobes": 1.0, "lesions": 2.0, "severity": 0.2, "diagnosis": 0.3}},
        "hardware": {"accelerator": "cpu", "precision": "32-true", "workers": 0},
        "card": {"name": "tiny", "licence": "CC-BY-4.0", "folder": "training/cards/joint"},
    }
    changes = changes or {}
    for key, value in {**OF_ENGINES.get(changes.get("engine", "joint"), {}), **changes}.items():
        here = content
        *parents, last = key.split(".")
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = value
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
