"""One training from an experiment to weights in the run's folder; may be killed and started again at any time."""

from __future__ import annotations

import json
import logging
import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from safetensors.torch import load_file, save
from torch import nn
from torch.utils.data import DataLoader, Dataset

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.writing import write_bytes, write_json
from training.configuration import Experiment
from training.data.dataset import Case
from training.engines import make_learner
from training.learning.learner import Learner
from training.learning.module import MEAN_SCORE, LearningModule
from training.learning.pictures import ValidationPictures
from training.learning.resources import ResourceMeter
from training.learning.run import Run
from training.learning.sampling import Cases, EpochSampler, Steps, collate_for_networks
from training.learning.sources import Tell, TrainingData, gather
from training.learning.weighting import make_weighting

PICTURED = 2
"""Held-out scans that are drawn after each validation."""


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, whenever the process is killed or the disk is full."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write under a temporary name and rename. :raises OutputError: no permission, no space."""
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(buffer.getvalue(), path)


class LearningData(L.LightningDataModule):
    """Batches of an experiment for as many processes as train."""

    def __init__(self, experiment: Experiment, data: TrainingData) -> None:
        super().__init__()
        sampling = experiment.sampling
        shares = {str(task): share for task, share in sampling.tasks.items()}
        self._steps = Steps(
            data.pools, shares, sampling.scans, sampling.slices, experiment.data.largest, experiment.seed
        )
        self._held_out, self._experiment = HeldOut(data.held_out), experiment

    def train_dataloader(self) -> DataLoader:
        """The batches of an epoch."""
        schedule, trainer = self._experiment.schedule, self.trainer
        assert trainer is not None
        sampler = EpochSampler(schedule.steps_per_epoch * schedule.accumulate, trainer.global_rank, trainer.world_size)
        # Lightning tells it itself, but too late for the first epoch of a run that goes on.
        sampler.set_epoch(trainer.current_epoch)
        return self._loader(self._steps, sampler)

    def val_dataloader(self) -> DataLoader:
        """Held-out cases one by one; the same for every process, so that all agree when to stop."""
        return self._loader(self._held_out)

    def _loader(self, dataset: Dataset, sampler: Any = None) -> DataLoader:
        workers = self._experiment.hardware.workers
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
        )


class HeldOut(Dataset):
    """Held-out cases of all sources as batches of one."""

    def __init__(self, sources: list[Cases]) -> None:
        self._places = [(source, index) for source in sources for index in range(len(source))]

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._places)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One case as ``scans`` or as ``slices``."""
        source, index = self._places[number]
        return batch_of(source[index])


def batch_of(case: Case) -> dict[str, Any]:
    """One case as a batch of ``scans`` or of ``slices``; the other is ``None``."""
    batch = collate_for_networks([case])
    kind, other = ("slices", "scans") if batch["hu"].shape[1] == 1 else ("scans", "slices")
    return {kind: batch, other: None}


def fit(experiment: Experiment, run: Run, tell: Tell = lambda line: None, bar: bool = True) -> None:
    """Train, from the run's last checkpoint if there is one, and write the weights.

    :param tell: is told what happens, line by line.
    :raises InputError: for data that cannot be used.
    :raises TrainingError: for a loss that is no number, or a folder of another experiment's run.
    :raises OutputError: no permission, or a full disk.
    """
    run.begin(experiment)
    learner = _learner(experiment)
    data = gather(experiment, run, tell)
    write_json(data.described, run.data_file)
    module = _module(experiment, learner)
    batches = LearningData(experiment, data)
    last = run.last_checkpoint if run.last_checkpoint.exists() else None
    tell(f"Going on from {last}" if last else f"Training {experiment.name} for {experiment.schedule.steps} steps")
    trainer = _trainer(experiment, run, HeldOut(data.held_out), bar)
    trainer.fit(module, batches, ckpt_path=last)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        kept = _keep(experiment, run, module)
        if experiment.schedule.settle:
            cases = (pool.cases[index] for pool in data.pools for index in range(len(pool.cases)))
            tell(learner.settle(cases, experiment.seed) or "Nothing was left to fit.")
        _write(experiment, run, trainer, module, kept)


def weigh(experiment: Experiment, learner: Learner) -> dict[str, float]:
    """The weight of each of the engine's tasks; 1 where the experiment names none.

    :raises InputError: for a task that the engine has not.
    """
    named = experiment.losses.weights
    if unknown := sorted(set(named) - set(learner.tasks)):
        raise InputError(
            f"losses.weights names {unknown[0]}, which {experiment.engine} does not learn; "
            f"it learns {', '.join(learner.tasks)}."
        )
    return {task: named.get(task, 1.0) for task in learner.tasks}


def _learner(experiment: Experiment) -> Learner:
    L.seed_everything(experiment.seed, verbose=False)
    learner = make_learner(experiment.engine, experiment.data.spacing_mm, experiment.network)
    if paths := experiment.start_files:
        try:
            learner.network.load_state_dict(_start(paths, learner.network))
        except (OSError, RuntimeError) as error:
            told = ", ".join(str(path) for path in paths.values())
            raise InputError(f"The weights {told} to start from are missing or of another network.") from error
    return learner


def _start(paths: dict[str, Path], network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a network gathered from files: those of whole networks, or of its parts by name.

    A part may come from a larger network, whose other weights are left over.
    """
    wanted = network.state_dict()
    found = {} if "" in paths else {name: value for name, value in wanted.items() if name.split(".")[0] not in paths}
    for part, path in paths.items():
        for name, value in load_file(path).items():
            place = f"{part}.{name}" if part else name
            if place in wanted or not part:
                found[place] = _widened(value.float(), wanted.get(place, value).shape)
    return found


def _widened(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A layer that gets more channels than it learned from starts with weights of 0 for them: it answers as before."""
    if weight.ndim < 2 or weight.shape[:1] + weight.shape[2:] != shape[:1] + shape[2:] or weight.shape[1] > shape[1]:
        return weight
    wide = weight.new_zeros(shape)
    wide[:, : weight.shape[1]] = weight
    return wide


def _module(experiment: Experiment, learner: Learner) -> LearningModule:
    schedule = experiment.schedule
    weighting = make_weighting(experiment.losses.weighting, weigh(experiment, learner))
    return LearningModule(
        learner,
        weighting,
        schedule.steps,
        schedule.learning_rate,
        schedule.weight_decay,
        schedule.warm_up,
        experiment.seed,
    )


def _trainer(experiment: Experiment, run: Run, held_out: HeldOut, bar: bool) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_float32_matmul_precision("high")
    schedule, hardware = experiment.schedule, experiment.hardware
    scans = [batch["scans"] for batch in (held_out[n] for n in range(min(PICTURED, len(held_out)))) if batch["scans"]]
    # The newest of one, under a name of ours: "save_last" alone writes nothing before the end since Lightning 2.6.
    checkpoints = ModelCheckpoint(
        run.checkpoints, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks = [ResourceMeter(run), ValidationPictures(scans), BestWeights(run), ClosedEpochs(), checkpoints]
    if schedule.early_stopping is not None:
        stopping = schedule.early_stopping
        callbacks.insert(0, EarlyStopping(stopping.monitor, mode="max", patience=stopping.patience))
    return L.Trainer(
        default_root_dir=run.folder,
        max_steps=schedule.steps,
        max_epochs=math.ceil(schedule.steps / schedule.steps_per_epoch),
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        strategy="ddp" if hardware.devices > 1 else "auto",
        precision=hardware.precision,
        accumulate_grad_batches=schedule.accumulate,
        gradient_clip_val=schedule.gradient_clip,
        logger=[CSVLogger(run.folder, "metrics", run.next_part()), TensorBoardLogger(run.folder, "tensorboard", "")],
        log_every_n_steps=min(10, schedule.steps_per_epoch),
        check_val_every_n_epoch=schedule.validate_every,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[WholeFiles()],
    )


class ClosedEpochs(L.Callback):
    """Lets a checkpoint say that its epoch is over.

    Lightning writes it a moment before, and then takes one more batch of that epoch when validation was not due there.
    """

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct what the checkpoint tells of the course of the training."""
        loop = checkpoint["loops"]["fit_loop"]
        for epochs in loop["epoch_progress"].values():
            epochs["completed"] = epochs["processed"]
        batches = loop["epoch_loop.batch_progress"]
        batches |= {"current": dict.fromkeys(batches["current"], 0), "is_last_batch": False}

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Let the log count steps: after such a checkpoint Lightning counts one too many."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


class BestWeights(L.Callback):
    """Keeps the network's weights of the best validation, beside the checkpoints."""

    FILE = "best.safetensors"

    def __init__(self, run: Run) -> None:
        self._run, self._best = run, -math.inf

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._best = state_dict["best"]

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the weights if they are the best so far."""
        score = trainer.callback_metrics.get(MEAN_SCORE)
        if score is None or float(score) <= self._best:
            return
        self._best = float(score)
        if trainer.is_global_zero:
            self._run.checkpoints.mkdir(parents=True, exist_ok=True)
            write_bytes(_halved(module), self._run.checkpoints / self.FILE)


def _keep(experiment: Experiment, run: Run, module: LearningModule) -> str:
    """Give the network the weights that the experiment wants to keep: "last" or "best", which is told."""
    best = run.checkpoints / BestWeights.FILE
    if experiment.schedule.keep == "last" or not best.exists():
        return "last"
    weights = {name: value.to(module.device) for name, value in load_file(best).items()}
    module.learner.network.load_state_dict(weights)
    return "best"


def _write(experiment: Experiment, run: Run, trainer: L.Trainer, module: LearningModule, kept: str) -> None:
    summary = {
        "engine": experiment.engine,
        "steps": trainer.global_step,
        "kept": kept,
        "inference": module.learner.inference(),
        "task_weights": module.weighting.weights,
    }
    run.write_weights(_halved(module), json.loads(json.dumps(summary)))


def _halved(module: LearningModule) -> bytes:
    """The network in half precision, as bundles hold it."""
    state = module.learner.network.state_dict()
    return save(
        {
            name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for name, value in state.items()
        }
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
