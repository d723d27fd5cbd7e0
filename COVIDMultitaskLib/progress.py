"""How a long computation tells where it is, and learns that it should stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from COVIDMultitaskLib.errors import Cancelled

STAGES: dict[str, str] = {
    "read": "Reading the scan",
    "prepare": "Preparing",
    "load": "Loading the weights",
    "predict": "Finding lobes and lesions",
    "restore": "Returning to the scan's grid",
    "measure": "Measuring",
    "write": "Writing the results",
}
"""Stages of an analysis in their order: key to what a user reads."""


QUIET_S = 0.1
"""Between a stage's start and end, events come no closer than this: nobody reads faster."""


@dataclass(frozen=True)
class Event:
    """One step of progress. ``fraction`` is that of the stage, 0..1."""

    stage: str
    fraction: float
    elapsed_s: float


@dataclass
class Progress:
    """Reports events to a listener and checks, at each one, whether to stop.

    :param listener: called with every event; the default ignores them.
    :param is_cancelled: asked at every event and by :meth:`check`.

    >>> seen = []
    >>> progress = Progress(seen.append)
    >>> with progress.stage("read"):
    ...     progress.advance(0.5)  # too soon after the start to be told
    >>> [(event.stage, event.fraction) for event in seen]
    [('read', 0.0), ('read', 1.0)]
    """

    listener: Callable[[Event], None] = lambda event: None
    is_cancelled: Callable[[], bool] = lambda: False
    timings_s: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _told: float = -1.0
    _started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage; its wall time is added to ``timings_s``."""
        started = time.perf_counter()
        self._stage = name
        self.advance(0.0)
        yield
        self.advance(1.0)
        self.timings_s[name] = self.timings_s.get(name, 0.0) + time.perf_counter() - started

    def advance(self, fraction: float) -> None:
        """Report how much of the current stage is done (0..1), unless something was told just now.

        :raises Cancelled: when the user asked to stop.
        """
        self.check()
        elapsed = time.perf_counter() - self._started
        if 0.0 < fraction < 1.0 and elapsed - self._told < QUIET_S:
            return
        self._told = elapsed
        self.listener(Event(self._stage, min(max(fraction, 0.0), 1.0), elapsed))

    def part(self, start: float, stop: float) -> Progress:
        """For work that is only the part ``start`` to ``stop`` (0..1) of the current stage."""
        return Progress(lambda event: self.advance(start + (stop - start) * event.fraction), self.is_cancelled)

    def inner(self) -> Progress:
        """For a computation with stages of its own, which together are the current stage."""
        order, furthest = list(STAGES), 0.0

        def tell(event: Event) -> None:
            nonlocal furthest
            at = (order.index(event.stage) + event.fraction) / len(order)
            furthest = max(furthest, at)  # stages may begin again
            self.advance(furthest)

        return Progress(tell, self.is_cancelled)

    def check(self) -> None:
        """:raises Cancelled: when the user asked to stop."""
        if self.is_cancelled():
            raise Cancelled("Cancelled: nothing was written.")
