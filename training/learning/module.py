"""The training of any engine as Lightning runs it."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import nn

from training.learning.errors import TrainingError
from training.learning.learner import Learner
from training.learning.losses import combine
from training.learning.precision import FullPrecisionWhereShallow
from training.learning.weighting import GradientNormWeighting, Weighting, mean_over_processes

MEAN_SCORE = "val/mean"


class LearningModule(L.LightningModule):
    """Losses of a learner's tasks, weighted, with AdamW and a one-cycle rate.

    All chance in a step comes from its number, so that a run that goes on from a checkpoint is the same as one
    that was never interrupted.

    :param steps: of the optimiser.
    :param warm_up: share of the steps in which the rate rises.
    """

    def __init__(
        self,
        learner: Learner,
        weighting: Weighting,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        warm_up: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.learner, self.weighting = learner, weighting
        self._steps, self._rate, self._decay, self._warm_up = steps, learning_rate, weight_decay, warm_up
        self._seed = seed
        self._shared = learner.shared_parameters() if isinstance(weighting, GradientNormWeighting) else None
        self._scores: dict[str, list[torch.Tensor]] = {}

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        """The weighted loss of a step.

        :raises TrainingError: when it is not a number.
        """
        generator = self._chance(batch_index)
        with FullPrecisionWhereShallow():
            terms = self.learner.terms(batch["scans"], batch["slices"], generator)
        losses = combine(terms)
        self._watch(losses, batch)
        return self.weighting(losses, self._shared)

    def _watch(self, losses: dict[str, torch.Tensor], batch: dict[str, Any]) -> None:
        """Log the losses over all processes; all stop when one of them has none that is a number.

        A task that nobody had labels for has a loss of exactly 0 and is not logged.
        """
        means = mean_over_processes(torch.stack([loss.detach().float() for loss in losses.values()])).tolist()
        self._refuse_nan([name for name, mean in zip(losses, means, strict=True) if not math.isfinite(mean)], batch)
        told = {f"train/{name}": mean for name, mean in zip(losses, means, strict=True) if mean != 0}
        self.log_dict(told, batch_size=1)

    def _chance(self, batch_index: int) -> torch.Generator:
        """Seeded by the place of the batch in the training and by the process; so is dropout."""
        number = self.current_epoch * 1_000_003 + batch_index
        seed = hash((self._seed, number, self.global_rank)) & 0x7FFF_FFFF
        torch.manual_seed(seed)
        return torch.Generator().manual_seed(seed)

    def _refuse_nan(self, wrong: list[str], batch: dict[str, Any]) -> None:
        if wrong:
            cases = [name for part in batch.values() if part is not None for name in part["ids"]]
            others = ", and those of the other processes" if self.trainer.world_size > 1 else ""
            raise TrainingError(
                f"The loss of {wrong[0]} is not a number at step {self.global_step} ({', '.join(cases)}{others}); "
                "look at these cases, or lower schedule.learning_rate. The last checkpoint is kept."
            )

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._scores = {}

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Scores of a held-out case."""
        for name, value in self.learner.scores(batch["scans"], batch["slices"]).items():
            self._scores.setdefault(name, []).append(value.float())

    def on_validation_epoch_end(self) -> None:
        """The mean of each task over the cases that carry its label, and the mean of the tasks."""
        means = {f"val/{name}": torch.stack(values).mean() for name, values in self._scores.items()}
        if means:
            means[MEAN_SCORE] = torch.stack(list(means.values())).mean()
        self.log_dict(means, prog_bar=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle rate; learned task weights have no decay."""
        groups = [{"params": self.learner.parameters(), "weight_decay": self._decay}]
        if own := [one for one in self.weighting.parameters() if one.requires_grad]:
            groups.append({"params": nn.ParameterList(own), "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, self._rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self._rate, total_steps=self._steps + 1, pct_start=self._warm_up
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
