"""A comparison so small that all its trainings take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from Testing.training.tiny_experiment import write_experiment


def write_comparison(folder: Path, changes: dict[str, Any] | None = None, **scans: int) -> Path:
    """The comparison's file in ``folder``, with its scans beside it: the joint network with and without a task."""
    shared = yaml.safe_load(write_experiment(folder, **scans).read_text())
    del shared["name"]
    shared["schedule"] = {"steps": 2, "steps_per_epoch": 1, "validate_every": 3}
    content = {
        "name": "tiny",
        "title": "With and without lobes",
        "question": "Do lobes help?",
        "seeds": [0, 1, 2],
        "shared": shared,
        "arms": {
            "joint": {"title": "joint"},
            "alone": {"title": "lesions alone", "changes": {"losses": {"weights": {"lobes": 0.0, "lesions": 2.0}}}},
        },
        "measures": ["lobes", "lesions", "severity.roc_auc"],
        "claims": [
            {
                "source": "Somebody, 2021",
                "says": "Lobes help to find lesions.",
                "arm": "joint",
                "against": "alone",
                "measure": "lesions",
            }
        ],
        "choice": {"among": ["alone", "joint"], "measure": "mean"},
        "remarks": ["These are two boxes."],
        **(changes or {}),
    }
    path = folder / "compare_tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
