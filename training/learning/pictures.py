"""Pictures of what the network finds, for TensorBoard and the report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from COVIDMultitaskLib.labels import LESIONS, LOBES
from training.learning.learner import Batch, Learner

LUNG_WINDOW_HU = (-1350.0, 150.0)
COLORS = {
    "lobes": {label.value: label.color for label in LOBES},
    "lesions": {label.value: label.color for label in LESIONS},
}
OPACITY = 0.45


class ValidationPictures(Callback):
    """After each validation a page of held-out scans with their true and their found masks.

    :param batches: of held-out scans, one scan each.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def on_validation_epoch_end(self, trainer, module) -> None:
        """Draw into every TensorBoard log of the main process."""
        loggers = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
        if not trainer.is_global_zero or not loggers or trainer.sanity_checking:
            return
        pages = [page_of(module.learner, _on(batch, module.device)) for batch in self._batches]
        for one in loggers:
            for number, page in enumerate(pages):
                one.experiment.add_image(f"held-out {number}", page, trainer.global_step, dataformats="HWC")


def page_of(learner: Learner, batch: Batch) -> np.ndarray:
    """A scan of a batch with its true masks and those that a learner finds, as :func:`page` draws them."""
    with torch.no_grad():
        found = {name: mask[0].cpu().numpy() for name, mask in learner.masks(batch).items()}
    true = {name: batch[name][0].cpu().numpy() for name in ("lobes", "lesions") if batch[name] is not None}
    return page(batch["hu"][0].float().cpu().numpy(), true, found)


def page(hu: np.ndarray, true: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> np.ndarray:
    """A scan's middle coronal and its most affected axial plane: plain, true masks, found masks; uint8 (y, x, 3).

    :param hu: (z, y, x), z to the head, y to the back.
    :param true: "lobes" and "lesions" of that shape, as far as they are known.
    :param found: likewise.
    """
    lesions = true.get("lesions", found.get("lesions", np.zeros_like(hu)))
    z = int(((lesions > 0) & (lesions < 4)).sum((1, 2)).argmax()) or hu.shape[0] // 2
    planes = [(slice(None, None, -1), hu.shape[1] // 2), (z, slice(None))]
    rows = [np.concatenate([_drawn(hu, masks, plane) for masks in ({}, true, found)], 1) for plane in planes]
    return np.concatenate(rows, 0)


def _drawn(hu: np.ndarray, masks: Mapping[str, np.ndarray], plane: tuple) -> np.ndarray:
    low, high = LUNG_WINDOW_HU
    grey = ((hu[plane] - low) / (high - low)).clip(0, 1) * 255
    page = np.repeat(grey[..., None], 3, 2)
    for name, mask in masks.items():
        for value, color in COLORS[name].items():
            here = mask[plane] == value
            page[here] = (1 - OPACITY) * page[here] + OPACITY * np.array(color)
    return page.astype(np.uint8)


def _on(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
