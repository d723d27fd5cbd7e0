"""Lines of the child process, whatever they hold."""

from __future__ import annotations

import json

from COVIDMultitaskModule.protocol import STAGE_SHARES, LogMessage, ProgressMessage, parseLine
from hypothesis import given
from hypothesis import strategies as st

from COVIDMultitaskLib.progress import STAGES

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["event", "stage", "fraction", "elapsed_s", "message", "output", "exit_code"]), inner
        )
    ),
)


def test_every_stage_of_the_library_has_a_share_of_the_bar():
    assert list(STAGE_SHARES) == list(STAGES)
    assert abs(sum(STAGE_SHARES.values()) - 1.0) < 1e-9


@given(st.binary())
def test_any_bytes_are_understood_or_logged(line):
    assert parseLine(line) is not None


@given(JSON, st.sampled_from(["progress", "done", "error", "other"]))
def test_any_record_is_understood_or_logged(record, event):
    if isinstance(record, dict):
        record["event"] = event
    message = parseLine(json.dumps(record).encode())
    if isinstance(message, ProgressMessage):
        assert 0.0 <= message.overall <= 1.0


def test_an_unknown_stage_keeps_its_name():
    message = parseLine(b'{"event": "progress", "stage": "tea", "fraction": 2}')
    assert message == ProgressMessage("tea", 1.0, 0.0)
    assert message.title == "tea"


def test_a_later_event_is_only_logged():
    assert isinstance(parseLine(b'{"event": "news"}'), LogMessage)
