"""Lobe maps of LUNA16 scans (Tang et al. 2019: 50 scans; Xie et al.), named after the CT's series."""

from __future__ import annotations

from pathlib import Path

from training.data.adapters.contract import Adapter, Collection
from training.data.conventions import LOBE_CODES
from training.data.files import by_stem, child, folders, volumes
from training.data.record import Annotator, ImageFile, Record, one_mask

NAME = "luna16_lobes"
LICENCE = "CC-BY-NC-SA-4.0"
_ENDING = "_LobeSegmentation"


def recognises(root: Path) -> bool:
    """Maps that end in _LobeSegmentation, in the folder or in annotations."""
    return bool(_maps(root))


def find(root: Path) -> Collection:
    """One record for each map; the CT is looked for in images, in LUNA16's subsets and beside the maps."""
    places = [root, *(folder for folder in folders(root) if folder.name == "images" or "subset" in folder.name)]
    images = {name: path for place in places for name, path in by_stem(volumes(place)).items()}
    maps = by_stem(_maps(root), _ENDING)
    records = tuple(_record(series, path, images.get(series)) for series, path in maps.items())
    without = sum(record.image is None for record in records)
    absent = (f"{without} of {len(records)} lobe maps have no CT: expected images/<series>.mhd.",) if without else ()
    return Collection(records, absent)


def _maps(root: Path) -> list[Path]:
    return volumes(child(root, "annotations") or root, _ENDING)


def _record(series: str, lobes: Path, image: Path | None) -> Record:
    return Record(
        id=f"{NAME}/{series}",
        source=NAME,
        licence=LICENCE,
        group=f"series/{series}",  # the same series may be there as DICOM of LIDC-IDRI
        image=ImageFile((image,)) if image else None,
        lobes=one_mask(lobes, LOBE_CODES["luna16"]),
        annotator=Annotator.EXPERT,
        covid=False,  # scanned before 2011
    )


ADAPTER = Adapter(
    NAME,
    "LUNA16 lobes",
    LICENCE,
    "annotations/<series>_LobeSegmentation.nrrd (or the maps themselves in the folder) with images/<series>.mhd",
    recognises,
    find,
)
