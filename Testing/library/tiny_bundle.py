"""A weight bundle in the published layout with a network so small that a scan takes no time.

Unless told otherwise it answers the same for every scan: all of the patient is right lower
lobe, with no lesion in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from COVIDMultitaskLib import bundles

if TYPE_CHECKING:
    from COVIDMultitaskLib.networks.joint import JointNetwork

NETWORK = {"channels": [2, 2, 2, 2], "classifier_channels": 2}
RANDOM_NETWORK = {"channels": [4, 4, 8, 8], "classifier_channels": 4}
N_FEATURES = 4


def write_tiny_bundle(
    folder: Path,
    name: str = "tiny",
    network: JointNetwork | None = None,
    inference: Mapping[str, object] = MappingProxyType({}),
    own: Mapping[str, object] = MappingProxyType({}),
) -> Path:
    """Write the bundle into ``folder`` and give it back.

    :param network: to publish instead of the constant one; one of :func:`random_network`.
    :param inference: settings other than the usual.
    :param own: entries other than the usual of what is ours in the metadata.
    """
    from safetensors.torch import save

    for sub in ("configs", "models", "docs"):
        (folder / sub).mkdir(parents=True)
    weights = (network or _constant_network()).state_dict()
    content = save({key: tensor.contiguous() for key, tensor in weights.items()})
    (folder / bundles.WEIGHTS).write_bytes(content)  # save_file would let nobody else read it
    settings = {
        "network": RANDOM_NETWORK if network else NETWORK,
        "spacing_mm": 8.0,
        "temperature": {"severity": 1.0, "diagnosis": 1.0},
        "unlikeness": {"mean": [0.0] * N_FEATURES, "deviation": [1.0] * N_FEATURES, "threshold": 3.0},
    }
    ours = {"engine": "joint", "format": bundles.FORMAT, "licence": "Apache-2.0", "trained_on": "nothing at all"}
    metadata = {"name": name, "version": "0.0.1", "covid_multitask": {**ours, **own}}
    for path, content in ((bundles.INFERENCE, {**settings, **inference}), (bundles.METADATA, metadata)):
        (folder / path).write_text(json.dumps(content), encoding="utf-8")
    for path in (bundles.CARD, bundles.LICENCE):
        (folder / path).write_text("For tests only.\n", encoding="utf-8")
    bundles.write_sums(folder)
    return folder


def random_network(seed: int = 0, background: float = 0.0) -> JointNetwork:
    """An untrained network that sees all classes here and there.

    :param background: how much it prefers to see no lobe.
    """
    import torch

    from COVIDMultitaskLib.networks.joint import BLOCK, JointNetwork

    torch.manual_seed(seed)
    network = JointNetwork(**RANDOM_NETWORK)
    with torch.no_grad():
        for head in (network.lobe_head, network.lesion_head):
            head.weight.mul_(4)
        network.lobe_head.bias.view(-1, BLOCK**3)[0] += background
    return network.eval()


def _constant_network() -> JointNetwork:
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
    return network
