"""Lines of the child process, whatever they hold."""

from __future__ import annotations

import json

from COVIDMultitaskModule import protocol
from COVIDMultitaskModule.protocol import PLAN, LogMessage, ProgressBar, ProgressMessage, parseLine
from hypothesis import given
from hypothesis import strategies as st

from COVIDMultitaskLib import worker
from COVIDMultitaskLib.progress import STAGES

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["event", "stage", "fraction", "elapsed_s", "message", "exit_code", "id", "protocol"]),
            inner,
        )
    ),
)


def test_both_sides_speak_the_same_version():
    assert protocol.PROTOCOL == worker.PROTOCOL


def test_every_stage_of_the_library_has_its_share_of_the_bar():
    assert {stage for stage, _ in PLAN} == set(STAGES)
    assert abs(sum(share for _, share in PLAN) - 1.0) < 1e-9


STEPS = st.lists(st.tuples(st.sampled_from([*STAGES, "tea"]), st.floats(0, 1), st.floats(0, 1e6)))


@given(STEPS)
def test_the_bar_never_goes_back_whatever_is_told(steps):
    bar, before = ProgressBar(), 0.0
    for stage, fraction, elapsed_s in steps:
        bar.take(ProgressMessage(stage, fraction, elapsed_s))
        assert before <= bar.overall <= 1.0 + 1e-9
        assert bar.remaining_s is None or bar.remaining_s >= 0
        before = bar.overall


def test_the_bar_passes_each_look_of_the_engine():
    bar, seen = ProgressBar(), []
    for n, (stage, _) in enumerate(PLAN):
        for fraction in (0.0, 0.5, 1.0):
            bar.take(ProgressMessage(stage, fraction, n + fraction))
            seen.append(bar.overall)
    assert seen == sorted(seen) and abs(seen[-1] - 1.0) < 1e-9
    assert len(set(seen)) > 2 * len(PLAN)


def test_the_remaining_time_is_what_the_pace_so_far_gives():
    bar = ProgressBar((("predict", 1.0),))
    bar.take(ProgressMessage("predict", 0.25, 10.0))
    assert bar.remaining_s == 30.0


@given(st.binary())
def test_any_bytes_are_understood_or_logged(line):
    assert parseLine(line) is not None


@given(JSON, st.sampled_from(["progress", "done", "error", "hello", "bye", "devices", "other"]))
def test_any_record_is_understood_or_logged(record, event):
    if isinstance(record, dict):
        record["event"] = event
    message = parseLine(json.dumps(record).encode())
    if isinstance(message, ProgressMessage):
        assert 0.0 <= message.fraction <= 1.0


def test_an_unknown_stage_keeps_its_name():
    message = parseLine(b'{"event": "progress", "stage": "tea", "fraction": 2}')
    assert message == ProgressMessage("tea", 1.0, 0.0)
    assert message.title == "tea"


def test_a_later_event_is_only_logged():
    assert isinstance(parseLine(b'{"event": "news"}'), LogMessage)
