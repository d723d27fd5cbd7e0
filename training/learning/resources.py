"""What a training costs: seconds, and the energy as far as it can be measured."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from COVIDMultitaskLib.writing import write_json
from training.learning.run import Run

RAPL = Path("/sys/class/powercap")
"""Where Linux counts the energy of processor packages."""

WATTS_PER_THREAD = 6.0
"""Taken where nothing measures the processor: a server's package shared out over its threads."""


class ResourceMeter(Callback):
    """Adds up the time and energy of a run over all its starts and writes them after each epoch.

    The processor's energy is read from RAPL where that may be read, else estimated; a GPU's is its power drawn at
    the end of each epoch, times the epoch's time.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seconds = self._joules = 0.0
        self._measured = True
        self._began = self._counted = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints, so that a run that goes on counts on."""
        return {"seconds": self._seconds, "joules": self._joules, "measured": self._measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint."""
        self._seconds, self._joules = state_dict["seconds"], state_dict["joules"]
        self._measured = state_dict["measured"]

    def on_train_epoch_start(self, trainer, module) -> None:
        """Begin an epoch."""
        self._began, self._counted = time.monotonic(), _rapl_joules()

    def on_train_epoch_end(self, trainer, module) -> None:
        """Add an epoch and write the sum."""
        seconds = time.monotonic() - self._began
        counted = _rapl_joules() - self._counted
        self._measured &= counted > 0
        processor = counted if counted > 0 else seconds * WATTS_PER_THREAD * torch.get_num_threads()
        self._seconds += seconds
        self._joules += processor + seconds * _gpu_watts(module.device)
        if trainer.is_global_zero:
            write_json(self._told(trainer, module), self._run.resources_file)

    def _told(self, trainer, module) -> dict[str, Any]:
        return {
            "seconds": round(self._seconds, 1),
            "steps": trainer.global_step,
            "processes": trainer.world_size,
            "device": _device_name(module.device),
            "threads": torch.get_num_threads(),
            "kilowatt_hours": round(self._joules * trainer.world_size / 3.6e6, 6),
            "energy": "processor measured (RAPL)" if self._measured else "processor estimated",
            "peak_gpu_bytes": torch.cuda.max_memory_allocated(module.device) if module.device.type == "cuda" else None,
        }


def _rapl_joules() -> float:
    """Energy of all packages since some time; 0 where it may not be read."""
    total = 0.0
    for package in RAPL.glob("intel-rapl:[0-9]"):
        try:
            total += int((package / "energy_uj").read_text()) / 1e6
        except (OSError, ValueError):
            return 0.0
    return total


def _gpu_watts(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    try:
        return torch.cuda.power_draw(device) / 1000
    except (ModuleNotFoundError, RuntimeError, AttributeError):  # NVIDIA's management library is not there
        return 0.0


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"
