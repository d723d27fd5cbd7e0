"""What the training loop asks of an engine: from a batch to the losses of its tasks.

One learner for each engine, in ``training/engines``; the loop, the losses for partial labels, the weighting
of tasks and the sampling know nothing of any engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from training.calibration import BundleCalibration
from training.data.dataset import Case
from training.learning.losses import Term

Batch = dict[str, Any]
"""What ``training.data.dataset.collate`` gives; on the device of the network."""


class Learner(nn.Module, ABC):
    """A network with what it computes from labelled cases.

    ``tasks`` names the losses that :meth:`terms` gives; ``tasks_of_slices`` those labels of a record ("lesions",
    "diagnosis") from which it learns in single slices.

    :param network: whose weights are exported.
    :param spacing_mm: of the grid on which scans and slices are given.
    """

    tasks: tuple[str, ...] = ()
    tasks_of_slices: frozenset[str] = frozenset()

    def __init__(self, network: nn.Module, spacing_mm: float) -> None:
        super().__init__()
        self.network = network
        self.spacing_mm = spacing_mm

    @abstractmethod
    def terms(self, scans: Batch | None, slices: Batch | None, generator: torch.Generator) -> dict[str, Term]:
        """The loss of each task on a step's cases.

        :param scans: whole scans or boxes of them, (b, z, y, x).
        :param slices: single slices, (b, 1, y, x), whose size and Hounsfield units are guessed.
        :param generator: on the CPU, seeded by the step: the only source of chance.
        """

    @abstractmethod
    def scores(self, scans: Batch | None, slices: Batch | None) -> dict[str, torch.Tensor]:
        """Of each task a figure of merit on held-out cases, 1 being perfect; only of those labelled."""

    def masks(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Label maps, long (b, z, y, x), by name ("lobes", "lesions") for pictures; none by default."""
        return {}

    def probabilities(self, scans: Batch) -> dict[str, torch.Tensor]:
        """Of whole scans "severity" (b, 2), "diagnosis" (b, 3) and "covid" (b,), as far as the engine tells them."""
        return {}

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters of the last layer that all tasks share; gradient-norm weighting compares tasks there."""
        raise NotImplementedError(f"{type(self).__name__} does not tell which layer its tasks share")

    def settle(self, cases: Iterable[Case], seed: int) -> str:
        """Called once after the last step with all training cases, as they are: what is better fitted to all at once.

        :return: what was done, in one sentence; empty by default, where nothing is.
        """
        return ""

    @abstractmethod
    def calibration(self, cases: Iterable[Case]) -> BundleCalibration:
        """What the bundle is told of its calibration, from held-out cases; see ``training.calibration``."""

    @abstractmethod
    def inference(self) -> dict[str, Any]:
        """The bundle's ``configs/inference.json`` before calibration: arguments of the network, preparation."""
