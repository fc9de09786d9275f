"""A worker is told another specification while it runs: what it does, and what it leaves alone."""

import contextlib
import os
import signal

import msgspec
import pytest
from exchange_thread import ExchangeThread
from raw_exchange import CLOSE, TEXT, hold
from worker_process import Counter, Word, WorkerProcess, wait_for

from worker.announcement import Cause, EventKind
from worker.endpoints import spec_file
from worker.exits import Exit
from worker.session import State
from worker.spec import (
    ConnectionSpec,
    HeartbeatSpec,
    LivenessSpec,
    Match,
    MatchKind,
    ReconnectSpec,
    SubscribeSpec,
)

pytestmark = pytest.mark.system
MS = 1_000_000
FAST = ReconnectSpec(initial_delay_ns=10 * MS, max_delay_ns=20 * MS, close_timeout_ns=300 * MS)
LINGERING = ReconnectSpec(close_timeout_ns=3_000 * MS)


def spec_of(url, **keys):
    keys = {"reconnect": FAST, "heartbeat": None} | keys
    return ConnectionSpec(name="x", url=url, **keys)


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def worker(spec):
            started = WorkerProcess(tmp_path, spec)
            stack.callback(started.close)
            wait_for(lambda: started.state() is State.UP, f"up: {started.said()}")
            return started

        yield worker


def tell(worker, spec):
    """As the supervisor does it."""
    spec_file(worker.shm, "x").write_bytes(msgspec.msgpack.encode(spec))
    os.kill(worker.process.pid, signal.SIGUSR1)


def downs(worker):
    return [body["cause"] for kind, body in worker.events() if kind == EventKind.DOWN]


async def polite(peer):
    peer.send(TEXT, b"hello")
    await hold(peer)


def test_another_url_is_a_new_session_of_the_same_process_that_counts_on(start):
    codes = []

    async def first(peer):
        peer.send(TEXT, b"hello")
        codes.append((await peer.until(CLOSE))[:2])
        peer.send(CLOSE, codes[0])
        await peer.gone()

    with ExchangeThread(first) as one, ExchangeThread(polite) as other:
        worker = start(spec_of(one.url))
        wait_for(lambda: worker.count(Counter.MESSAGES) == 1, "data")
        tell(
            worker,
            spec_of(other.url, heartbeat=HeartbeatSpec(interval_ns=50 * MS, timeout_ns=40 * MS)),
        )
        wait_for(lambda: worker.count(Counter.MESSAGES) == 2, worker.said())
        wait_for(lambda: worker.count(Counter.PINGS) > 1, "pings, as the new one says")
        assert (codes, one.open) == ([(1001).to_bytes(2, "big")], 0)
        assert worker.word(Word.SESSION) == 2
        assert worker.count(Counter.RECONNECTS) == 1
        assert downs(worker) == [Cause.CONFIG]
        assert worker.stop() == Exit.STOPPED


def test_the_last_of_several_wins_and_nothing_in_between_is_dialled(start):
    async def lingering(peer):
        await peer.until(CLOSE)
        await peer.gone()

    with (
        ExchangeThread(lingering) as one,
        ExchangeThread(polite) as between,
        ExchangeThread(polite) as last,
    ):
        worker = start(spec_of(one.url, reconnect=LINGERING))
        tell(worker, spec_of(between.url))
        wait_for(lambda: worker.state() is State.DRAINING, "closing")
        tell(worker, spec_of(last.url))
        wait_for(lambda: worker.count(Counter.MESSAGES) == 1, worker.said())
        assert (between.accepted, last.accepted) == (0, 1)
        assert worker.word(Word.SESSION) == 2


def test_a_stop_in_between_is_the_end(start):
    async def lingering(peer):
        await peer.until(CLOSE)
        await peer.gone()

    with ExchangeThread(lingering) as one, ExchangeThread(polite) as other:
        worker = start(spec_of(one.url, reconnect=LINGERING))
        tell(worker, spec_of(other.url))
        wait_for(lambda: worker.state() is State.DRAINING, "closing")
        assert worker.stop() == Exit.STOPPED
        assert other.accepted == 0
        assert "Traceback" not in worker.said()


def test_what_needs_a_new_process_is_left_to_the_supervisor(start):
    with ExchangeThread(polite) as one:
        worker = start(spec_of(one.url))
        tell(worker, spec_of("ws://127.0.0.1:1/", engine="websockets"))
        tell(worker, spec_of(one.url, subscribe=SubscribeSpec(messages=("x",))))
        wait_for(lambda: EventKind.CONFIG in [kind for kind, _ in worker.events()], "the second")
        assert (worker.word(Word.SESSION), downs(worker)) == (1, [])


def test_a_function_that_cannot_be_loaded_ends_the_worker_as_it_would_at_its_start(start):
    beat = HeartbeatSpec(
        application=True,
        payload=b"ping",
        pong_matcher=Match(kind=MatchKind.CALLABLE, value="no.such.module:match"),
    )
    with ExchangeThread(polite) as one:
        worker = start(spec_of(one.url))
        tell(worker, spec_of(one.url, heartbeat=beat))
        assert worker.process.wait(20) == Exit.CONFIGURATION
        assert "no.such.module" in worker.said()
        wait_for(lambda: one.open == 0, "closed")


def test_what_is_live_changes_within_the_session(start):
    async def quiet(peer):
        peer.send(TEXT, b"hello")
        await peer.gone()

    with ExchangeThread(quiet) as one:
        worker = start(spec_of(one.url))
        wait_for(lambda: worker.count(Counter.MESSAGES) == 1, "data")
        tell(worker, spec_of(one.url, liveness=LivenessSpec(data_silence_ns=50 * MS)))
        wait_for(lambda: worker.state() is State.STALE, "judged by the new number")
        assert (worker.word(Word.SESSION), downs(worker)) == (1, [])
        tell(worker, spec_of(one.url, reconnect=ReconnectSpec(enabled=False)))
        wait_for(lambda: worker.state() is State.UP, "no limit any more")
        tell(worker, spec_of("ws://127.0.0.1:1/", reconnect=ReconnectSpec(enabled=False)))
        wait_for(lambda: worker.word(Word.SESSION) == 2, "a new session in spite of it")
        assert worker.process.wait(20) == Exit.UNAVAILABLE, "which is then the last"
