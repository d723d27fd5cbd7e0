"""What the child process says: one JSON object a line on its standard output, in UTF-8.

Version 1. ``python -m COVIDMultitaskLib analyze INPUT -o DIR --json`` prints

``{"event": "progress", "stage": "predict", "fraction": 0.4, "elapsed_s": 3.2}``
    any number of times; ``stage`` is a key of ``COVIDMultitaskLib.progress.STAGES``,
    ``fraction`` that of the stage, 0 to 1;

and then, as its last line, one of

``{"event": "done", "output": "DIR"}``
    with exit code 0: ``lobes.nrrd``, ``lesions.nrrd`` and ``findings.json`` are in ``DIR``;
``{"event": "error", "message": "one sentence", "exit_code": 2}``
    with that exit code.

A line that is none of these is not an error: it goes to the log (a library that prints, a
later version that says more).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from COVIDMultitaskLib.progress import STAGES

STAGE_SHARES: dict[str, float] = {
    "read": 0.10,
    "prepare": 0.10,
    "load": 0.10,
    "predict": 0.50,
    "restore": 0.10,
    "measure": 0.05,
    "write": 0.05,
}
"""Share of each stage in the whole time, so that the progress bar moves evenly."""


@dataclass(frozen=True)
class ProgressMessage:
    """How far the child process is. ``fraction`` is that of the stage, 0..1."""

    stage: str
    fraction: float
    elapsed_s: float

    @property
    def title(self) -> str:
        """The stage in words."""
        return STAGES.get(self.stage, self.stage)

    @property
    def overall(self) -> float:
        """How much of the whole is done, 0..1."""
        done = 0.0
        for stage, share in STAGE_SHARES.items():
            if stage == self.stage:
                return done + share * self.fraction
            done += share
        return 0.0


@dataclass(frozen=True)
class DoneMessage:
    """The results are in the folder ``output``."""

    output: str


@dataclass(frozen=True)
class ErrorMessage:
    """The child process gives up: one sentence for the user, and its exit code."""

    message: str
    exitCode: int


@dataclass(frozen=True)
class LogMessage:
    """Anything else the child process printed."""

    text: str


Message = ProgressMessage | DoneMessage | ErrorMessage | LogMessage


def parseLine(line: bytes) -> Message:
    r"""Understand one line of output; what cannot be understood is a :class:`LogMessage`.

    >>> parseLine(b'{"event": "progress", "stage": "read", "fraction": 0.5, "elapsed_s": 1}').overall
    0.05
    >>> parseLine(b"warning: \xff")
    LogMessage(text='warning: \ufffd')
    """
    text = line.decode("utf-8", errors="replace").rstrip()
    try:
        return _message(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError):
        return LogMessage(text)


def _message(record: dict) -> Message:
    """:raises KeyError, TypeError, ValueError: when the record is not of this protocol."""
    event = record["event"]
    if event == "progress":
        return ProgressMessage(str(record["stage"]), _fraction(record["fraction"]), float(record.get("elapsed_s", 0.0)))
    if event == "done":
        return DoneMessage(str(record["output"]))
    if event == "error":
        return ErrorMessage(str(record["message"]), int(record.get("exit_code", 1)))
    raise KeyError(event)


def _fraction(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if math.isnan(number):
        raise ValueError("fraction is not a number")
    return min(max(number, 0.0), 1.0)
