"""The synthetic scans on disk as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset


class CaseDataset(Dataset):
    """Scans made by ``training.synthesis.cases``, for ``length`` draws in a fixed random order.

    The folder is listed anew at each draw: scans made while the training runs join in.

    :param jitter: shift, scale and blur the intensities at random, so that a scan that
        comes again is not quite the same.
    """

    def __init__(self, folder: Path, length: int, seed: int, jitter: bool) -> None:
        self._folder, self._length, self._seed, self._jitter = folder, length, seed, jitter
        if not any(folder.glob("*.npz")):
            raise FileNotFoundError(f"{folder} holds no scans; make some with: python -m training.synthesis.cases")

    def __len__(self) -> int:
        """How many draws."""
        return self._length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """HU (z, y, x), label maps and the scan's labels."""
        paths = sorted(self._folder.glob("*.npz"), key=lambda path: int(path.stem))
        chance = np.random.default_rng((self._seed, index))
        path = paths[int(chance.integers(len(paths)))] if self._jitter else paths[index % len(paths)]
        with np.load(path) as case:
            hu = case["hu"].astype(np.float32)
            severity, diagnosis = case["labels"]
            lobes, lesions = case["lobes"], case["lesions"]
        if self._jitter:
            hu = _jittered(hu, chance)
        return {
            "hu": torch.from_numpy(hu),
            "lobes": torch.from_numpy(lobes),
            "lesions": torch.from_numpy(lesions),
            "severity": torch.tensor(int(severity)),
            "diagnosis": torch.tensor(int(diagnosis)),
        }


def _jittered(hu: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    noise = chance.standard_normal(hu.shape, dtype=np.float32) * chance.uniform(0, 15)
    return hu * np.float32(chance.uniform(0.97, 1.03)) + np.float32(chance.uniform(-20, 20)) + noise
