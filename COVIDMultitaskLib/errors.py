"""The errors a user can cause or meet: one family, one sentence each.

Every message says what is wrong and what to do about it, without a patient's
name in it. ``exit_code`` is what the command line returns.
"""

from __future__ import annotations


class CovidMultitaskError(Exception):
    """Base of every error this library raises on purpose; by itself: our fault."""

    exit_code = 1


class InputError(CovidMultitaskError):
    """The input is missing, unreadable, damaged or not usable as it is."""

    exit_code = 2


class NotChestCTError(CovidMultitaskError):
    """The input can be read but is not a chest CT; analysing it would mislead."""

    exit_code = 3


class BundleError(CovidMultitaskError):
    """A weight bundle is missing, damaged, tampered with, or of another engine or version."""

    exit_code = 2


class OutputError(CovidMultitaskError):
    """A result cannot be written: no permission, no space, or it is there already."""

    exit_code = 2


class Cancelled(CovidMultitaskError):
    """The user cancelled; nothing is written."""

    exit_code = 130


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence and an exit code for any error, our own faults included.

    >>> explain(MemoryError())
    ('The memory does not suffice for this scan; close other programs or crop the scan.', 2)
    """
    if isinstance(error, CovidMultitaskError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "Cancelled: nothing was written.", Cancelled.exit_code
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch's own allocator: a RuntimeError
        return "The memory does not suffice for this scan; close other programs or crop the scan.", 2
    fault = type(error).__name__
    return f"Something went wrong inside COVIDMultitask ({fault}); please report it.", CovidMultitaskError.exit_code
