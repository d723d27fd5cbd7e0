"""Weight bundles in the published layout with networks so small that a scan takes no time.

Unless told otherwise the joint engine's answers the same for every scan: all of the patient is
right lower lobe, with no lesion in it. Those of the other engines have random weights; for
benchmarks they can be of full size:

    python -m Testing.library.tiny_bundle triage path/to/bundle
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from COVIDMultitaskLib import bundles

if TYPE_CHECKING:
    from torch import nn

    from COVIDMultitaskLib.networks.joint import JointNetwork

NETWORK = {"channels": [2, 2, 2, 2], "classifier_channels": 2}
RANDOM_NETWORK = {"channels": [4, 4, 8, 8], "classifier_channels": 4}
OVERVIEWED = {**RANDOM_NETWORK, "overview": [4, 4, 4, 8]}
"""A network with an overview of the chest."""

N_FEATURES = 4

RANDOM_ENGINES: dict[str, dict[str, object]] = {
    "m2unet": {
        "network": {"width": 4, "bottom": 8, "concepts": [6, 4]},
        "spacing_mm": 4.0,
        "slice_mm": 8.0,
        "patch": 32,
        "instances": 12,
        "temperature": {"severity": 1.0},
    },
    "triage": {
        "network": {"width": 2, "hidden": 8},
        "spacing_mm": 4.0,
        "slice_mm": 8.0,
        "lesion_threshold": 0.2,
        "temperature": {"covid": 1.0},
    },
    "deepsc-covid": {
        "network": {"channels": [2, 4, 4, 6, 8]},
        "shape": [32, 48, 48],
        "margin_mm": 10.0,
        "lesion_threshold": 0.5,
        "temperature": {"diagnosis": 1.0},
    },
    "amyar": {
        "network": {"channels": [2, 4, 4, 6], "perceptron": [8, 4]},
        "slice_mm": 12.0,
        "margin_mm": 10.0,
        "lesion_threshold": 0.5,
        "temperature": {"covid": 1.0},
        "unlikeness": {"mean": 0.05, "deviation": 0.01, "threshold": 3.0},
    },
}
"""``configs/inference.json`` of tiny bundles of the other engines."""


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
    settings = {
        "network": RANDOM_NETWORK if network else NETWORK,
        "spacing_mm": 8.0,
        "temperature": {"severity": 1.0, "diagnosis": 1.0},
        "unlikeness": {"mean": [0.0] * N_FEATURES, "deviation": [1.0] * N_FEATURES, "threshold": 3.0},
    }
    return write_bundle(folder, "joint", network or _constant_network(), {**settings, **inference}, name, own)


def write_random_bundle(
    folder: Path,
    engine: str,
    network: Mapping[str, object] | None = None,
    inference: Mapping[str, object] = MappingProxyType({}),
    seed: int = 0,
) -> Path:
    """Write a bundle of one of ``RANDOM_ENGINES`` with random weights, and give it back.

    :param network: arguments of the network; a tiny one by default, the full-size one of the engine if empty.
    :param inference: settings other than the usual.
    """
    import torch

    from COVIDMultitaskLib.bundles import Bundle
    from COVIDMultitaskLib.engines.contract import EngineIdentity
    from COVIDMultitaskLib.engines.registry import ENGINES

    settings = {**RANDOM_ENGINES[engine], **inference}
    if network is not None:
        settings["network"] = dict(network)
    identity = EngineIdentity(engine, "random", "0", "", "", "")
    torch.manual_seed(seed)
    made = ENGINES[engine](Bundle(folder, {}, settings, identity), "cpu").build()
    return write_bundle(folder, engine, made, settings, f"random-{engine}")


def write_bundle(
    folder: Path,
    engine: str,
    network: nn.Module,
    inference: Mapping[str, object],
    name: str,
    own: Mapping[str, object] = MappingProxyType({}),
) -> Path:
    """Write any engine's bundle in the published layout, and give its folder back."""
    from safetensors.torch import save

    for sub in ("configs", "models", "docs"):
        (folder / sub).mkdir(parents=True)
    content = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    (folder / bundles.WEIGHTS).write_bytes(content)  # save_file would let nobody else read it
    ours = {"engine": engine, "format": bundles.FORMAT, "licence": "Apache-2.0", "trained_on": "nothing at all"}
    metadata = {"name": name, "version": "0.0.1", "covid_multitask": {**ours, **own}}
    for path, told in ((bundles.INFERENCE, inference), (bundles.METADATA, metadata)):
        (folder / path).write_text(json.dumps(told), encoding="utf-8")
    for path in (bundles.CARD, bundles.LICENCE):
        (folder / path).write_text("For tests only.\n", encoding="utf-8")
    bundles.write_sums(folder)
    return folder


def random_network(
    seed: int = 0, background: float = 0.0, arguments: Mapping[str, object] = MappingProxyType(RANDOM_NETWORK)
) -> JointNetwork:
    """An untrained network that sees all classes here and there.

    :param background: how much it prefers to see no lobe.
    :param arguments: ``RANDOM_NETWORK`` or ``OVERVIEWED``.
    """
    import torch

    from COVIDMultitaskLib.networks.joint import BLOCK, JointNetwork

    torch.manual_seed(seed)
    network = JointNetwork(**arguments)  # type: ignore[arg-type]
    with torch.no_grad():
        for part in (network, *([network.overview] if network.overview else [])):
            part.lobe_head.weight.mul_(4)
            part.lesion_head.weight.mul_(4)
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


FULL_SIZE: dict[str, dict[str, object]] = {
    "m2unet": {"network": {}, "spacing_mm": 1.4, "slice_mm": 2.5, "patch": 160, "instances": 200},
    "triage": {"network": {}, "spacing_mm": 2.0, "slice_mm": 1.0},
    "deepsc-covid": {"network": {}, "shape": [96, 160, 160]},
    "amyar": {"network": {}, "slice_mm": 5.0},
}
"""Settings of full-size bundles where they differ from the tiny ones."""

if __name__ == "__main__":
    import sys

    print(write_random_bundle(Path(sys.argv[2]), sys.argv[1], inference=FULL_SIZE[sys.argv[1]]))
