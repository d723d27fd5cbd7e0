"""Lines of the child process, whatever they hold."""

from __future__ import annotations

import json

from COVIDMultitaskModule import protocol
from COVIDMultitaskModule.protocol import PLAN, LogMessage, ProgressBar, ProgressMessage, parseLine, planOf
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


def test_the_bar_passes_each_stage_of_the_plan():
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


@given(st.lists(st.tuples(st.sampled_from(list(STAGES)), st.floats(0.001, 100)), min_size=1, unique_by=lambda s: s[0]))
def test_a_run_like_the_last_one_is_foreseen(stages):
    first, elapsed_s = ProgressBar(), 0.0
    for stage, seconds in stages:
        first.take(ProgressMessage(stage, 0.0, elapsed_s))
        elapsed_s += seconds
        first.take(ProgressMessage(stage, 1.0, elapsed_s))
    second, total_s, elapsed_s = ProgressBar(planOf(first.durations)), elapsed_s, 0.0
    for stage, seconds in stages:
        elapsed_s += seconds
        second.take(ProgressMessage(stage, 1.0, elapsed_s))
        assert abs(second.overall - elapsed_s / total_s) < 1e-6
        if second.remaining_s is not None:
            assert abs(second.remaining_s - (total_s - elapsed_s)) < 1e-3 * total_s


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
