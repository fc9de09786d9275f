"""The subscriber against publishers that lose, die and begin anew on command."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from publishing import MIB, PATIENCE_S, SmallFleet
from sequencing import told

from shm.journal import journal_path
from supervisor.errors import (
    FellBehind,
    ForeignProcess,
    NoSuchConnection,
    NoSuchFleet,
    StreamEnded,
    TopicRefused,
)
from supervisor.heads import WorkerWords
from supervisor.subscriber import Gap, Message, SessionChange, Subscriber
from worker.envelope import HEADER

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system
QUIET_S = 0.4  # four liveness frames
LONG_S = 1.5  # a look at the fleet's table, and a look into shared memory


@pytest.fixture
def base(tmp_path, monkeypatch):
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
    return tmp_path


@pytest.fixture
def fleet(base):
    with SmallFleet(base, "a", "b") as small:
        yield small.start()


def heard(subscriber, quiet_s=QUIET_S):
    """Return the items that come until nothing comes any more."""
    items = []
    while (item := subscriber.recv(quiet_s)) is not None:
        items.append(item)
    return items


def until(subscriber, wanted, items=None):
    """Return the items up to the first for which ``wanted`` is true."""
    items = [] if items is None else items
    deadline = time.monotonic() + PATIENCE_S
    while not items or not wanted(items[-1]):
        assert time.monotonic() < deadline, items
        item = subscriber.recv(0.1)
        items += [item] if item is not None else []
    return items


def attached(fleet, subscriber, *names, subscriptions=3):
    """Wait until a subscriber's prefixes are in force, and what tells so was read."""
    for name in names:
        fleet.publishers[name].attached(subscriptions)
    assert heard(subscriber) == []


# Order, loss, repair -----------------------------------------------------------------------------


def test_messages_of_all_connections_come_in_order(fleet):
    with Subscriber("small") as subscriber:
        attached(fleet, subscriber, "a", "b")
        for _ in range(3):
            fleet.publishers["a"].send(400)
            fleet.publishers["b"].send(400)
        items = heard(subscriber)
        for name in "ab":
            messages = [item for item in items if item.connection == name]
            assert [m.seq for m in messages] == list(range(1, 1201))
            assert [m.payload for m in messages[:2]] == [b"1 ", b"2 "]
        assert messages[0][:5] == ("b", 1, 1, 1, "data.b")
        assert messages[0].text
        assert not messages[0].repaired
        assert 0 <= time.monotonic_ns() - messages[0].monotonic_ns < PATIENCE_S * 1e9
        assert subscriber.stats()["received"] == 2400
        assert subscriber.stats("a")["received"] == 1200
        assert set(subscriber.connections) == {"a", "b"}


def test_a_loss_is_filled_in_from_the_journal_and_a_gap_is_told_where_it_cannot(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(2)
        a.send(3, sent=False)
        a.send(1)
        a.send(2, sent=False, kept=False)
        a.send(1)
        items = heard(subscriber)
        assert told(items) == [1, 2, "3r", "4r", "5r", 6, (7, 8), 9]
        assert items[-2] == Gap("a", 1, 7, 8, "lost", 2)
        stats = subscriber.stats()
        assert (stats["received"], stats["repaired"], stats["lost"]) == (4, 3, 2)
        assert (stats["gaps"], stats["duplicates"]) == (1, 0)


def test_the_loss_of_the_last_messages_is_told_by_the_liveness_frame(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(2, sent=False)
        assert told(heard(subscriber)) == ["1r", "2r"]


def test_the_last_messages_of_a_killed_worker_are_found_without_its_successor(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(1)
        assert told(heard(subscriber)) == [1]
        a.change(mute=True)
        a.send(4, sent=False)
        a.kill()
        assert told(until(subscriber, lambda item: item.seq == 5)) == ["2r", "3r", "4r", "5r"]


def test_without_a_journal_what_is_lost_is_told(base):
    with SmallFleet(base, "a", journal=0) as fleet, Subscriber("small") as subscriber:
        a = fleet.start().publishers["a"]
        attached(fleet, subscriber, "a")
        a.send(1)
        a.send(3, sent=False)
        a.send(1)
        assert told(heard(subscriber)) == [1, (2, 4), 5]


def test_what_the_journal_came_around_to_is_an_overrun(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(1)
        a.send(30, sent=False, size=100_000)  # three times the journal
        items = heard(subscriber)
        assert told(items[:1]) == [1]
        assert (items[1].first, items[1].cause) == (2, "overrun")
        assert [m.seq for m in items[2:]] == list(range(items[1].last + 1, 32))
        assert subscriber.stats()["overruns"] == items[1].missing > 15


def test_what_overflowed_while_the_consumer_stood_still_is_filled_in(base):
    with SmallFleet(base, "a", journal=64 * MIB) as fleet, Subscriber("small") as subscriber:
        a = fleet.start().publishers["a"]
        attached(fleet, subscriber, "a")
        a.send(200_000)  # more than both ends of the wire hold
        items = heard(subscriber, 1.0)
        assert [item.seq for item in items] == list(range(1, 200_001))
        assert subscriber.stats()["repaired"] > 10_000


def test_a_worker_killed_in_full_flight_costs_nothing(base):
    with SmallFleet(base, "a", journal=16 * MIB) as fleet, Subscriber("small") as subscriber:
        a, items = fleet.start().publishers["a"], []
        attached(fleet, subscriber, "a")
        for _ in range(10):
            a.begin("send", count=100_000, every_s=0.0001)
            wanted = len(items) + 300
            until(subscriber, lambda item, seq=wanted: getattr(item, "seq", 0) > seq, items)
            a.kill()
            a.start()
        a.send(1)
        items += heard(subscriber, 1.0)
        messages = [item for item in items if isinstance(item, Message)]
        assert [m.seq for m in messages] == list(range(1, len(messages) + 1))
        assert len(items) - len(messages) == subscriber.stats()["session_changes"] == 10


@pytest.mark.parametrize("damage", [b"", b"precious", b"FEEDWRDN" + bytes(8000)])
def test_a_journal_that_cannot_be_read_is_a_gap_and_counted(fleet, damage):
    path = journal_path(fleet.shm_dir, "a")
    path.unlink()
    path.write_bytes(damage)
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(1)
        a.send(1, sent=False)
        a.send(1)
        assert told(heard(subscriber)) == [1, (2, 2), 3]
        assert subscriber.stats()["journal_errors"] > 0


def test_a_journal_that_is_cut_while_it_is_mapped_kills_nobody(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(1)
        assert told(heard(subscriber)) == [1]
        a.send(1, sent=False)
        a.change(mute=True)
        os.truncate(journal_path(fleet.shm_dir, "a"), 4096)
        a.send(1, kept=False)
        assert told(heard(subscriber)) == [(2, 2), 3]


def test_frames_that_are_none_are_counted_and_left_out(fleet):
    a = fleet.publishers["a"]

    def raw(head, topic=b"data.a", end=b"\0"):
        a.say("raw", frame=(topic + end + head).hex())

    good = HEADER.pack(1, 1, 1, 1, 1, 1, 0, 0)
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        raw(good[:39])
        raw(b"")
        raw(HEADER.pack(2, 1, 1, 1, 1, 1, 0, 0))
        raw(HEADER.pack(1, 99, 1, 1, 1, 1, 0, 0))
        raw(good, topic=b"data.a." + b"x" * 300)
        raw(good, topic=b"data.a.x", end=b"")
        raw(HEADER.pack(1, 4, 1, 1, 1, 1, 0, 0) + b"{", topic=b"state.a")
        raw(HEADER.pack(1, 2, 1, 1, 1, 1, 0, 0) + b"[" * 100_000, topic=b"state.a")
        a.send(1)
        assert told(heard(subscriber)) == [1]
        assert subscriber.stats()["malformed"] == 8


# Incarnations, sessions, another beginning -------------------------------------------------------


def test_a_killed_worker_costs_nothing_and_its_successor_is_marked(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        expected = 0
        for epoch in range(1, 4):
            a.send(200)
            a.send(5, sent=False)
            a.kill()
            a.start()
            a.send(3)  # nobody is attached yet
            expected += 208
            items = until(subscriber, lambda item, seq=expected: getattr(item, "seq", 0) == seq)
            messages = [item for item in items if isinstance(item, Message)]
            assert [m.seq for m in messages] == list(range(expected - 207, expected + 1))
            marks = [item for item in items if isinstance(item, SessionChange)]
            assert marks == [SessionChange("a", epoch + 1)]
            assert items[items.index(marks[0]) + 1].epoch == epoch + 1
        assert subscriber.stats()["lost"] == 0


def test_a_consumer_that_is_busy_over_a_restart_loses_nothing(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(10)
        a.kill()
        a.start()
        a.send(500)
        time.sleep(0.5)  # its socket is not touched, so it does not subscribe again
        a.send(10)
        items = until(subscriber, lambda item: getattr(item, "seq", 0) == 520)
        assert [i.seq for i in items if isinstance(i, Message)] == list(range(1, 521))


def test_a_session_dialled_again_is_marked_between_its_messages(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(2)
        a.change(session=2, connected=False)
        a.change(session=3, connected=False)
        a.change(session=3)
        a.send(2)
        assert told(heard(subscriber)) == [1, 2, "session", 3, 4]


@pytest.mark.parametrize("topics", [(), ("X",)], ids=["all", "a topic"])
def test_sessions_of_a_worker_that_only_the_journal_tells_of_are_marked_where_they_begin(
    fleet, topics
):
    a, keys = fleet.publishers["a"], {"keys": ["X"]} if topics else {}
    with Subscriber("small", "a", topics=topics) as subscriber:
        attached(fleet, subscriber, "a", subscriptions=3 - len(topics))
        a.send(2, **keys)
        assert told(heard(subscriber)) == [1, 2]
        a.kill()
        a.start()
        a.send(1, sent=False, **keys)
        a.change(session=2)
        items = until(subscriber, lambda item: getattr(item, "seq", 0) == 3)
        a.attached(3 - len(topics))
        a.send(1, **keys)
        a.change(session=5)
        a.send(1, **keys)
        until(subscriber, lambda item: getattr(item, "seq", 0) == 5, items)
        wanted = ["session", 3, "session", 4, "session", 5]
        assert [getattr(item, "seq", "session") for item in items] == wanted
        a.send(1, **keys)
        assert told(heard(subscriber)) == [6]


def test_a_fleet_run_anew_is_another_beginning(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(20)
        assert len(heard(subscriber)) == 20
        a.kill()
        fleet.clear()
        a.epoch = 0
        a.start()
        a.send(30)
        a.send(2)
        items = until(subscriber, lambda item: getattr(item, "seq", 0) == 32)
        assert isinstance(items[0], SessionChange)
        assert [item.seq for item in items[1:]] == list(range(1, 33))
        stats = subscriber.stats()
        assert (stats["resyncs"], stats["lost"], stats["duplicates"]) == (1, 0, 0)


# Which connections -------------------------------------------------------------------------------


def test_globs_choose_connections(base):
    with SmallFleet(base, "okx-btc", "okx-eth", "bybit-btc") as fleet:
        fleet.start()
        with Subscriber("small", "okx-*", "bybit-e?c") as subscriber:
            assert set(subscriber.connections) == {"okx-btc", "okx-eth"}


def test_a_fleet_that_is_not_there_yet_is_waited_for(base):
    with Subscriber("small") as subscriber:
        assert heard(subscriber) == []
        assert subscriber.connections == ()
        with SmallFleet(base, "a") as fleet:
            fleet.start()
            deadline = time.monotonic() + PATIENCE_S
            while subscriber.connections != ("a",):
                assert subscriber.recv(0.1) is None
                assert time.monotonic() < deadline
            attached(fleet, subscriber, "a")
            fleet.publishers["a"].send(2)
            assert told(heard(subscriber)) == [1, 2]


def test_connections_come_and_go_with_a_reload(fleet):
    with Subscriber("small", "a", "c*") as subscriber:
        assert subscriber.connections == ("a",)
        c = fleet.add("c1").start()
        heard(subscriber, LONG_S)
        assert set(subscriber.connections) == {"a", "c1"}
        c.attached()
        c.send(2)
        assert told(heard(subscriber)) == [1, 2]
        fleet.show(["a", "b"])
        heard(subscriber, LONG_S)
        assert subscriber.connections == ("a",)
        c.send(2)
        assert heard(subscriber) == []
        fleet.show(["a", "b", "c1"])
        assert told(until(subscriber, lambda item: item.seq == 4)) == ["3r", "4r"]
        assert subscriber.stats()["received"] == 2, "the counts of what was let go stay"
        assert subscriber.stats("c1")["repaired"] == 2


def test_what_cannot_be_is_refused_by_name(fleet):
    with pytest.raises(NoSuchFleet, match="did you mean small"):
        Subscriber("smal", wait=False)
    with pytest.raises(NoSuchConnection, match="'c'"):
        Subscriber("small", "a", "c", wait=False)
    with pytest.raises(TopicRefused, match="the key alone"):
        Subscriber("small", topics=("",))
    with pytest.raises(TopicRefused):
        Subscriber("small", topics=("a\0b",))
    with pytest.raises(ValueError, match="exclude each other"):
        Subscriber("small", replay=True, since=3)
    for since in (-1, {"a": -5}):
        with pytest.raises(ValueError, match="since"):
            Subscriber("small", since=since)
    for max_age in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="max_age"):
            Subscriber("small", max_age=max_age)
    with pytest.raises(ValueError, match="on_age"):
        Subscriber("small", max_age=1, on_age="die")
    with Subscriber("small", wait=False) as subscriber, pytest.raises(NoSuchConnection):
        subscriber.stats("c")


def test_a_glob_that_matches_nothing_yet_is_warned_of(fleet, caplog):
    with Subscriber("small", "a", "d*"):
        assert "'d*'" in caplog.text


# Topics ------------------------------------------------------------------------------------------


def test_a_topic_alone_is_followed_repaired_and_told_by_its_own_numbers(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a", topics=("BTC", "ETH")) as subscriber:
        attached(fleet, subscriber, "a")
        a.send(9, keys=["BTC", "SOL", "ETH"])
        a.send(2, keys=["BTC", "SOL"], sent=False)
        a.send(2, keys=["BTC", "ETH"])
        assert told(heard(subscriber)) == [1, 3, 4, 6, 7, 9, "10r", 12, 13]
        a.send(1, keys=["BTC"], sent=False, kept=False)
        a.send(3, keys=["SOL", "ETH", "BTC"])
        gap = heard(subscriber)[1]
        assert gap == Gap("a", 1, 13, 16, "lost", 1, "data.a.BTC")
        a.send(2, keys=["ETH", "SOL"], sent=False)
        a.kill()
        a.start()
        assert told(until(subscriber, lambda item: isinstance(item, SessionChange))) == [
            "18r",
            "session",
        ]


def test_one_topic_may_be_given_as_text(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a", topics="BTC") as subscriber:
        attached(fleet, subscriber, "a", subscriptions=2)
        a.send(3, keys=["BTC", "BTCUSDT", None])
        assert told(heard(subscriber)) == [1]


# Joining late ------------------------------------------------------------------------------------


def test_joining_late_gives_what_was_asked_for(fleet):
    a = fleet.publishers["a"]
    a.send(6, keys=["BTC", "ETH", "BTC"])
    for options, expected in (
        ({"last_value": True}, ["5r", "6r"]),
        ({"last_value": True, "topics": ["ETH"]}, ["5r"]),
        ({"replay": True}, [f"{seq}r" for seq in range(1, 7)]),
        ({"since": 3}, ["4r", "5r", "6r"]),
        ({"since": {"a": 5}}, ["6r"]),
        ({"since": {"b": 5}}, []),
        ({"since": 6}, []),
        ({}, []),
    ):
        with Subscriber("small", "a", **options) as subscriber:
            assert told(heard(subscriber)) == expected, options
    with Subscriber("small", "a", since=3) as subscriber:
        assert told(heard(subscriber)) == ["4r", "5r", "6r"]
        a.send(2)
        assert told(heard(subscriber)) == [7, 8]


def test_what_a_dead_worker_left_is_given_to_who_joins_after(fleet):
    a = fleet.publishers["a"]
    a.send(5)
    a.kill()
    for options, expected in (({"replay": True}, 1), ({"since": 3}, 4), ({"last_value": True}, 5)):
        with Subscriber("small", "a", **options) as subscriber:
            items = until(subscriber, lambda item: item.seq == 5)
            assert told(items) == [f"{seq}r" for seq in range(expected, 6)]


# A slow consumer ---------------------------------------------------------------------------------


def backlog(fleet, count=1000):
    fleet.publishers["a"].send(count)
    time.sleep(0.3)
    fleet.publishers["a"].send(1)


def test_a_slow_consumer_is_warned_once(fleet, caplog):
    with Subscriber("small", "a", max_age=0.2) as subscriber:
        attached(fleet, subscriber, "a")
        backlog(fleet)
        assert [i.seq for i in heard(subscriber)] == list(range(1, 1002))
        assert caplog.text.count("max_age") == 1
        assert subscriber.stats()["behind"] == 1


def test_a_slow_consumer_may_skip_what_waits(fleet):
    with Subscriber("small", "a", max_age=0.2, on_age="skip") as subscriber:
        attached(fleet, subscriber, "a")
        backlog(fleet)
        items = heard(subscriber)
        (gap,) = (item for item in items if isinstance(item, Gap))
        assert gap.cause == "overrun"
        assert gap.first < 100
        assert gap.last == 1000
        assert items[-1].seq == 1001
        fleet.publishers["a"].send(2)
        assert told(heard(subscriber)) == [1002, 1003]


@pytest.mark.parametrize("topics", [(), ("X",)])
def test_a_state_told_amid_what_is_skipped_is_no_new_beginning(fleet, topics):
    """It tells a head that was passed; taken for a new one, all would come once more."""
    a = fleet.publishers["a"]
    with Subscriber("small", "a", topics=topics, max_age=0.2, on_age="skip") as subscriber:
        attached(fleet, subscriber, "a", subscriptions=2 if topics else 3)
        a.send(2000, keys=["X"])
        a.change()
        a.change(mute=True)
        a.send(1000, keys=["X"])
        time.sleep(0.3)
        a.send(1, keys=["X"])
        items = heard(subscriber)
        (gap,) = (item for item in items if isinstance(item, Gap))
        assert (gap.cause, gap.last) == ("overrun", 3000)
        assert gap.first < 2000, "the state is among what was skipped"
        assert told(items[-1:]) == [3001]
        assert not any(isinstance(item, SessionChange) for item in items)
        assert subscriber.stats("a")["resyncs"] == 0
        a.send(2, keys=["X"])
        assert told(heard(subscriber)) == [3002, 3003]


def test_a_session_that_changed_amid_what_is_skipped_is_told(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a", max_age=0.2, on_age="skip") as subscriber:
        attached(fleet, subscriber, "a")
        a.send(2000)
        a.change(session=2)
        a.change(mute=True, session=2)
        a.send(1000)
        time.sleep(0.3)
        a.send(1)
        items = heard(subscriber)
        assert told(items)[-3:] == [(items[-3].first, 3000), "session", 3001]
        assert subscriber.stats("a")["session_changes"] == 1


def test_a_slow_consumer_may_be_told_by_an_error_that_costs_nothing(fleet):
    with Subscriber("small", "a", max_age=0.2, on_age="raise") as subscriber:
        attached(fleet, subscriber, "a")
        backlog(fleet, 10)
        with pytest.raises(FellBehind, match="a: the next message is 0"):
            subscriber.recv(1)
        assert [i.seq for i in heard(subscriber)] == list(range(1, 12))
        backlog(fleet, 10)
        with pytest.raises(FellBehind):
            next(iter(subscriber))


# Ends --------------------------------------------------------------------------------------------


def test_stop_from_another_thread_ends_the_iteration(fleet):
    with Subscriber("small") as subscriber:
        threading.Timer(0.3, subscriber.stop).start()
        assert list(subscriber) == []
        with pytest.raises(StreamEnded):
            subscriber.recv()
    subscriber.stop()
    subscriber.close()


@pytest.mark.parametrize("how", ["stop", "close"])
@pytest.mark.parametrize("who", ["thread", "signal handler"])
def test_it_can_be_ended_from_anywhere_amid_a_backlog(fleet, who, how):
    """Twenty times, at twenty moments of reading."""
    a, main = fleet.publishers["a"], threading.main_thread().ident
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(20):
        subscriber = Subscriber("small", "a", replay=True)

        def end(*_, subscriber=subscriber):
            for _ in range(2):
                getattr(subscriber, how)()

        former = signal.signal(signal.SIGUSR1, end)
        act = end if who == "thread" else lambda: signal.pthread_kill(main, signal.SIGUSR1)
        timer = threading.Timer(0.0003 * turn, act)
        a.attached()
        a.begin("send", count=3_000)
        seqs = []
        for item in subscriber:
            if isinstance(item, Message):
                seqs.append(item.seq)
                if len(seqs) == 1 + 10 * turn:
                    timer.start()
        timer.join()
        signal.signal(signal.SIGUSR1, former)
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
        with pytest.raises(StreamEnded):
            subscriber.recv()
        subscriber.close()
        assert a.process.stdout.readline() == "ok\n"
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_close_by_another_thread_ends_a_wait(fleet):
    subscriber = Subscriber("small", "a")
    threading.Timer(0.3, subscriber.close).start()
    assert list(subscriber) == []
    with pytest.raises(StreamEnded):
        subscriber.recv()
    subscriber.stop()  # its descriptors are gone, and their numbers may be others'


def test_a_close_amid_a_stop_of_another_thread_takes_nothing_from_it(fleet, monkeypatch):
    subscriber, write = Subscriber("small", "a"), os.eventfd_write
    closing = threading.Thread(target=subscriber.close)

    def write_late(descriptor, value):
        if closing.ident is None:
            closing.start()
            closing.join(0.3)  # long enough to close it, if that were let
        write(descriptor, value)

    monkeypatch.setattr(os, "eventfd_write", write_late)
    subscriber.stop()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


def test_a_stop_after_the_close_writes_into_no_other_descriptor(fleet):
    subscriber = Subscriber("small", "a")
    subscriber.close()
    others = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(30)]
    try:
        subscriber.stop()
        subscriber.close()
        for other in others:
            with pytest.raises(BlockingIOError):
                os.eventfd_read(other)
    finally:
        for other in others:
            os.close(other)


def test_what_a_forked_child_does_with_it_is_nothing_to_its_parent(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that we are several threads
            child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                with pytest.raises(ForeignProcess, match=f"belongs to process {os.getppid()}"):
                    subscriber.recv(0.1)
                subscriber.stop()
                subscriber.close()
                subscriber.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        a.send(3)
        assert told(until(subscriber, lambda item: item.seq == 3)) == [1, 2, 3]
        a.kill()
        assert heard(subscriber) == []


def test_closing_within_the_loop_ends_it(fleet):
    subscriber = Subscriber("small", "a")
    attached(fleet, subscriber, "a")
    fleet.publishers["a"].send(10)
    seen = []
    for item in subscriber:
        seen.append(item.seq)
        if item.seq == 3:
            subscriber.close()
    assert seen == [1, 2, 3]


def test_it_ends_with_the_fleet_if_asked_and_with_all_that_was_published(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a", until_fleet_ends=True) as subscriber:
        attached(fleet, subscriber, "a")
        a.send(3)
        assert told(heard(subscriber)) == [1, 2, 3]
        a.send(2, sent=False)
        a.kill()
        fleet.clear()
        fleet.end_supervisor()
        assert told(subscriber) == ["4r", "5r"]


@pytest.mark.parametrize("removed", [False, True])
def test_what_a_worker_sent_that_nobody_heard_is_given_though_none_follows_it(fleet, removed):
    """It lived for milliseconds, and so did, with ``removed``, its segment."""
    a = fleet.publishers["a"]
    with Subscriber("small", "a", until_fleet_ends=True) as subscriber:
        attached(fleet, subscriber, "a")
        a.send(2)
        assert told(heard(subscriber)) == [1, 2]
        a.kill()
        a.start()
        a.send(3, sent=False)
        a.kill()
        if removed:
            fleet.clear()
        fleet.end_supervisor()
        assert told(subscriber) == ["session", "3r", "4r", "5r"]


def test_what_a_worker_sent_that_nobody_heard_and_no_journal_has_is_told(base):
    with SmallFleet(base, "a", journal=0) as fleet, Subscriber("small", "a") as subscriber:
        a = fleet.start().publishers["a"]
        attached(fleet, subscriber, "a")
        a.send(2)
        assert told(heard(subscriber)) == [1, 2]
        a.kill()
        a.start()
        a.send(3, sent=False)
        a.kill()
        items = heard(subscriber, LONG_S)
        assert [item for item in told(items) if item != "session"] == [(3, 5)]


def test_only_a_dead_successor_that_nobody_heard_is_spoken_for(fleet):
    a, words = fleet.publishers["a"], WorkerWords(fleet.shm_dir, "a")
    a.send(7)
    words.remap()
    heard_last = os.getpid()  # any other process
    assert words.head(heard_last, 0) is None, "it lives and will speak for itself"
    assert words.head(a.process.pid, 1) == 7
    a.kill()
    assert words.head(heard_last, 0) == 7
    assert words.head(heard_last, 1) is None, "of another run of the fleet"
    words.close()


@dataclass
class Switch:
    """Whether an interrupt is let through."""

    on: bool = False


@pytest.fixture
def interruptible():
    """Return a switch: once it is on, the next SIGUSR1 is a Ctrl-C, which pytest must not get."""
    switch = Switch()

    def interrupt(_number, _frame):
        if switch.on:
            switch.on = False  # the next one may come before the first is caught
            raise KeyboardInterrupt

    former = signal.signal(signal.SIGUSR1, interrupt)
    yield switch
    signal.signal(signal.SIGUSR1, former)


# An interrupt within the standard library's glob leaves its iterator to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_costs_at_most_what_was_being_handed_over(fleet, interruptible):
    a, count = fleet.publishers["a"], 20_000
    main, done = threading.main_thread().ident, threading.Event()

    def interrupt():
        while not done.wait(0.005):
            signal.pthread_kill(main, signal.SIGUSR1)

    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        a.begin("send", count=count, every_s=0.00005)
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        seqs, interrupts, deadline = [], 0, time.monotonic() + PATIENCE_S
        try:
            while (not seqs or seqs[-1] < count) and time.monotonic() < deadline:
                try:
                    interruptible.on = True
                    item = subscriber.recv(0.05)
                    interruptible.on = False
                except KeyboardInterrupt:
                    interrupts += 1
                    continue
                seqs += [] if item is None else [item.seq]
        finally:
            done.set()
            interrupter.join()
        assert interrupts > 10
        assert seqs == sorted(set(seqs))
        missing = count - len(seqs)
        assert missing <= interrupts, "recv had returned it, and nobody had it yet"
        assert subscriber.stats()["lost"] == 0


# Under asyncio -----------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request):
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as loop_runner:
        yield loop_runner


def test_async_iteration_gives_the_same(fleet, runner):
    a = fleet.publishers["a"]

    async def consume():
        items = []
        async with Subscriber("small", "a") as subscriber:
            await asyncio.to_thread(a.attached)
            assert await subscriber.recv_async(QUIET_S) is None
            await asyncio.to_thread(a.send, 3)
            await asyncio.to_thread(a.send, 2, sent=False)
            await asyncio.to_thread(a.send, 2000)
            async for item in subscriber:
                items.append(item)
                if item.seq == 2005:
                    subscriber.stop()
            with pytest.raises(StreamEnded):
                await subscriber.recv_async()
        return items

    items = runner.run(consume())
    assert [item.seq for item in items] == list(range(1, 2006))
    assert [item.seq for item in items if item.repaired] == [4, 5]


def test_a_cancelled_wait_has_taken_nothing(fleet, runner):
    a = fleet.publishers["a"]

    async def consume():
        seqs, cancelled = [], 0
        async with Subscriber("small", "a") as subscriber:
            await asyncio.to_thread(a.attached)
            publishing = asyncio.create_task(asyncio.to_thread(a.send, 300, every_s=0.002))
            while not seqs or seqs[-1] < 300:
                task = asyncio.ensure_future(subscriber.__anext__())
                await asyncio.sleep(0.001)
                if not task.cancel():
                    seqs.append(task.result().seq)
                    continue
                try:
                    seqs.append((await task).seq)
                except asyncio.CancelledError:
                    cancelled += 1
            await publishing
        return seqs, cancelled

    seqs, cancelled = runner.run(consume())
    assert seqs == list(range(1, 301))
    assert cancelled > 10


def test_other_tasks_have_their_turn_however_much_there_is_to_read(fleet, runner):
    a = fleet.publishers["a"]

    async def consume():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with Subscriber("small", "a") as subscriber:
            await asyncio.to_thread(a.attached)
            await asyncio.to_thread(a.send, 10_000)
            task = asyncio.create_task(other())
            async for item in subscriber:
                if item.seq == 10_000:
                    break
            task.cancel()
        return turns

    assert runner.run(consume()) > 10


def test_a_subscriber_goes_from_loop_to_loop_and_to_none(fleet):
    a = fleet.publishers["a"]
    with Subscriber("small", "a") as subscriber:
        attached(fleet, subscriber, "a")
        for seq in (1, 3):
            a.send(1)
            item = asyncio.run(subscriber.recv_async(PATIENCE_S))
            assert item.seq == seq
            a.send(1)
            assert subscriber.recv(PATIENCE_S).seq == seq + 1


@pytest.mark.parametrize("who", ["task", "thread", "signal handler"])
def test_a_close_ends_an_async_wait(fleet, runner, who):
    async def consume():
        subscriber = Subscriber("small", "a")
        items = []

        async def read():
            async for item in subscriber:
                items.append(item)  # noqa: PERF401

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.2)
        if who == "task":
            subscriber.close()
        elif who == "thread":
            await asyncio.to_thread(subscriber.close)
        else:
            former = signal.signal(signal.SIGUSR1, lambda *_: subscriber.close())
            threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        await asyncio.wait_for(reading, PATIENCE_S)
        if who == "signal handler":
            signal.signal(signal.SIGUSR1, former)
        with pytest.raises(StreamEnded):
            await subscriber.recv_async()
        return items

    assert runner.run(consume()) == []


def test_two_tasks_cannot_read_at_once(fleet):
    async def consume():
        async with Subscriber("small", "a") as subscriber:
            first = asyncio.ensure_future(subscriber.recv_async())
            await asyncio.sleep(0.05)
            with pytest.raises(RuntimeError, match="another task"):
                await subscriber.recv_async()
            first.cancel()

    asyncio.run(consume())


# The user's page ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_the_examples_of_the_pages_print_messages(base, number):
    pages = [(ROOT / "docs/subscriber.md").read_text(), (ROOT / "README.md").read_text()]
    programs = re.findall(r"```python\n(.*?)```", "".join(pages), re.S)
    programs = [program for program in programs if "supervisor.subscriber" in program]
    assert len(programs) == 4
    with SmallFleet(base, "okx-btc", "binance-btc", fleet="demo") as fleet:
        okx = fleet.start().publishers["okx-btc"]
        okx.send(1)
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-c", programs[number]],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            okx.attached()
            okx.send(3)
            expected = "2 b'2 '" if number == 1 else "okx-btc"
            assert expected in process.stdout.readline()
        finally:
            process.kill()
            process.communicate()


# What it costs to have it ------------------------------------------------------------------------


def test_importing_it_brings_nothing_of_the_command_line():
    program = (
        "import sys, supervisor.subscriber as s; s.Subscriber;"
        "heavy = {'typer', 'pydantic', 'rich', 'psutil', 'numpy', 'httpx', 'websockets'};"
        "print(*heavy & set(sys.modules))"
    )
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_nothing_is_left_open(fleet):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Subscriber("small", replay=True) as subscriber:
            fleet.publishers["a"].attached()
            fleet.publishers["a"].send(1)
            assert heard(subscriber)
    assert len(os.listdir("/proc/self/fd")) == before
