"""Pictures of single axial slices: PNG and JPEG files, grey values of unknown window and pixel size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from COVIDMultitaskLib.errors import InputError
from COVIDMultitaskLib.volume import Geometry, IntensityKind, Provenance, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SMALLEST_SIDE, LARGEST_SIDE = 64, 8192
FEWEST_GREYS = 32
COLOURED = 16.0
"""Pixels whose channels differ by more than this, of 255, are coloured."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601


def is_picture(path: str | Path) -> bool:
    """Whether a path is that of a PNG or JPEG file, by its name."""
    return Path(path).suffix.lower() in FORMATS


def read_picture(path: str | Path) -> Volume:
    """Read a picture of one axial slice: front up, the patient's right at the left.

    :return: (1, y, x) grey values, brighter is denser, of the kind ``PICTURE``. Its geometry counts pixels: nobody
        knows the millimetres.
    :raises InputError: missing, damaged, too small or too large, or no picture of a CT.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path.")
    image = _opened(path)
    grey, notes = _grey(image, path)
    if grey.min() == grey.max() or np.unique(grey).size <= FEWEST_GREYS:
        raise InputError(f"{path.name} holds only a few grey values, as a mask or a drawing does; give the CT slice.")
    shape = (1, *grey.shape)
    provenance = Provenance(FORMATS[path.suffix.lower()], notes=notes)
    return Volume(grey[None], Geometry(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), IntensityKind.PICTURE, provenance)


def _opened(path: Path) -> sitk.Image:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()[:2]
        if not SMALLEST_SIDE <= min(size) <= max(size) <= LARGEST_SIDE:
            raise InputError(
                f"{path.name} has {size[0]} x {size[1]} pixels; give a slice of {SMALLEST_SIDE} to {LARGEST_SIDE} "
                "pixels along each side."
            )
        return reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path.name} cannot be read as a picture; save it as PNG or JPEG again.") from error


def _grey(image: sitk.Image, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Grey values (y, x) and what was done to get them; transparency is passed over."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    if array.ndim not in (2, 3) or image.GetDimension() != 2:
        raise InputError(f"{path.name} holds several pictures; give one slice.")
    if array.ndim == 2:
        return array, ()
    if array.shape[2] < 3:
        return array[..., 0], ()
    colours = array[..., :3].astype(np.float32)
    scale = 255.0 / np.iinfo(array.dtype).max
    is_coloured = bool((np.ptp(colours, axis=2) * scale > COLOURED).mean() > 0.001)
    notes = ("The picture's colours were turned to grey; what is drawn over the slice is read as part of it.",)
    return colours @ _LUMINANCE, notes if is_coloured else ()
