"""Sessions replaced by fresh ones: each message of the exchange is delivered once, in order."""

import json
import time

import pytest
from exchange_thread import ExchangeThread
from fleet import running_fleet, wait_for
from listening import assert_gap_free
from rotating import (
    RATE,
    Broadcast,
    assert_each_once_in_order,
    count,
    events_of,
    heard,
    more,
    numbers_of,
    rotating,
    rotations,
    sessions_told,
    stretches_told,
    word,
)

from shm.layout import Counter, Word
from supervisor.control import Order, Reply, send_order

pytestmark = pytest.mark.system

RAW = """
[[connection]]
name = "a"
url = "{url}"
heartbeat = false
"""


def rotated(fleet, listener, count=1):
    """Order a rotation, wait for its account and return it."""
    fleet.command("rotate", "a")
    return wait_for(lambda: rotations(listener)[count - 1 :], "done")[0]


def test_an_ordered_rotation_costs_and_doubles_no_message(tmp_path):
    with rotating(tmp_path) as (fleet, exchange, listener):
        (before,) = exchange.sessions("a")
        ordered_ns = time.monotonic_ns()  # what is told of the first session may come late
        fleet.command("rotate", "a", "--wait", "30")
        (done,) = wait_for(lambda: rotations(listener), "done")
        more(listener)
        assert_each_once_in_order(listener)
        (after,) = wait_for(lambda: len(s := exchange.sessions("a")) == 1 and s, "one session")
        assert after["id"] > before["id"]
        detail = done["detail"]
        assert (done["cause"], detail["from"], detail["to"]) == ("operator", 1, 2)
        assert detail["overlap_s"] >= 1
        assert detail["duplicates"] > RATE / 2
        # The answer to the second subscription; a busy machine may be too late for a few more.
        assert 1 <= detail["unmatched"] <= 10
        row = fleet.rows()["a"]
        assert row["counters"]["rotations"] == 1
        assert row["counters"]["overlap_duplicates"] == detail["duplicates"]
        assert row["state"] == "up"
        told = events_of(listener, "down", "up", "leg_up", "leg_down")
        begun, ended = [event for event in told if event["monotonic_ns"] >= ordered_ns]
        assert begun["kind"] == "leg_up"
        assert (ended["kind"], ended["cause"]) == ("leg_down", "rotated")
        assert sessions_told(listener) == [1], "no hole, so nothing is to be built anew"
        assert stretches_told(listener) == [0]


def test_an_end_amid_a_rotation_counts_what_came_twice(tmp_path):
    with rotating(tmp_path) as (fleet, _exchange, _listener):
        fleet.command("rotate", "a")
        wait_for(lambda: count(fleet, Counter.OVERLAP_DUPLICATES), "two sessions bring the same")
        # From here: a command line would take longer to begin than the two sessions last.
        assert send_order(fleet.runtime_dir / "control.sock", Order("stop", ("a",)), 10) == Reply()
        wait_for(lambda: fleet.rows()["a"]["state"] == "stopped", "its end")
        assert not count(fleet, Counter.ROTATIONS)
        received, twice = (
            count(fleet, counter) for counter in (Counter.MESSAGES, Counter.OVERLAP_DUPLICATES)
        )
        assert received - twice == word(fleet, Word.SEQ)


def test_at_its_age_a_session_is_replaced_again_and_again(tmp_path):
    extra = 'rotate = { max_age = "4s", jitter = "1s" }\n'
    with rotating(tmp_path, extra) as (_fleet, _exchange, listener):
        done = wait_for(lambda: len(found := rotations(listener)) == 2 and found, "two", 60)
        more(listener)
        assert_each_once_in_order(listener)
        assert [event["cause"] for event in done] == ["max_age"] * 2
        assert sessions_told(listener) == [1]
        assert stretches_told(listener) == [0]


def test_an_exchange_that_says_it_will_close_is_left_before_it_does(tmp_path):
    extra = "notice = [\"e == 'serverShutdown'\"]\n"
    with rotating(tmp_path, extra, max_age_s=22, notice_s=10) as (_fleet, exchange, listener):
        (before,) = exchange.sessions("a")
        (done,) = wait_for(lambda: rotations(listener), "done", 60)
        assert done["cause"] == "notice"
        wait_for(lambda: before["id"] not in [s["id"] for s in exchange.sessions("a")], "gone")
        more(listener)
        assert_each_once_in_order(listener)
        assert not events_of(listener, "down")


@pytest.mark.parametrize("late", [0, 1], ids=["old-session-late", "new-session-late"])
def test_a_session_that_is_ahead_of_the_other_breaks_no_order(tmp_path, late):
    with rotating(tmp_path) as (fleet, exchange, listener):
        (before,) = exchange.sessions("a")
        exchange.fault("lag", session=before["id"] + late, delay=0.3)
        more(listener)
        done = rotated(fleet, listener)
        more(listener)
        assert_each_once_in_order(listener)
        assert 1 <= done["detail"]["unmatched"] <= 10
        assert done["detail"]["duplicates"] > 0


def test_a_second_session_that_cannot_be_had_is_told_and_tried_again_and_the_first_stays(tmp_path):
    with rotating(tmp_path) as (fleet, exchange, listener):
        exchange.fault("refuse", status=503)
        fleet.command("rotate", "a")
        failed = wait_for(lambda: len(e := events_of(listener, "leg_down")) > 1 and e, "failures")
        assert failed[0]["cause"] == "handshake_refused"
        assert failed[0]["delay_s"] > 0
        assert fleet.rows()["a"]["state"] == "up"
        assert fleet.command("rotate", "a", "--wait", "0.5", check=False).returncode == 7
        exchange.command("clear")
        wait_for(lambda: rotations(listener), "done", 60)
        more(listener)
        assert_each_once_in_order(listener)


def test_a_first_session_that_dies_in_the_overlap_leaves_no_hole(tmp_path):
    with rotating(tmp_path, 'rotate = { overlap = "30s" }\n') as (fleet, exchange, listener):
        (before,) = exchange.sessions("a")
        fleet.command("rotate", "a")
        wait_for(lambda: count(fleet, Counter.OVERLAP_DUPLICATES) > RATE, "overlap")
        exchange.fault("reset", session=before["id"])
        (done,) = wait_for(lambda: rotations(listener), "done")
        more(listener)
        assert_each_once_in_order(listener)
        assert done["detail"]["to"] == 2
        assert not events_of(listener, "down")
        assert sessions_told(listener) == [1]
        assert stretches_told(listener) == [0]


def test_a_first_session_that_dies_before_the_second_is_there_is_told_as_down(tmp_path):
    with rotating(tmp_path) as (fleet, exchange, listener):
        (before,) = exchange.sessions("a")
        exchange.fault("refuse", status=503)
        fleet.command("rotate", "a")
        wait_for(lambda: events_of(listener, "leg_down"), "a refusal")
        exchange.fault("reset", session=before["id"])
        wait_for(lambda: events_of(listener, "down"), "down")
        exchange.command("clear")
        wait_for(lambda: events_of(listener, "up"), "up")
        wait_for(lambda: rotations(listener), "done")
        more(listener)
        assert_gap_free(listener.data())
        numbers = numbers_of(listener)
        assert numbers == sorted(set(numbers))
        assert len(sessions_told(listener)) == 2
        assert stretches_told(listener) == [0, 1]
        assert len(exchange.sessions("a")) == 1


def test_where_one_session_is_allowed_it_says_that_it_breaks_first(tmp_path):
    budget = '[budget."127.0.0.1"]\nconnects = 100\nper = 1\nconcurrent = 1\n'
    with rotating(tmp_path, more=budget) as (fleet, exchange, listener):
        done = rotated(fleet, listener)
        (begun,) = rotations(listener, "begin")
        assert begun["detail"]["breaks"] is True
        assert "overlap_s" not in done["detail"]
        (down,) = events_of(listener, "down")
        assert down["cause"] == "rotated"
        wait_for(lambda: len(exchange.sessions("a")) == 1, "one session")
        more(listener)
        assert_gap_free(listener.data())
        numbers = numbers_of(listener)
        assert numbers == sorted(set(numbers)), "a hole, and nothing twice"
        wait_for(lambda: sessions_told(listener)[-1] == 2, "a new session")
        assert stretches_told(listener) == [0, 1]


def test_with_little_memory_messages_may_double_but_none_is_lost_and_it_is_counted(tmp_path):
    extra = 'limits = { max_overlap = "16KiB" }\n'
    with rotating(tmp_path, extra) as (fleet, exchange, listener):
        (before,) = exchange.sessions("a")
        exchange.fault("lag", session=before["id"] + 1, delay=1)
        done = rotated(fleet, listener)
        more(listener)
        assert_gap_free(listener.data())
        numbers = numbers_of(listener)
        assert set(numbers) == set(range(min(numbers), max(numbers) + 1))
        assert 0 < len(numbers) - len(set(numbers)) <= done["detail"]["overflows"]


def test_copies_that_the_exchange_stamps_differently_are_known_by_their_key(tmp_path):
    def stamped(number, index):
        return b'{"n":%d,"stamp":%d,"of":%d}' % (number, time.monotonic_ns(), index)

    with ExchangeThread(Broadcast(stamped)) as exchange:
        toml = RAW.format(url=exchange.url) + 'dedup = "n"\n'
        with running_fleet(tmp_path, toml) as fleet, heard(fleet) as listener:
            done = rotated(fleet, listener)
            more(listener)
            assert_gap_free(listener.data())
            numbers = [json.loads(payload)["n"] for _, _, payload in listener.data()]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert done["detail"]["duplicates"] > 50
            assert done["detail"]["unmatched"] == 0


def test_repeats_within_a_session_are_all_delivered(tmp_path):
    """Two of three messages are the same text over and over."""

    def repeating(number, _index):
        return b'{"n":%d}' % (number if number % 3 == 0 else -(number % 3))

    with ExchangeThread(Broadcast(repeating)) as exchange:
        toml = RAW.format(url=exchange.url)
        with running_fleet(tmp_path, toml) as fleet, heard(fleet) as listener:
            rotated(fleet, listener)
            more(listener)
            assert_gap_free(listener.data())
            texts = [json.loads(payload)["n"] for _, _, payload in listener.data()]
            first = next(index for index, n in enumerate(texts) if n > 0)
            numbers = range(texts[first], texts[first] + len(texts) - first)
            assert texts[first:] == [n if n % 3 == 0 else -(n % 3) for n in numbers]


def test_what_is_not_connected_has_nothing_to_rotate(tmp_path):
    with rotating(tmp_path) as (fleet, _exchange, _listener):
        fleet.command("stop", "a", "--wait", "20")
        assert "nothing to rotate" in fleet.command("rotate", "a").stdout
