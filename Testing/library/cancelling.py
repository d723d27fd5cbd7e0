"""Cancelling an engine while it works."""

from __future__ import annotations

import pytest

from COVIDMultitaskLib.engines.contract import Engine
from COVIDMultitaskLib.errors import Cancelled
from COVIDMultitaskLib.progress import Event, Progress
from COVIDMultitaskLib.volume import Volume

each_stage = pytest.mark.parametrize("stage", ["prepare", "load", "predict", "restore"])


def assert_cancelled_in(stage: str, engine: Engine, scan: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """An analysis that is cancelled as soon as it tells of a stage ends there."""
    monkeypatch.setattr("COVIDMultitaskLib.progress.QUIET_S", 0.0)
    at: list[str] = []

    def listen(event: Event) -> None:
        at.append(event.stage)

    with pytest.raises(Cancelled):
        engine.predict(scan, Progress(listen, lambda: at[-1:] == [stage]))
    assert at[-1] == stage
