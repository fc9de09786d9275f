"""The page we answer to: every snippet runs as printed, but for the import and the address.

What it promises in prose and tables is tested with it.
"""

import asyncio
import io
import textwrap
from contextlib import redirect_stdout

import pytest
from library import Answering, Diary, exchange_of, run, until

from worker import HeartbeatConfig, WebSocket

BASIC = """
from worker import WebSocket, HeartbeatConfig

ws = WebSocket(
    "wss://example.com/ws",
    heartbeat=HeartbeatConfig(
        interval=30.0,  # Send ping every 30 seconds
        timeout=10.0,   # Wait 10 seconds for pong
    ),
)
"""
DISABLED = """
ws = WebSocket(
    "wss://example.com/ws",
    heartbeat=None,  # No heartbeat
)
"""
LATENCY = """
# Current latency
latency = ws.latency_ms
print(f"Current latency: {latency}ms")

# From stats
stats = ws.stats()
print(f"Latency: {stats.latency_ms}ms")
print(f"Average latency: {stats.latency_avg_ms}ms")
"""
EVENTS = """
@ws.on("ping")
async def on_ping(event):
    print(f"Ping sent: {event.payload}")

@ws.on("pong")
async def on_pong(event):
    print(f"Pong received: latency={event.latency_ms}ms")
"""
APPLICATION = """
heartbeat = HeartbeatConfig(
    interval=20.0,
    timeout=10.0,
    # Custom payload (sent as application message)
    payload=b'{"op": "ping"}',
    use_ws_ping=False,  # Don't use WebSocket ping
    use_application_ping=True,  # Send as regular message
    # Detect pong in application messages
    pong_matcher=lambda msg: msg.get("op") == "pong",
)
"""
BINANCE = """
# Binance uses WebSocket pong frames automatically
heartbeat = HeartbeatConfig(
    interval=20.0,
    timeout=10.0,
)
"""
BYBIT = """
# Bybit uses application-level ping/pong
heartbeat = HeartbeatConfig(
    interval=20.0,
    timeout=10.0,
    payload=b'{"op": "ping"}',
    use_ws_ping=False,
    use_application_ping=True,
    pong_matcher=lambda msg: msg.get("op") == "pong",
)
"""


def executed(snippet, url="", **names):
    """Return the names that a snippet leaves."""
    names = {"WebSocket": WebSocket, "HeartbeatConfig": HeartbeatConfig} | names
    exec(textwrap.dedent(snippet).replace("wss://example.com/ws", url), names)
    return names


def test_the_basic_configuration_the_events_and_the_latency_run_as_printed():
    """The first ping leaves after a second, whatever the interval; so there is a latency."""

    async def act():
        script = Answering(delay=0.01)
        async with exchange_of(script) as exchange:
            ws = executed(BASIC, exchange.url)["ws"]
            printed = io.StringIO()
            with redirect_stdout(printed):
                executed(EVENTS, ws=ws)
                executed(LATENCY, ws=ws)
                async with ws:
                    diary = Diary(ws, "pong")
                    await diary.until("pong")
                    latency = ws.latency_ms
                    executed(LATENCY, ws=ws)
            body = script.pings[0][1]
            assert printed.getvalue().splitlines() == [
                "Current latency: Nonems",
                "Latency: Nonems",
                "Average latency: Nonems",
                f"Ping sent: {body}",
                f"Pong received: latency={latency}ms",
                f"Current latency: {latency}ms",
                f"Latency: {latency}ms",
                f"Average latency: {latency}ms",
            ]
            assert latency >= 9

    run(act())


def test_the_disabled_heartbeat_runs_as_printed_and_sends_nothing():
    async def act():
        script = Answering(mute=True)
        async with exchange_of(script) as exchange:
            async with executed(DISABLED, exchange.url)["ws"] as ws:
                await asyncio.sleep(0.3)  # longer in test_c2
                assert ws.is_connected
            assert script.pings == []

    run(act())


def test_the_heartbeats_of_the_exchanges_run_as_printed():
    async def frames(snippet):
        script = Answering()
        heartbeat = executed(snippet)["heartbeat"]
        async with (
            exchange_of(script) as exchange,
            WebSocket(exchange.url, heartbeat=heartbeat) as ws,
        ):
            await until(lambda: ws.latency_ms is not None)
            assert len(script.pings) == 1
            assert script.texts == []

    async def messages(snippet):
        script = Answering(answer=lambda text: b'{"op":"pong"}', opening=['{"op":"other"}'])
        heartbeat = executed(snippet)["heartbeat"]
        assert (heartbeat.interval, heartbeat.timeout) == (20, 10)
        async with (
            exchange_of(script) as exchange,
            WebSocket(exchange.url, heartbeat=heartbeat) as ws,
        ):
            await Diary(ws, "pong").until("pong")
            assert ws.latency_ms > 0
            assert await ws.recv() == '{"op":"other"}'
            assert script.texts == [b'{"op": "ping"}']
            assert script.pings == []

    async def act():
        await asyncio.gather(frames(BINANCE), messages(APPLICATION), messages(BYBIT))

    run(act())


def test_how_it_works_is_how_it_works():
    """A frame every interval; no pong within timeout is death; closed, and redialled if enabled."""

    async def act(reconnect):
        class ThenMute(Answering):
            def ping(self, peer, body):
                if len(self.pings) <= 3:
                    super().ping(peer, body)

        script = ThenMute()
        heartbeat = HeartbeatConfig(interval=0.2, timeout=0.1)
        async with exchange_of(script) as exchange:
            async with WebSocket(exchange.url, heartbeat=heartbeat, reconnect=reconnect) as ws:
                diary = Diary(ws)
                await diary.until("disconnected")
                await until(lambda: script.gone_ns)
                if reconnect:
                    await diary.until("connected")
                else:
                    await diary.until("closed")
                    assert ws.state == "closed"
            assert len(script.pings) >= 4
            times = [sent_ns for sent_ns, _ in script.pings[:4]]
            assert (times[3] - times[0]) / 3e9 == pytest.approx(0.2, rel=0.1)
            assert diary.of("timeout")[0].waited == pytest.approx(0.1, abs=0.05)
            assert exchange.accepted == 1 + reconnect

    async def both():
        await asyncio.gather(act(reconnect=True), act(reconnect=False))

    run(both())


@pytest.mark.parametrize(
    ("row", "preset"),
    [
        ("Trading 20s 10s", "trading"),
        ("LLM Streaming 30s 15s", "llm_streaming"),
        ("Dashboard 30s 20s", "dashboard"),
    ],
)
def test_the_use_case_table_is_in_the_presets(row, preset):
    *_, interval, timeout = row.split()
    config = HeartbeatConfig.preset(preset)
    assert (f"{config.interval:g}s", f"{config.timeout:g}s") == (interval, timeout)
    assert "_".join(row.lower().split()[:-2]) == preset
    executed(f'ws = WebSocket("wss://example.com/ws", heartbeat="{preset}")', "ws://127.0.0.1:1/")
