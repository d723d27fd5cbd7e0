"""Where an engine can compute, as the worker told: Slicer itself never asks torch. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .compat import tr as _


@dataclass(frozen=True)
class Device:
    """One line of the device list.

    :param key: what the worker is asked for: "auto", "cpu", "cuda", "cuda:1", "mps".
    :param title: what the user reads, with the memory.
    """

    key: str
    title: str


AUTOMATIC = Device("auto", _("Automatic"))

UNASKED: tuple[Device, ...] = (AUTOMATIC, Device("cpu", _("CPU")), Device("cuda", _("GPU (CUDA)")))
"""Before the worker has told which devices there are."""


def devicesOf(told: Iterable[Mapping[str, Any]]) -> tuple[Device, ...]:
    """The device list of the worker's answer to ``devices``; what cannot be understood is left out.

    >>> devicesOf([{"device": "cuda:0", "name": "A100", "memory_gb": 80.0, "free_gb": 71.5}])[1].title
    'cuda:0: A100, 71.5 of 80.0 GB free'
    """
    found = [AUTOMATIC]
    for record in told:
        key, name = str(record.get("device") or ""), str(record.get("name") or "")
        if key:
            found.append(Device(key, _title(key, name, record)))
    return tuple(found)


def _title(key: str, name: str, record: Mapping[str, Any]) -> str:
    title = name if name.lower() == key else ": ".join(filter(None, [key, name]))
    free, total = record.get("free_gb"), record.get("memory_gb")
    if total is None:
        return title
    if free is None:
        return _("{device}, {total} GB").format(device=title, total=total)
    return _("{device}, {free} of {total} GB free").format(device=title, free=free, total=total)
