"""Make a weight bundle from a training run: ``python -m training.export --help``."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save

from COVIDMultitaskLib import bundles
from COVIDMultitaskLib.networks.joint import JointNetwork
from training.calibration import calibrate_bundle, read_held_out
from training.data.synthetic import SyntheticCases


def export(run: Path, cases: Path, card: Path, licence: Path, metadata: dict, target: Path) -> None:
    """Write the bundle of a run under a temporary name, check it, and put it in place."""
    plan = json.loads((run / "plan.json").read_text())
    channels = list(plan["channels"])
    network = JointNetwork(channels)
    network.load_state_dict({name: value.float() for name, value in load_file(run / "model.safetensors").items()})
    simulated = SyntheticCases(cases)
    scans = (simulated[number] for number in range(len(simulated)))
    held_out = read_held_out(network.eval(), scans, plan["spacing_mm"])
    calibration = calibrate_bundle(held_out, network.classifier_channels)
    for note in calibration.notes:
        print(note)
    inference = {
        "network": {"channels": channels},
        "spacing_mm": plan["spacing_mm"],
        **calibration.settings,
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
