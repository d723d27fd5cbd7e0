"""What a picture of a slice allows to be measured: shares of pixels, no millilitres and no densities."""

from __future__ import annotations

import numpy as np

from COVIDMultitaskLib.engines.contract import Unlikeness
from COVIDMultitaskLib.findings import PictureFindings, QualityFlag
from COVIDMultitaskLib.measuring.quality import unlike


def measure_picture(
    lesions: np.ndarray | None, lungs: np.ndarray | None, shape: tuple[int, int, int]
) -> PictureFindings:
    """Measure an engine's answers on a picture.

    :param lesions: (1, y, x), 0 where there is none; None when not assessed.
    :param lungs: (1, y, x), 0 outside; None when nobody knows where they are.
    :param shape: (1, y, x) of the picture.
    """
    _, height, width = shape
    if lesions is None:
        return PictureFindings(width, height)
    lesion = lesions[0] > 0
    lung = None if lungs is None else lungs[0] > 0
    share = None if lung is None or not lung.any() else _percent((lesion & lung).sum(), lung.sum())
    return PictureFindings(width, height, _count(lesion), _percent(lesion.sum(), lesion.size), share)


def picture_flags(unlikeness: Unlikeness | None, with_lungs: bool) -> list[QualityFlag]:
    """What a reader of a picture's findings should know, warnings first."""
    flags = [
        QualityFlag(
            "picture",
            "warning",
            "A picture has no Hounsfield units and no pixel size; volumes, densities and classes of lesions are "
            "not given.",
        ),
        *unlike(unlikeness, "picture"),
    ]
    if not with_lungs:
        message = "Where the lungs end is not known on a picture; percentages are of the picture, not of the lungs."
        flags.append(QualityFlag("lungs_unknown", "info", message))
    return flags


def _count(lesion: np.ndarray) -> int:
    """Pieces that touch at sides or corners."""
    from scipy import ndimage

    return int(ndimage.label(lesion, structure=np.ones((3, 3)))[1])


def _percent(part: int, whole: int) -> float:
    return round(100.0 * int(part) / int(whole), 4)
