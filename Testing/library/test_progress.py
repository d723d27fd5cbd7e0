"""What a listener hears of a long computation, and how it is stopped."""

from __future__ import annotations

import pytest

from COVIDMultitaskLib import progress as progress_module
from COVIDMultitaskLib.errors import Cancelled
from COVIDMultitaskLib.progress import STAGES, Event, Progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """``clock[0]`` is the time."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    return now


def heard(events: list[Event]) -> list[tuple[str, float]]:
    return [(event.stage, round(event.fraction, 6)) for event in events]


def test_start_and_end_of_every_stage_are_told() -> None:
    events: list[Event] = []
    progress = Progress(events.append)
    for stage in STAGES:
        with progress.stage(stage):
            pass
    assert heard(events) == [(stage, fraction) for stage in STAGES for fraction in (0.0, 1.0)]
    assert list(progress.timings_s) == list(STAGES)


def test_steps_that_follow_at_once_are_not_told(clock: list[float]) -> None:
    events: list[Event] = []
    progress = Progress(events.append)
    with progress.stage("predict"):
        for n in range(1, 100):
            clock[0] += 0.025
            progress.advance(n / 100)
    told = [fraction for _, fraction in heard(events)]
    assert told[0] == 0.0 and told[-1] == 1.0
    assert 15 < len(told) < 30


def test_a_stage_that_comes_again_adds_to_its_time(clock: list[float]) -> None:
    progress = Progress()
    for seconds in (2.0, 3.0):
        with progress.stage("predict"):
            clock[0] += seconds
    assert progress.timings_s == {"predict": 5.0}


def test_elapsed_time_counts_from_the_beginning(clock: list[float]) -> None:
    events: list[Event] = []
    progress = Progress(events.append, _started=clock[0])
    clock[0] += 4.0
    with progress.stage("read"):
        clock[0] += 1.5
    assert [event.elapsed_s for event in events] == [4.0, 5.5]


@pytest.mark.parametrize(("fraction", "told"), [(-1.0, 0.0), (7.0, 1.0)])
def test_fractions_stay_between_0_and_1(fraction: float, told: float) -> None:
    events: list[Event] = []
    Progress(events.append).advance(fraction)
    assert events[0].fraction == told


def test_parts_make_up_a_stage(monkeypatch) -> None:
    monkeypatch.setattr(progress_module, "QUIET_S", 0.0)
    events: list[Event] = []
    progress = Progress(events.append)
    with progress.stage("predict"):
        for part in (progress.part(0.0, 0.25), progress.part(0.25, 0.75)):
            for fraction in (0.5, 1.0):
                part.advance(fraction)
    assert heard(events) == [("predict", f) for f in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]


@pytest.mark.parametrize("act", ["advance", "check", "part", "stage"])
def test_every_step_asks_whether_to_stop(act: str) -> None:
    events: list[Event] = []
    progress = Progress(events.append, lambda: True)
    with pytest.raises(Cancelled, match="nothing was written"):
        if act == "advance":
            progress.advance(0.5)
        elif act == "check":
            progress.check()
        elif act == "part":
            progress.part(0.0, 0.5).check()
        else:
            with progress.stage("read"):
                pytest.fail("the work must not begin")
    assert events == []


def test_a_step_too_soon_to_be_told_is_not_too_soon_to_stop() -> None:
    cancelled = False
    progress = Progress(is_cancelled=lambda: cancelled)
    with pytest.raises(Cancelled), progress.stage("predict"):
        cancelled = True
        progress.advance(0.1)


def test_an_error_in_a_stage_is_not_hidden_by_progress() -> None:
    events: list[Event] = []
    progress = Progress(events.append)
    with pytest.raises(ZeroDivisionError), progress.stage("read"):
        raise ZeroDivisionError
    assert heard(events) == [("read", 0.0)]
