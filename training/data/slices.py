"""The expert slices of COVID-SemiSeg: 8-bit pictures cropped to the lungs, with lesion masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from COVIDMultitaskLib.preparation.picture import LUNGS_WIDTH_MM, picture_to_hu


@dataclass(frozen=True)
class LesionSlice:
    """One axial slice, front up, the patient's sides along x.

    :param hu: float32 (y, x), guessed from grey values.
    :param lesions: uint8 (y, x), values of ``labels.LESIONS``.
    :param pixel_mm: guessed size of a pixel.
    """

    name: str
    hu: np.ndarray
    lesions: np.ndarray
    pixel_mm: float


def read_expert_slices(root: Path) -> list[LesionSlice]:
    """Read ``MultiClassInfection-Train`` under the public release's ``TrainingSet``.

    The pictures lie on their side (rows run across the patient); they are turned upright.
    """
    folder = root / "MultiClassInfection-Train"
    paths = sorted((folder / "Imgs").glob("*.jpg"), key=lambda path: int(path.stem))
    return [_read_slice(path, folder / "GT" / f"{path.stem}.png") for path in paths]


def _read_slice(image: Path, mask: Path) -> LesionSlice:
    grey = np.asarray(Image.open(image).convert("L")).T
    lesions = np.asarray(Image.open(mask)).T
    if grey.shape != lesions.shape:
        raise ValueError(f"{image.name} is {grey.shape} but its mask is {lesions.shape}")
    if lesions.max() > 2:
        raise ValueError(f"{mask.name} holds the label {lesions.max()}; expected 0, 1 and 2")
    return LesionSlice(image.stem, picture_to_hu(grey), lesions.astype(np.uint8), LUNGS_WIDTH_MM / grey.shape[1])
