"""Which of them a session tells when: tests/worker/test_session.py."""

import pytest

from shm.layout import Counter
from worker import session_events as events
from worker.announcement import Cause
from worker.heartbeat_facts import Looked
from worker.session_facts import Lost


def down(lost, **keys):
    given = {"number": 3, "attempt": 2, "up_for_ns": 0, "delay_ns": None}
    return events.down(lost, **given | {"our_cause": "", "our_error": ""} | keys)


def test_the_end_is_told_as_the_wire_saw_it():
    lost = Lost("peer_closed", 0.5, code=1001, reason="bye", error="x")
    event = down(lost, up_for_ns=1_500_000_000, delay_ns=250_000_000)
    assert (event.cause, event.delay_s) == ("peer_closed", 0.25)
    assert event.detail == {
        "session": 3,
        "attempt": 2,
        "up_s": 1.5,
        "code": 1001,
        "reason": "bye",
        "error": "x",
    }


def test_how_our_own_closing_looked_to_the_wire_is_no_news():
    event = down(Lost("reset", 0.5, error="of the wire"), our_cause=Cause.SUBSCRIBE_REFUSED)
    assert event.cause == "subscribe_refused"
    assert "error" not in event.detail
    ours = down(Lost("reset", 0.5, error="of the wire"), our_cause="silence", our_error="ours")
    assert ours.detail["error"] == "ours"


def test_a_death_says_how_much_was_unread_and_how_long_our_loop_stood():
    detail = events.timeout(1, Cause.BUSY, 2_000_000, Looked(7, lag_ns=500_000_000)).detail
    assert (detail["unread_bytes"], detail["loop_lag_s"]) == (7, 0.5)
    assert "unread_bytes" not in events.timeout(1, Cause.PING_TIMEOUT, 2_000_000, None).detail


@pytest.mark.parametrize(
    ("event", "counters"),
    [
        (events.up(1, 1, "p", 5), {Counter.SESSIONS}),
        (events.timeout(1, Cause.BUSY, 5, None), {Counter.TIMEOUTS}),
        (events.late_pong(5), {Counter.LATE_PONGS}),
        (events.fresh(), set()),
        (down(Lost("connect_refused", 0.5)), {Counter.CONNECT_FAILURES}),
        (down(Lost("reset", 0.5), our_cause=Cause.STOP), set()),
        (down(Lost("reset", 0.5), up_for_ns=1), set()),
        (down(Lost("oversize", 0.5), up_for_ns=10**9), {Counter.OVERSIZE}),
        (
            down(Lost("protocol_error", 0.5)),
            {Counter.CONNECT_FAILURES, Counter.PROTOCOL_ERRORS},
        ),
    ],
)
def test_each_event_moves_its_counters(event, counters):
    assert set(events.counters_of(event)) == counters
