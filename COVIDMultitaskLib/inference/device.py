"""Which device to compute on, and in which precision it gains."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from COVIDMultitaskLib.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is a CUDA device when there is one.

    :raises InputError: when the device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in DEVICES:
        raise InputError(f"There is no device {name!r}; choose one of {', '.join(DEVICES)}.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("No CUDA device is usable here; choose the device cpu or auto.")
    return torch.device(name)


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
