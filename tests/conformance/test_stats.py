"""S1 to S6: what is measured and counted. S3 stands in test_timing.py."""

import asyncio
import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import PONG, Answering, Diary, client, exchange_of, fast, run, until

from worker.client_stats import Latencies


def test_s1_the_current_latency_is_a_property_and_stands_in_the_stats_with_its_average():
    async def act():
        async with (
            exchange_of(Answering(delay=0.01)) as exchange,
            client(exchange.url, heartbeat=fast()) as ws,
        ):
            diary = Diary(ws, "pong")
            await diary.until("pong", 3)
            found, stats = [pong.latency_ms for pong in diary.of("pong")], ws.stats()
            assert ws.latency_ms == stats.latency_ms == found[-1]
            assert stats.latency_avg_ms == pytest.approx(sum(found) / len(found))
            assert stats.latency_min_ms == min(found)
            assert stats.latency_max_ms == max(found)
            assert min(found) <= stats.latency_p50_ms <= stats.latency_p99_ms <= max(found)

    run(act())


def test_s2_there_is_no_latency_before_the_first_pong_nor_after_the_session():
    class Twice(Answering):
        """Answers in the first session, and ends it after two pongs."""

        def ping(self, peer, body):
            if len(self.sessions) == 1:
                peer.send(PONG, body)
                if len(self.pings) == 2:
                    peer.writer.close()

    async def act():
        async with (
            exchange_of(Twice()) as exchange,
            client(exchange.url, heartbeat=fast(timeout=0.1)) as ws,
        ):
            assert ws.latency_ms is ws.stats().latency_ms is ws.stats().latency_avg_ms is None
            diary = Diary(ws, "pong", "connected")
            await until(lambda: ws.stats().latency_avg_ms is not None)
            assert ws.latency_ms > 0
            await diary.until("connected")
            assert ws.latency_ms is ws.stats().latency_avg_ms is None

    run(act())


@given(samples=st.lists(st.integers(min_value=0, max_value=10**11), min_size=1, max_size=40))
def test_s2_the_average_is_of_the_last_ten_and_percentiles_are_of_all(samples):
    latencies = Latencies()
    for rtt_ns in samples:
        latencies.add(rtt_ns)
    last = samples[-10:]
    assert latencies.average_ms == pytest.approx(sum(last) / len(last) / 1e6)
    for quantile in (50, 99):
        rank = max(1, -(-len(samples) * quantile // 100))
        true_ms = sorted(samples)[rank - 1] / 1e6
        assert true_ms <= latencies.percentile_ms(quantile) <= true_ms * (1 + 1 / 128) + 1e-4
    latencies.session_ended()
    assert latencies.last_ms is latencies.average_ms is None
    assert latencies.extremes_ms() == (min(samples) / 1e6, max(samples) / 1e6)


def test_s4_latencies_have_the_grain_of_a_nanosecond_clock_under_uvloop_too():
    """``loop.time()`` has steps of a millisecond there."""

    async def act():
        async with (
            exchange_of() as exchange,
            client(exchange.url, heartbeat=fast(interval=0.02)) as ws,
        ):
            diary = Diary(ws, "pong")
            await diary.until("pong", 10)
            assert all(pong.latency_ms > 0 for pong in diary.of("pong"))
            assert len({pong.latency_ms for pong in diary.of("pong")}) >= 8
            assert abs(diary.events[-1].monotonic_ns - time.monotonic_ns()) < 1e9

    run(act(), loop="uvloop")


def test_s5_stats_are_an_immutable_snapshot_that_counts_from_zero():
    async def act():
        async with exchange_of(Answering(answer=lambda text: text)) as exchange:
            ws = client(exchange.url)
            before = ws.stats()
            counts = {k: v for k, v in dataclasses.asdict(before).items() if isinstance(v, int)}
            assert set(counts.values()) == {0}
            assert (before.state, before.uptime) == ("idle", 0)
            with pytest.raises(dataclasses.FrozenInstanceError):
                before.pings = 1
            await ws.connect()
            await ws.send("äh")
            assert await ws.recv() == "äh"
            await asyncio.sleep(0.02)
            stats = ws.stats()
            assert 0.02 <= stats.uptime < 10
            assert (stats.messages_sent, stats.bytes_sent) == (1, 3)
            assert (stats.messages_received, stats.bytes_received) == (1, 3)
            assert (stats.sessions, stats.reconnects) == (1, 0)
            await ws.close()
            assert ws.stats().uptime == 0
            assert (stats.state, ws.stats().state) == ("connected", "closed")
            assert before.messages_sent == 0

    run(act())


def test_s6_what_was_measured_survives_the_session():
    """In a worker the samples stand in shared memory: tests/shm/test_stats.py, test_torture.py."""

    class OncePerSession(Answering):
        def ping(self, peer, body):
            peer.send(PONG, body)
            asyncio.get_running_loop().call_later(0.01, peer.writer.close)

    async def act():
        async with (
            exchange_of(OncePerSession()) as exchange,
            client(exchange.url, heartbeat=fast()) as ws,
        ):
            diary = Diary(ws, "pong")
            await until(lambda: ws.stats().sessions >= 4 and ws.latency_ms is None)
            found, stats = [pong.latency_ms for pong in diary.of("pong")], ws.stats()
            assert len(found) == stats.pongs >= 3
            assert (stats.latency_min_ms, stats.latency_max_ms) == (min(found), max(found))
            assert stats.reconnects >= 3

    run(act())
