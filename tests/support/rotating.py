"""Fleets whose exchange gives all sessions the same messages, and what subscribers hear of them."""

import asyncio
import contextlib
import json

from exchange import running_exchange
from fleet import binance, running_fleet, wait_for
from listening import assert_gap_free, listening
from raw_exchange import TEXT

from shm.layout import Word
from shm.view import StatsView
from worker.envelope import STRETCH_SHIFT
from worker.session_state import CONNECTED, State

RATE = 500


@contextlib.contextmanager
def rotating(folder, extra="", more="", **exchange_keys):
    """A fleet of one connection to a shared market, its exchange, and what a subscriber hears."""
    with running_exchange(rate=RATE, shared=True, **exchange_keys) as exchange:
        extra = extra.replace("SECOND", exchange.url("/binance", "b"))
        toml = binance(exchange, "a", extra=extra) + more
        with running_fleet(folder, toml) as fleet, heard(fleet) as listener:
            yield fleet, exchange, listener


@contextlib.contextmanager
def heard(fleet):
    """What connection ``a`` and the fleet tell, once there is data."""
    endpoints = [f"ipc://{fleet.runtime_dir}/{path}.sock" for path in ("data/a", "events")]
    wait_for(lambda: word(fleet, Word.SESSION_STATE) == State.UP.value, f"up: {fleet.said()}")
    with listening(endpoints) as listener:
        wait_for(listener.data, "data")
        yield listener


def view_of(fleet):
    """The segment of connection ``a``: read here, for a verb costs a second of CPU."""
    return StatsView.open(next(fleet.shm_base.rglob("a.stats")).parent, "a")


def word(fleet, index):
    with contextlib.suppress(StopIteration, FileNotFoundError), view_of(fleet) as view:
        return view.words[index]
    return 0


def count(fleet, index):
    with view_of(fleet) as view:
        return view.counters[index]


def number_of(payload):
    document = json.loads(payload)
    return document.get("t", document.get("u"))


def numbers_of(listener):
    """Numbers of the exchange's messages as delivered; answers and notices have none."""
    numbers = [number_of(payload) for _topic, _header, payload in listener.data()]
    return [number for number in numbers if number is not None]


def assert_each_once_in_order(listener):
    assert_gap_free(listener.data())
    numbers = numbers_of(listener)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def events_of(listener, *kinds):
    """The connection's events of these kinds, once each: both endpoints tell them."""
    told = {
        (event["kind"], event["monotonic_ns"]): event
        for event in listener.events("a")
        if event["kind"] in kinds
    }
    return list(told.values())


def rotations(listener, phase="done"):
    """The rotate events of a phase."""
    return [e for e in events_of(listener, "rotate") if e["detail"]["phase"] == phase]


def sessions_told(listener):
    """The numbers of sessions in state frames that can give data, each run of equal ones once."""
    numbers = []
    for _ns, frame in list(listener.frames):
        end = frame.index(b"\0")
        if frame.startswith(b"state."):
            body = json.loads(frame[end + 41 :])
            if body["state"] in CONNECTED and numbers[-1:] != [body["session"]]:
                numbers.append(body["session"])
    return numbers


def stretches_told(listener):
    """The stretches of data, each run of equal ones once; a number missing must begin another."""
    stretches, before = [], None
    for _topic, header, payload in listener.data():
        stretch, number = header[2] >> STRETCH_SHIFT, number_of(payload)
        is_another = stretches[-1:] != [stretch]
        stretches += [stretch] * is_another
        if number is not None:
            assert before is None or number == before[0] + 1 or stretch != before[1], number
            before = number, stretch
    return stretches


def more(listener, count=RATE // 2):
    before = len(listener.data())
    wait_for(lambda: len(listener.data()) > before + count, "more data")


class Broadcast:
    """The script of a ``RawExchange`` that tells everybody the same, numbered, at the same time."""

    def __init__(self, payload, pause_s=0.005):
        self._payload, self._pause_s = payload, pause_s
        self._peers, self._task = [], None
        self.number = 0
        self.first = None  # told to somebody

    async def __call__(self, peer):
        self._peers.append(peer)
        if self._task is None:
            self._task = asyncio.create_task(self._tell())
        try:
            await peer.gone()
        finally:
            self._peers.remove(peer)
            if not self._peers:
                self._task.cancel()
                self._task = None

    async def _tell(self):
        while True:
            self.number += 1
            for index, peer in enumerate(self._peers):
                peer.send(TEXT, self._payload(self.number, index))
            await asyncio.sleep(self._pause_s)
