"""Train the joint network: ``python -m training.joint.train --help``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from training.data.slices import read_expert_slices
from training.joint.cases import CaseDataset
from training.joint.module import JointModule, TrainingPlan


def train(
    plan: TrainingPlan,
    cases: Path,
    slices: Path | None,
    output: Path,
    max_time: str | None = None,
    weights: Path | None = None,
) -> None:
    """Train from the newest checkpoint under ``output``, else from ``weights``, else from the start."""
    output.mkdir(parents=True, exist_ok=True)
    L.seed_everything(plan.seed)
    torch.set_float32_matmul_precision("high")
    module = JointModule(plan, read_expert_slices(slices) if slices else [])
    if weights:
        module.network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    train_set = CaseDataset(cases / "train", plan.steps * plan.cases, plan.seed, jitter=True)
    held_out = CaseDataset(cases / "validation", len(list((cases / "validation").glob("*.npz"))), 0, jitter=False)
    last = output / "last.ckpt"
    every = max(1, min(100, plan.steps // 2))
    trainer = L.Trainer(
        max_steps=plan.steps,
        max_time=max_time,
        precision="bf16-mixed",
        gradient_clip_val=12.0,
        logger=CSVLogger(output),
        log_every_n_steps=10,
        val_check_interval=3 * every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(output, save_last=True, save_top_k=0, every_n_train_steps=every)],
    )
    trainer.fit(
        module, DataLoader(train_set, plan.cases), DataLoader(held_out), ckpt_path=last if last.exists() else None
    )
    save_weights(module, output)


def save_weights(module: JointModule, output: Path) -> None:
    """Write the network in half precision, with the plan it came from."""
    weights = {name: value.detach().half().cpu().contiguous() for name, value in module.network.state_dict().items()}
    save_file(weights, output / "model.safetensors")
    plan = {**dataclasses.asdict(module.plan), "steps_done": module.global_step}
    (output / "plan.json").write_text(json.dumps(plan, indent=1))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, default=Path(".cache/cases"), help="made by training.synthesis.cases")
    parser.add_argument("--slices", type=Path, help="COVID-SemiSeg's TrainingSet folder")
    parser.add_argument("--output", type=Path, default=Path("runs/joint"))
    parser.add_argument("--steps", type=int, default=TrainingPlan.steps)
    parser.add_argument("--spacing", type=float, default=TrainingPlan.spacing_mm, help="of the cases, millimetres")
    parser.add_argument("--learning-rate", type=float, default=TrainingPlan.learning_rate)
    parser.add_argument("--weights", type=Path, help="model.safetensors of an earlier run to start from")
    parser.add_argument("--max-time", help="stop after DD:HH:MM:SS; the same command goes on from there")
    arguments = parser.parse_args()
    plan = TrainingPlan(steps=arguments.steps, spacing_mm=arguments.spacing, learning_rate=arguments.learning_rate)
    train(plan, arguments.cases, arguments.slices, arguments.output, arguments.max_time, arguments.weights)


if __name__ == "__main__":
    main()
