"""Which device to compute on, and in which precision it gains."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from COVIDMultitaskLib.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What a user may ask for; besides, "cuda:1" for the second of several GPUs. "mps": the GPU of an Apple computer."""


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is a CUDA device when there is one, else the CPU.

    :raises InputError: when the device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,2})?", name):
        raise InputError(f"There is no device {name!r}; choose one of {', '.join(DEVICES)}.")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("No CUDA device is usable here; choose the device cpu or auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("No Apple GPU is usable here; choose the device cpu or auto.")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(f"There is no device {name!r}, they are numbered from cuda:0; choose cuda or auto.")
    return device


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch means that the device's memory does not suffice."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    # Torch has a class only for its own allocations on a GPU; CUDA's libraries and the CPU just say so.
    signs = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return any(sign in str(error) for sign in signs)


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Half precision where the device has units for it, else none."""
    import torch

    if device.type == "cuda":
        half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast("cuda", dtype=half)
    if device.type == "mps":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=_cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere it is slower."""
    import torch

    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def list_devices() -> list[dict[str, Any]]:
    """What ``choose_device`` accepts here, each with its name and its memory in GB (None: not known)."""
    import torch

    total_gb, free_gb = _main_memory_gb()
    found = [_device("cpu", "CPU", total_gb, free_gb)]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        found.append(_device(f"cuda:{index}", torch.cuda.get_device_name(index), total / 1e9, free / 1e9))
    if torch.backends.mps.is_available():
        limit = getattr(torch.mps, "recommended_max_memory", None)  # torch 2.3 and later
        found.append(_device("mps", "Apple GPU", limit() / 1e9 if limit else None, None))
    return found


def _device(device: str, name: str, memory_gb: float | None, free_gb: float | None) -> dict[str, Any]:
    memory = {"memory_gb": memory_gb, "free_gb": free_gb}
    return {"device": device, "name": name, **{key: gb and round(gb, 1) for key, gb in memory.items()}}


def _main_memory_gb() -> tuple[float | None, float | None]:
    """Total and free main memory; what the system does not tell in the usual ways is None."""
    sizes: list[float | None] = []
    for pages in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"):
        try:
            sizes.append(os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") / 1e9)
        except (AttributeError, ValueError, OSError):
            sizes.append(None)
    return sizes[0], sizes[1]
