"""What the worker says and is asked, as JSON lines: ``COVIDMultitaskLib.worker`` defines them, version 1.

Here the worker's lines become messages, and its stages one bar that only moves forward. A line
that is none of the protocol's is not an error: it goes to the log (a library that prints, a later
version that says more).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from COVIDMultitaskLib.progress import STAGES

PROTOCOL = 1

PLAN: tuple[tuple[str, float], ...] = (
    ("read", 0.05),
    ("prepare", 0.05),
    ("load", 0.05),
    ("predict", 0.65),
    ("restore", 0.10),
    ("measure", 0.05),
    ("write", 0.05),
)
"""The stages in the order an engine passes them, with their share of the time before any run was measured."""


@dataclass(frozen=True)
class HelloMessage:
    """The worker is there. ``protocol`` is the version it speaks."""

    protocol: int
    version: str


@dataclass(frozen=True)
class ProgressMessage:
    """How far a request is. ``fraction`` is that of the stage, 0..1."""

    stage: str
    fraction: float
    elapsed_s: float
    id: object = None

    @property
    def title(self) -> str:
        """The stage in words."""
        return STAGES.get(self.stage, self.stage)


@dataclass(frozen=True)
class DoneMessage:
    """A request succeeded; ``record`` holds its answer, such as ``output``."""

    record: Mapping[str, Any]
    id: object = None


@dataclass(frozen=True)
class ErrorMessage:
    """A request failed: one sentence for the user, and the exit code the command line would have."""

    message: str
    exitCode: int
    id: object = None


@dataclass(frozen=True)
class ByeMessage:
    """The worker leaves on its own account."""

    reason: str


@dataclass(frozen=True)
class LogMessage:
    """Anything else the worker printed."""

    text: str


Message = HelloMessage | ProgressMessage | DoneMessage | ErrorMessage | ByeMessage | LogMessage


def requestLine(record: Mapping[str, Any]) -> bytes:
    r"""A request as it goes over the wire.

    >>> requestLine({"request": "ping", "id": 1})
    b'{"request": "ping", "id": 1}\n'
    """
    return (json.dumps(record) + "\n").encode("ascii")


def parseLine(line: bytes) -> Message:
    r"""Understand one line of output; what cannot be understood is a :class:`LogMessage`.

    >>> parseLine(b'{"event": "bye", "reason": "idle"}')
    ByeMessage(reason='idle')
    >>> parseLine(b"warning: \xff")
    LogMessage(text='warning: \ufffd')
    """
    text = line.decode("utf-8", errors="replace").rstrip()
    try:
        return _message(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return LogMessage(text)


def _message(record: dict) -> Message:
    """:raises KeyError, TypeError, ValueError, OverflowError: when the record is not of this protocol."""
    event, identifier = record["event"], record.get("id")
    if event == "progress":
        fraction, elapsed_s = _fraction(record["fraction"]), float(record.get("elapsed_s", 0.0))
        return ProgressMessage(str(record["stage"]), fraction, elapsed_s, identifier)
    if event in ("done", "devices", "pong"):
        return DoneMessage(record, identifier)
    if event == "error":
        return ErrorMessage(str(record["message"]), int(record.get("exit_code", 1)), identifier)
    if event == "hello":
        return HelloMessage(int(record["protocol"]), str(record.get("version", "")))
    if event == "bye":
        return ByeMessage(str(record.get("reason", "")))
    raise KeyError(event)


def _fraction(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if math.isnan(number):
        raise ValueError("fraction is not a number")
    return min(max(number, 0.0), 1.0)


class ProgressBar:
    """One bar for all stages: never goes back, and guesses what time remains.

    :param plan: the stages in their order, each with its share of the time.

    ``durations`` are the seconds spent in each stage so far.

    >>> bar = ProgressBar()
    >>> bar.take(ProgressMessage("read", 0.5, 1.0))
    >>> bar.overall
    0.025
    """

    def __init__(self, plan: Sequence[tuple[str, float]] = PLAN) -> None:
        self._plan = plan
        self._at = 0
        self._fraction = 0.0
        self.elapsed_s = 0.0
        self.durations: dict[str, float] = {}

    def take(self, message: ProgressMessage) -> None:
        """Move forward to where the message is."""
        before, self.elapsed_s = self.elapsed_s, max(self.elapsed_s, message.elapsed_s)
        self.durations[message.stage] = self.durations.get(message.stage, 0.0) + self.elapsed_s - before
        place = self._placeOf(message)
        if place is None:
            return
        self._fraction = message.fraction if place != self._at else max(self._fraction, message.fraction)
        self._at = place

    def _placeOf(self, message: ProgressMessage) -> int | None:
        """Where in the plan a message is: a stage that begins again is its next turn."""
        isAgain = self._plan[self._at][0] == message.stage and message.fraction < self._fraction
        first = self._at + 1 if isAgain else self._at
        return next((n for n in range(first, len(self._plan)) if self._plan[n][0] == message.stage), None)

    @property
    def overall(self) -> float:
        """How much of the whole is done, 0..1."""
        return sum(share for _, share in self._plan[: self._at]) + self._plan[self._at][1] * self._fraction

    @property
    def remaining_s(self) -> float | None:
        """Time that probably remains; ``None`` while it is too early to say."""
        if self.elapsed_s < 2.0 or self.overall < 0.1:
            return None
        return self.elapsed_s * max(1.0 - self.overall, 0.0) / self.overall


def planOf(durations: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """The plan of a run that takes its time as an earlier one did.

    >>> planOf({"read": 1.0, "predict": 3.0})
    (('read', 0.25), ('predict', 0.75))
    """
    total = sum(durations.values())
    return tuple((stage, seconds / total) for stage, seconds in durations.items()) if total > 0 else PLAN


def remainingText(seconds: float | None) -> str:
    """The remaining time in words, rounded as roughly as it is known.

    >>> remainingText(None), remainingText(3), remainingText(42), remainingText(200)
    ('', 'a few seconds left', 'about 40 s left', 'about 3 min left')
    """
    if seconds is None:
        return ""
    if seconds < 7.5:
        return "a few seconds left"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s left" if seconds < 30 else f"about {10 * round(seconds / 10)} s left"
    return f"about {round(seconds / 60)} min left"
