"""Where half precision cannot be trusted in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

SHALLOW = 8
"""Planes; of fewer, a convolution on a CPU is computed in full precision."""


class FullPrecisionWhereShallow(TorchFunctionMode):
    """Computes 3D convolutions of shallow volumes on a CPU in float32, whatever the precision around them.

    With bfloat16, oneDNN (PyTorch 2.13) gives the weights of such a convolution a wrong gradient: wrong by 4 to 100 %,
    or not a number, in volumes of up to 5 planes. Single slices are such volumes, and so are thin parts of a scan.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``, a convolution of a shallow volume in float32."""
        named = dict(kwargs or {})
        if func is torch.conv3d and _is_affected(args[0]):
            with torch.autocast("cpu", enabled=False):
                return func(*(_full(one) for one in args), **{name: _full(one) for name, one in named.items()})
        return func(*args, **named)


def _is_affected(image: torch.Tensor) -> bool:
    return image.device.type == "cpu" and image.shape[-3] < SHALLOW


def _full(argument: Any) -> Any:
    is_half = isinstance(argument, torch.Tensor) and argument.is_floating_point()
    return argument.float() if is_half else argument
