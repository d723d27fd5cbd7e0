"""Train the joint network: ``python -m training.joint.train --help``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file

from training.joint.module import JointModule, SeedDataset, TrainingPlan, load_slices
from training.synthesis.anatomy import load_anatomy

VALIDATION_SEED = 10_000_000


def train(plan: TrainingPlan, cache: Path, slices: Path | None, output: Path, max_time: str | None = None) -> None:
    """Train from the newest checkpoint under ``output``, else from the start."""
    output.mkdir(parents=True, exist_ok=True)
    L.seed_everything(plan.seed)
    torch.set_float32_matmul_precision("high")
    with ProcessPoolExecutor() as pool:
        anatomies = list(pool.map(load_anatomy, sorted(cache.glob("*.npz.xz"))))
    module = JointModule(plan, anatomies, load_slices(slices))
    last = output / "last.ckpt"
    seeds = torch.utils.data.DataLoader(SeedDataset(plan.steps * plan.chests, plan.seed), plan.chests)
    held_out = torch.utils.data.DataLoader(SeedDataset(plan.held_out_shapes, VALIDATION_SEED), 1)
    trainer = L.Trainer(
        max_steps=plan.steps,
        max_time=max_time,
        precision="bf16-mixed",
        gradient_clip_val=12.0,
        logger=CSVLogger(output),
        log_every_n_steps=20,
        val_check_interval=min(500, plan.steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(output, save_last=True, save_top_k=0, every_n_train_steps=min(250, plan.steps))],
    )
    trainer.fit(module, seeds, held_out, ckpt_path=last if last.exists() else None)
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
    parser.add_argument("--cache", type=Path, default=Path(".cache/anatomy"), help="made by training.synthesis.anatomy")
    parser.add_argument("--slices", type=Path, help="COVID-SemiSeg's TrainingSet folder")
    parser.add_argument("--output", type=Path, default=Path("runs/joint"))
    parser.add_argument("--steps", type=int, default=TrainingPlan.steps)
    parser.add_argument("--chests", type=int, default=TrainingPlan.chests)
    parser.add_argument("--size", type=int, nargs=3, default=TrainingPlan.size, metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, default=TrainingPlan.spacing_mm)
    parser.add_argument("--max-time", help="stop after DD:HH:MM:SS; the same command goes on from there")
    arguments = parser.parse_args()
    plan = TrainingPlan(
        steps=arguments.steps, chests=arguments.chests, size=tuple(arguments.size), spacing_mm=arguments.spacing
    )
    train(plan, arguments.cache, arguments.slices, arguments.output, arguments.max_time)


if __name__ == "__main__":
    main()
