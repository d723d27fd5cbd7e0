"""Axial pictures sorted into COVID and NonCOVID (COVID-CT and its followers): mixed sources, no patients.

The classes come from different sources, so a network can learn the source: never a clinical accuracy.
"""

from __future__ import annotations

import re
from pathlib import Path

from COVIDMultitaskLib.volume import IntensityKind
from training.data.adapters.contract import Adapter, Collection
from training.data.files import child, pictures, stem
from training.data.record import ImageFile, Reader, Record

NAME = "covid_vs_noncovid"
LICENCE = "LicenseRef-mixed-research-only"
_CLASSES = {True: ("COVID", "CT_COVID"), False: ("NonCOVID", "CT_NonCOVID", "non-COVID")}
_PAGE = re.compile(r"^(?P<paper>.+?)-p\d+")
_NUMBERED = (re.compile(r"^(nor_\d+)_img_\d+$"), re.compile(r"^(PIIS\d+)_\d+$"))


def recognises(root: Path) -> bool:
    """Both class folders with pictures in them."""
    found = [child(root, *names) for names in _CLASSES.values()]
    return all(folder is not None and folder.is_dir() and any(_is_picture(one) for one in folder.iterdir())
               for folder in found)  # fmt: skip


def find(root: Path) -> Collection:
    """One record for each picture. Figures of the same paper or normal subject share a group.

    Further near-duplicates are found by ``training.data.similarity``.
    """
    records = []
    for covid, names in _CLASSES.items():
        folder = child(root, *names)
        for path in pictures(folder) if folder else []:
            records.append(_record(path, covid))
    return Collection(tuple(records))


def group_of(name: str) -> str | None:
    """What a file name tells about its origin: the paper it is a figure of, or the subject."""
    if match := _PAGE.match(name):
        return match.group("paper")
    return next((match.group(1) for pattern in _NUMBERED if (match := pattern.match(name))), None)


def _record(path: Path, covid: bool) -> Record:
    group = group_of(stem(path))
    return Record(
        id=f"{NAME}/{'COVID' if covid else 'NonCOVID'}/{stem(path)}",
        source=NAME,
        licence=LICENCE,
        group=f"{NAME}/{group}" if group else None,
        image=ImageFile((path,), Reader.PICTURES),
        intensity=IntensityKind.PICTURE,
        has_spacing=False,
        covid=covid,
    )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in (".png", ".jpg", ".jpeg")


ADAPTER = Adapter(
    NAME,
    "COVID versus NonCOVID pictures",
    LICENCE,
    "COVID/*.jpg and NonCOVID/*.jpg",
    recognises,
    find,
)
