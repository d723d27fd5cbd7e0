"""Which device to compute on, and in which precision it gains."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from COVIDMultitaskLib.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
"""What a user may ask for; besides, "cuda:1" for the second of several GPUs."""


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is a CUDA device when there is one.

    :raises InputError: when the device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", name):
        raise InputError(f"There is no device {name!r}; choose one of {', '.join(DEVICES)}.")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("No CUDA device is usable here; choose the device cpu or auto.")
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
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=_cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere it is slower."""
    import torch

    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
