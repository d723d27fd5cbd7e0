"""All adapters, and which of them a folder is for."""

from __future__ import annotations

from pathlib import Path

from COVIDMultitaskLib.errors import InputError
from training.data.adapters import (
    cc_ccii,
    cov19_ct_db,
    covid19_ct_seg,
    covid_19_20,
    covid_ct_md,
    covid_semiseg,
    covid_vs_noncovid,
    lidc,
    luna16_lobes,
    lung_pet_ct_dx,
    manifest,
    medseg,
    mosmed,
    ricord,
    stoic2021,
    totalsegmentator,
    uestc,
)
from training.data.adapters.contract import Adapter
from training.data.files import folders

_MODULES = (
    manifest, mosmed, covid19_ct_seg, medseg, covid_semiseg, covid_19_20, uestc, cc_ccii, stoic2021, covid_ct_md,
    totalsegmentator, luna16_lobes, lidc, ricord, cov19_ct_db, lung_pet_ct_dx, covid_vs_noncovid,
)  # fmt: skip
ADAPTERS: dict[str, Adapter] = {module.ADAPTER.name: module.ADAPTER for module in _MODULES}
"""Adapters by name."""

SEARCH_DEPTH = 3
MOST_FOLDERS = 60
"""A folder of more folders than this holds patients, not data sets."""


def adapter(name: str) -> Adapter:
    """:raises InputError: for a name that none has."""
    if name not in ADAPTERS:
        raise InputError(f'There is no data set "{name}"; choose one of {", ".join(sorted(ADAPTERS))}.')
    return ADAPTERS[name]


def detect(root: str | Path) -> Adapter:
    """The adapter whose layout a folder has.

    :raises InputError: missing, of no known layout, or of several.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise InputError(f"{root} does not exist; check the path.")
    found = [one for one in ADAPTERS.values() if one.recognises(root)]
    if len(found) > 1:
        names = " and ".join(one.name for one in found)
        raise InputError(f"{root} looks like {names}; say which it is with --dataset.")
    if not found:
        raise InputError(
            f"{root} has the layout of no known data set; name one with --dataset to learn what is expected, "
            f"of {', '.join(sorted(ADAPTERS))}."
        )
    return found[0]


def discover(root: str | Path) -> list[tuple[Adapter, Path]]:
    """Every data set at ``root`` and in the folders below it; of one data set the uppermost folder.

    :raises InputError: when there is none.
    """
    root = Path(root).expanduser()
    found = _discovered(root, SEARCH_DEPTH, frozenset()) if root.is_dir() else []
    return found or [(detect(root), root)]


def _discovered(folder: Path, depth: int, above: frozenset[str]) -> list[tuple[Adapter, Path]]:
    here = [(one, folder) for one in ADAPTERS.values() if one.name not in above and one.recognises(folder)]
    inner = [one for one in folders(folder) if not one.name.startswith(".")]
    if depth == 0 or len(inner) > MOST_FOLDERS:
        return here
    above |= {one.name for one, _ in here}
    return here + [pair for one in inner for pair in _discovered(one, depth - 1, above)]
