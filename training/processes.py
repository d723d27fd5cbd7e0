"""Work shared out to processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result]:
    """The results in order; made in this process where ``processes`` is 1.

    Processes are started anew, not forked: a fork of a process whose PyTorch has computed in several threads waits
    for ever for threads that the fork did not take along.

    :param function: of a module's top level.
    :raises Exception: whatever ``function`` raised first.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_compute_in_one_thread) as pool:
        yield from pool.map(function, items)


def _compute_in_one_thread() -> None:
    import torch

    torch.set_num_threads(1)
