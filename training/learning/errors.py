"""What can go wrong while a network is trained."""

from __future__ import annotations

from COVIDMultitaskLib.errors import CovidMultitaskError


class TrainingError(CovidMultitaskError):
    """The training cannot go on: a loss that is no number, or a run folder of another experiment."""

    exit_code = 2
