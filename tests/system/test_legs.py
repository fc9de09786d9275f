"""Two sessions of one connection for good: the first arrival wins, one death costs nothing."""

import time

import pytest
from fleet import wait_for
from rotating import (
    RATE,
    assert_each_once_in_order,
    count,
    events_of,
    more,
    rotating,
    rotations,
    sessions_told,
    stretches_told,
    view_of,
    word,
)

from shm.layout import Counter, Word
from worker.session_state import State

pytestmark = pytest.mark.system
SETTLE_NS = 500_000_000
LEGS = 'legs = 2\nleg2 = { url = "SECOND" }\n'


def both_up(fleet):
    """Wait until both legs are up and have brought messages since."""

    def are_up():
        with view_of(fleet) as view:
            words = view.words
            states = {words[Word.LEG_1_STATE], words[Word.LEG_2_STATE]}
            since = max(words[Word.LEG_1_UP_SINCE_NS], words[Word.LEG_2_UP_SINCE_NS])
        return states == {State.UP.value} and time.monotonic_ns() > since + SETTLE_NS

    wait_for(are_up, "both legs")


def test_each_message_is_delivered_once_and_the_legs_are_compared(tmp_path):
    with rotating(tmp_path, LEGS) as (fleet, exchange, listener):
        both_up(fleet)
        exchange.fault("lag", tag="b", delay=0.1)
        won = count(fleet, Counter.LEG_1_WINS)
        wait_for(lambda: count(fleet, Counter.LEG_1_WINS) > won + RATE, "wins of leg 1")
        wait_for(lambda: word(fleet, Word.LEG_2_LAG_NS) > 50_000_000, "the lag of leg 2")
        more(listener)
        assert_each_once_in_order(listener)
        row = fleet.rows()["a"]
        assert row["counters"]["overlap_duplicates"] >= row["counters"]["leg_1_wins"] > RATE
        first, second = row["legs"]
        assert (first["state"], second["state"]) == ("up", "up")
        assert first["wins"] == row["counters"]["leg_1_wins"]
        assert second["lag_ms"] > 50


def test_the_death_of_a_leg_is_not_the_connection_s(tmp_path):
    with rotating(tmp_path, LEGS) as (fleet, exchange, listener):
        both_up(fleet)
        for tag in ("a", "b", "a"):
            told = len(events_of(listener, "leg_up"))
            exchange.fault("reset", tag=tag)
            wait_for(lambda told=told: len(events_of(listener, "leg_up")) > told, "it is back")
            more(listener)
            both_up(fleet)
            assert word(fleet, Word.SESSION_STATE) == State.UP.value
        assert_each_once_in_order(listener)
        assert not events_of(listener, "down")
        assert {event["detail"]["leg"] for event in events_of(listener, "leg_down")} == {1, 2}
        assert len(sessions_told(listener)) == 1
        assert len(stretches_told(listener)) == 1


def test_a_leg_that_falls_silent_is_found_by_its_own_heartbeat(tmp_path):
    with rotating(tmp_path, LEGS) as (fleet, exchange, listener):
        both_up(fleet)
        exchange.fault("half_open", tag="b", seconds=3)
        (dead,) = wait_for(lambda: events_of(listener, "leg_down"), "its death")
        assert (dead["detail"]["leg"], dead["cause"]) == (2, "ping_timeout")
        wait_for(lambda: events_of(listener, "leg_up"), "it is back")
        more(listener)
        assert_each_once_in_order(listener)


def test_rotation_replaces_one_leg_after_the_other(tmp_path):
    with rotating(tmp_path, LEGS) as (fleet, exchange, listener):
        both_up(fleet)
        before = {session["id"] for session in exchange.sessions()}
        fleet.command("rotate", "a", "--wait", "40")
        done = wait_for(lambda: len(found := rotations(listener)) == 2 and found, "both")
        assert [event["detail"]["leg"] for event in done] == [1, 2]
        assert not before & {session["id"] for session in exchange.sessions()}
        more(listener)
        assert_each_once_in_order(listener)
        assert not events_of(listener, "down")


def test_when_both_are_gone_the_connection_is_down_and_begins_anew(tmp_path):
    with rotating(tmp_path, LEGS) as (fleet, exchange, listener):
        both_up(fleet)
        exchange.fault("refuse", status=503)
        exchange.fault("reset")
        wait_for(lambda: events_of(listener, "down"), "down")
        assert word(fleet, Word.SESSION_STATE) != State.UP.value
        exchange.command("clear")
        wait_for(lambda: events_of(listener, "up"), "up", 60)
        both_up(fleet)
        more(listener)
        assert len(sessions_told(listener)) >= 2
        assert len(stretches_told(listener)) >= 2
