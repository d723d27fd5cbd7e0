"""Make a weight bundle from a training run: ``python -m training.export --help``."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch.utils.data import DataLoader

from COVIDMultitaskLib import bundles
from COVIDMultitaskLib.engines.joint import unlikeness_score
from COVIDMultitaskLib.inference.device import autocast
from COVIDMultitaskLib.networks.joint import JointNetwork
from training.joint.cases import CaseDataset
from training.joint.module import image_and_targets

Results = dict[str, np.ndarray]


def read_held_out(network: JointNetwork, cases: Path, limit: int | None = None) -> Results:
    """Descriptors, logits and true labels of the scans in a folder."""
    count = len(list(cases.glob("*.npz")))
    data = CaseDataset(cases, min(count, limit or count), 0, jitter=False)
    rows: dict[str, list] = {
        "descriptor": [],
        "severity": [],
        "diagnosis": [],
        "severity_true": [],
        "diagnosis_true": [],
    }
    with torch.inference_mode(), autocast(torch.device("cpu")):
        for batch in DataLoader(data):
            image, _ = image_and_targets(batch)
            _, read = network(image)
            for name in ("descriptor", "severity", "diagnosis"):
                rows[name].append(getattr(read, name)[0].float().numpy())
            rows["severity_true"].append(int(batch["severity"][0]))
            rows["diagnosis_true"].append(int(batch["diagnosis"][0]))
    return {name: np.array(values) for name, values in rows.items()}


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature in 0.5..5 with the least cross-entropy (Guo et al. 2017)."""
    scores, target = torch.from_numpy(logits).double(), torch.from_numpy(truth)
    candidates = np.exp(np.linspace(np.log(0.5), np.log(5), 60))
    losses = [float(torch.nn.functional.cross_entropy(scores / t, target)) for t in candidates]
    return round(float(candidates[int(np.argmin(losses))]), 3)


def unlikeness_reference(descriptors: np.ndarray, features: int) -> dict:
    """Mean and deviation of the lung features, and twice the largest score seen on held-out scans."""
    lung = descriptors[:, :features]
    reference = {"mean": lung.mean(0).tolist(), "deviation": np.maximum(lung.std(0), 0.02).tolist()}
    reference["threshold"] = round(2 * max(unlikeness_score(row, reference) for row in descriptors), 3)
    return reference


def export(run: Path, cases: Path, card: Path, licence: Path, metadata: dict, target: Path) -> None:
    """Write the bundle of a run under a temporary name, check it, and put it in place."""
    plan = json.loads((run / "plan.json").read_text())
    channels = list(plan["channels"])
    network = JointNetwork(channels)
    network.load_state_dict({name: value.float() for name, value in load_file(run / "model.safetensors").items()})
    held_out = read_held_out(network.eval(), cases)
    inference = {
        "network": {"channels": channels},
        "spacing_mm": plan["spacing_mm"],
        "temperature": {
            key: fit_temperature(held_out[key], held_out[f"{key}_true"]) for key in ("severity", "diagnosis")
        },
        "unlikeness": unlikeness_reference(held_out["descriptor"], network.classifier_channels),
    }
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("configs", "models", "docs"):
        (partial / folder).mkdir(parents=True)
    (partial / bundles.INFERENCE).write_text(json.dumps(inference, indent=1) + "\n")
    (partial / bundles.METADATA).write_text(json.dumps({**metadata, "training": plan}, indent=2) + "\n")
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    (partial / bundles.WEIGHTS).write_bytes(save(weights))  # save_file would let nobody else read it
    shutil.copy(card, partial / bundles.CARD)
    shutil.copy(licence, partial / bundles.LICENCE)
    bundles.write_sums(partial)
    bundles.open_bundle(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/joint"))
    parser.add_argument("--cases", type=Path, default=Path(".cache/cases/validation"), help="held-out scans")
    parser.add_argument("--card", type=Path, default=Path("training/joint/card/README.md"))
    parser.add_argument("--licence", type=Path, default=Path("training/joint/card/LICENSE"))
    parser.add_argument("--metadata", type=Path, default=Path("training/joint/card/metadata.json"))
    parser.add_argument("--target", type=Path, default=Path("Resources/Bundles/joint"))
    arguments = parser.parse_args()
    metadata = json.loads(arguments.metadata.read_text())
    export(arguments.run, arguments.cases, arguments.card, arguments.licence, metadata, arguments.target)


if __name__ == "__main__":
    main()
