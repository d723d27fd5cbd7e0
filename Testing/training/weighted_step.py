"""One training step on a batch with unevenly spread labels, by one of several processes.

python weighted_step.py MEETING_FILE RANK PROCESSES OUTPUT
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import torch
import torch.distributed
from torch import nn

from training.data.record import NOT_ANNOTATED
from training.learning.losses import combine, diagnosis_term, lesion_term, lobe_term
from training.learning.weighting import WEIGHTINGS, Weighting, make_weighting

SAMPLES = 4
WEIGHTS = {"lobes": 1.0, "lesions": 2.0, "diagnosis": 0.5, "severity": 3.0}


class Network(nn.Module):
    """One shared layer, three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv3d(1, 4, 1)
        self.lobes, self.lesions, self.diagnosis = nn.Conv3d(4, 6, 1), nn.Conv3d(4, 3, 1), nn.Linear(4, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.shared(image).tanh()
        return self.lobes(features), self.lesions(features), self.diagnosis(features.mean((2, 3, 4)))


def batch() -> tuple[torch.Tensor, ...]:
    """Images, lobes (of the last sample only), lesions (of all but the second) and diagnoses (of two)."""
    chance = torch.Generator().manual_seed(3)
    shape = (SAMPLES, 3, 4, 5)
    image = torch.randn(SAMPLES, 1, *shape[1:], generator=chance)
    lobes = torch.randint(0, 6, shape, generator=chance, dtype=torch.uint8)
    lobes[:-1] = NOT_ANNOTATED
    lesions = torch.randint(0, 4, shape, generator=chance, dtype=torch.uint8)
    lesions[1] = NOT_ANNOTATED
    possible = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 1], [1, 1, 1]], dtype=torch.bool)
    return image, lobes, lesions, possible


def step(network: nn.Module, shared: Sequence[nn.Parameter], weighting: Weighting, part: slice) -> dict:
    """Gradients and weights after a step on part of the batch; nobody has labels for the severity."""
    image, lobes, lesions, possible = (one[part] for one in batch())
    lobe_logits, lesion_logits, diagnosis = network(image)
    terms = {
        "lobes": lobe_term(lobe_logits, lobes),
        "lesions": lesion_term(lesion_logits, lesions),
        "diagnosis": diagnosis_term(diagnosis, possible),
    }
    weighting(combine(terms), shared).backward()
    own = {name: mean_over_ranks(one.grad) for name, one in weighting.named_parameters()}
    gradients = {name.removeprefix("module."): one.grad for name, one in network.named_parameters()}
    return {"gradients": gradients, "own": own, "weights": weighting.weights}


def mean_over_ranks(gradient: torch.Tensor) -> torch.Tensor:
    """What DDP would do to the gradient of a parameter that is not of the network."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(gradient)
        gradient /= torch.distributed.get_world_size()
    return gradient


def run(part: slice) -> dict[str, dict]:
    """By name of the weighting, a step of it."""
    results = {}
    for name in WEIGHTINGS:
        torch.manual_seed(0)
        network = Network()
        shared = list(network.shared.parameters())
        several = torch.distributed.is_initialized()
        model = nn.parallel.DistributedDataParallel(network) if several else network
        results[name] = step(model, shared, make_weighting(name, WEIGHTS), part)
    return results


def main(meeting: str, rank: str, processes: str, output: str) -> None:
    """This process takes every so many-th sample."""
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=int(rank), world_size=int(processes))
    torch.save(run(slice(int(rank), None, int(processes))), output)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # torch never frees a group that DDP has used: gloo's threads live on, and one that still holds a tensor while the
    # interpreter is torn down aborts the process. Everything is written; what is left to do is to leave.
    os._exit(0)
