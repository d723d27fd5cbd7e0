"""Finding the files of a data set, whose releases differ in case, suffix and nesting."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from COVIDMultitaskLib.errors import InputError

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def natural_key(text: str | Path) -> list[tuple[int, str]]:
    """Sorting key by which slice 2 comes before slice 10."""
    parts = re.split(r"(\d+)", Path(text).name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def stem(path: Path) -> str:
    """File name without its suffix, ``.nii.gz`` included."""
    name = path.name
    for suffix in (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


def volumes(folder: Path, ending: str = "", recursive: bool = False) -> list[Path]:
    """Volume files of a folder in natural order, those whose stem ends with ``ending``."""
    return _with_suffix(folder, VOLUME_SUFFIXES, ending, recursive)


def pictures(folder: Path, recursive: bool = False) -> list[Path]:
    """Pictures of a folder in natural order."""
    return _with_suffix(folder, PICTURE_SUFFIXES, "", recursive)


def _with_suffix(folder: Path, suffixes: tuple[str, ...], ending: str, recursive: bool) -> list[Path]:
    if not folder.is_dir():
        return []
    files = folder.rglob("*") if recursive else folder.iterdir()
    found = [
        path
        for path in files
        if path.name.lower().endswith(suffixes)
        and not path.name.startswith(".")
        and stem(path).endswith(ending)
        and path.is_file()
    ]
    return sorted(found, key=lambda path: (str(path.parent), natural_key(path)))


def folders(root: Path) -> list[Path]:
    """Folders in a folder, in natural order."""
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if path.is_dir()), key=natural_key)


def child(root: Path, *names: str) -> Path | None:
    """The first of these files or folders in ``root``, whatever its case; ``None`` without any."""
    if not root.is_dir():
        return None
    present = {path.name.lower(): path for path in root.iterdir()}
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def needed(root: Path, title: str, *names: str) -> Path:
    """As :func:`child`, for what a layout cannot do without.

    :raises InputError: when none of them is there.
    """
    found = child(root, *names)
    if found is None:
        raise InputError(f"{title}: expected {' or '.join(names)} in {root}; give the folder as it was published.")
    return found


def descend(root: Path, *names: str) -> Path:
    """``root``, or the named folder in it: users give either."""
    return child(root, *names) or root


def by_stem(paths: Iterable[Path], drop: str = "") -> dict[str, Path]:
    """Files by their stem, without the ending ``drop``: the key under which image and mask meet."""
    return {stem(path).removesuffix(drop): path for path in paths}
