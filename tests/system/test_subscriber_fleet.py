"""The subscriber with a real fleet: deaths, sessions, events, the end."""

import asyncio
import os
import signal
import threading
import time

import pytest
from exchange import running_exchange
from fleet import PATIENCE_S, binance, running_fleet

from shm.directory import find_fleet
from shm.journal import journal_path
from supervisor.subscriber import Event, Gap, Message, SessionChange, Subscriber

pytestmark = pytest.mark.system
QUICK = "restart = { stable_after = 0 }\nreconnect = { initial_delay = 0.01, max_delay = 0.1 }\n"


@pytest.fixture
def exchange():
    with running_exchange(rate=500) as running:
        yield running


@pytest.fixture
def fleet(tmp_path, exchange, monkeypatch):
    name = f"s{os.getpid()}"
    with running_fleet(tmp_path, binance(exchange, "a", "b", extra=QUICK), name) as running:
        monkeypatch.setenv("FEEDWARDEN_SHM", str(running.shm_base))
        running.wait_up()
        yield running


def until(subscriber, wanted, items=None):
    items = [] if items is None else items
    deadline = time.monotonic() + PATIENCE_S
    while not (items and wanted(items[-1])):
        assert time.monotonic() < deadline, items[-5:]
        item = subscriber.recv(0.1)
        items += [] if item is None else [item]
    return items


def exits_of(items, connection):
    events = [item for item in items if isinstance(item, Event) and item.kind == "exit"]
    return [event for event in events if event.connection == connection]


def assert_every_number_is_told_once(items, connection):
    at = None
    for item in items:
        if item.connection == connection and isinstance(item, Message | Gap):
            first, last = (item.seq,) * 2 if isinstance(item, Message) else (item.first, item.last)
            assert at is None or first == at + 1, (connection, first, at)
            at = last
    return at


def test_killed_workers_are_marked_and_every_number_is_told(fleet):
    deaths = 5
    with Subscriber(fleet.name, "*", events=True) as subscriber:
        items = until(subscriber, lambda item: isinstance(item, Message))
        for epoch in range(2, 2 + deaths):
            pid = fleet.rows()["a"]["pid"]
            os.kill(pid, signal.SIGKILL)
            wanted = ("a", epoch)
            until(
                subscriber,
                lambda item, wanted=wanted: isinstance(item, Message) and item[:2] == wanted,
                items,
            )
        until(subscriber, lambda item: item.connection == "b", items)
        # Events come over another socket than messages.
        until(subscriber, lambda _item: len(exits_of(items, "a")) == deaths, items)
        for connection in "ab":
            assert_every_number_is_told_once(items, connection)
        marks = [i for i in items if isinstance(i, SessionChange) and i.connection == "a"]
        assert marks == [SessionChange("a", epoch) for epoch in range(2, 2 + deaths)]
        assert not [i for i in items if isinstance(i, SessionChange) and i.connection == "b"]
        assert exits_of(items, "a")[0].detail == {"signal": "SIGKILL"}
        stats = subscriber.stats()
        assert stats["duplicates"] == stats["malformed"] == stats["resyncs"] == 0
        if journal_path(find_fleet(fleet.name), "a").exists():
            assert stats["lost"] == 0


def test_a_session_that_the_exchange_reset_is_marked(fleet, exchange):
    with Subscriber(fleet.name, "a") as subscriber:
        items = until(subscriber, lambda item: isinstance(item, Message))
        exchange.fault("reset", tag="a")
        until(subscriber, lambda item: isinstance(item, SessionChange), items)
        after = len(items)
        until(subscriber, lambda item: isinstance(item, Message), items[after:])
        assert items[-1] == SessionChange("a", 1)
        assert_every_number_is_told_once(items, "a")


def test_it_follows_a_fleet_from_before_its_first_run_into_its_second(tmp_path, exchange, request):
    name = f"f{os.getpid()}"
    monkeypatch = request.getfixturevalue("monkeypatch")
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
    with Subscriber(name) as subscriber:
        assert subscriber.recv(0.3) is None
        with running_fleet(tmp_path, binance(exchange, "a"), name) as fleet:
            items = until(subscriber, lambda item: isinstance(item, Message) and item.seq > 20)
            fleet.stop()
            fleet.start()
            until(subscriber, lambda item: isinstance(item, SessionChange), items)
            anew = until(subscriber, lambda item: isinstance(item, Message) and item.seq > 20)
            assert_every_number_is_told_once(items[:-1], "a")
            assert_every_number_is_told_once(anew, "a")
            first = anew[0].seq if isinstance(anew[0], Message) else anew[0].first
            assert first == 1
            assert subscriber.stats()["resyncs"] == 1


def test_it_ends_with_the_fleet_if_asked(fleet):
    items = []

    async def consume():
        async with Subscriber(fleet.name, "a", until_fleet_ends=True) as subscriber:
            items.extend([item async for item in subscriber])

    stopper = threading.Timer(1.0, fleet.stop)
    stopper.start()
    asyncio.run(asyncio.wait_for(consume(), PATIENCE_S))
    stopper.join()
    assert_every_number_is_told_once(items, "a")
    assert len(items) > 100
