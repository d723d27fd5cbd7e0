"""A weight bundle in the published layout with a network so small that a scan takes no time.

It answers the same for every scan: all of it is right lower lobe, with no lesion in it.
"""

from __future__ import annotations

import json
from pathlib import Path

from COVIDMultitaskLib import bundles

NETWORK = {"channels": [2, 2, 2, 2], "classifier_channels": 2}
N_FEATURES = 4


def write_tiny_bundle(folder: Path, name: str = "tiny") -> Path:
    """Write the bundle into ``folder`` and give it back."""
    from safetensors.torch import save_file

    for sub in ("configs", "models", "docs"):
        (folder / sub).mkdir(parents=True)
    save_file(_weights(), folder / bundles.WEIGHTS)
    unlikeness = {"mean": [0.0] * N_FEATURES, "deviation": [1.0] * N_FEATURES, "threshold": 3.0}
    inference = {
        "network": NETWORK,
        "spacing_mm": 8.0,
        "temperature": {"severity": 1.0, "diagnosis": 1.0},
        "unlikeness": unlikeness,
    }
    own = {"engine": "joint", "format": bundles.FORMAT, "licence": "Apache-2.0", "trained_on": "nothing at all"}
    metadata = {"name": name, "version": "0.0.1", "covid_multitask": own}
    for path, content in ((bundles.INFERENCE, inference), (bundles.METADATA, metadata)):
        (folder / path).write_text(json.dumps(content), encoding="utf-8")
    for path in (bundles.CARD, bundles.LICENCE):
        (folder / path).write_text("For tests only.\n", encoding="utf-8")
    bundles.write_sums(folder)
    return folder


def _weights() -> dict:
    import torch

    from COVIDMultitaskLib.labels import RIGHT_LOWER
    from COVIDMultitaskLib.networks.joint import JointNetwork

    torch.manual_seed(0)
    network = JointNetwork(**NETWORK)
    with torch.no_grad():
        for head, favourite in ((network.lobe_head, RIGHT_LOWER), (network.lesion_head, 0)):
            head.weight.zero_()
            # Each class's logits are unfolded from a run of channels, one per voxel of a block.
            head.bias.zero_().view(-1, 8)[favourite] = 5.0
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
