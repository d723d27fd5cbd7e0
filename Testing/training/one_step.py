"""Gradients of the first step of an experiment, as the training loop computes them.

python one_step.py EXPERIMENT OUTPUT [KEY=VALUE ...]     (or by torchrun, in several processes)

Without dropout and with the same margins around all lungs: their chance is each process's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import lightning as L
import torch
from torch import nn

from training.configuration import read_experiment
from training.engines import fields
from training.learning.loop import LearningData, _learner, _module
from training.learning.run import Run
from training.learning.sources import gather


class KeepGradients(L.Callback):
    """Writes them after they were averaged over the processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer) -> None:
        gradients = {name: one.grad.clone() for name, one in module.learner.named_parameters() if one.grad is not None}
        if trainer.is_global_zero:
            torch.save(gradients, self._path)


def main(config: str, output: str, *changes: str) -> None:
    """One step."""
    experiment = read_experiment(Path(config), list(changes))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    learner = _learner(experiment)
    for part in learner.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    fields.MARGIN_MM = (20.0, 20.0)
    data = LearningData(experiment, gather(experiment, Run(Path(output).with_suffix(".run")), print))
    L.Trainer(
        max_steps=1,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        precision="32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=[KeepGradients(Path(output))],
    ).fit(_module(experiment, learner), data)


if __name__ == "__main__":
    main(*sys.argv[1:])
