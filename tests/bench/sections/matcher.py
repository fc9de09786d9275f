"""What a message costs in the library behind the parser, without and with a matcher for pongs."""

import asyncio
import time

from bench import names
from bench.options import Options
from bench.sections.heartbeat import Server
from worker import HeartbeatConfig, WebSocket

TRADE = (
    b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486'
    b'865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"20f43950-d8dd",'
    b'"BT":false}]}'
)


def run(options: Options) -> None:
    """Measure without heartbeat, with an armed matcher, and while a ping is outstanding."""
    with Server() as server:
        costs = matcher_costs(server, 9 if options.quick else 45)
    for column, values in costs.items():
        options.figures.add(names.MATCHER, column, names.OURS, values)


def matcher_costs(server, batches, batch=20_000):
    """Return ns a message of ``Connection.on_message``, by what the heartbeat does."""

    def heartbeat(matched):
        return HeartbeatConfig(
            interval=120,
            timeout=120,
            first=0.01,
            use_ws_ping=False,
            use_application_ping=True,
            payload=b'{"op": "ping"}',
            pong_matcher=matched,
        )

    async def act():
        spoken = heartbeat(lambda msg: msg == "pong")
        answering, mute = server.url("0-fed"), server.url("mute-fed")
        async with (
            WebSocket(answering, heartbeat=None, buffer=1) as bare,
            WebSocket(answering, heartbeat=spoken, buffer=1) as armed,
            WebSocket(mute, heartbeat=spoken, buffer=1, close_timeout=0.1) as waiting,
        ):
            while armed.latency_ms is None or not waiting.stats().pings:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            clients = {
                names.NO_HEARTBEAT: bare,
                names.ARMED: armed,
                names.OUTSTANDING: waiting,
            }
            costs = {name: [] for name in clients}
            for number in range(batches):
                turn = list(clients.items())
                for name, ws in turn[number % 3 :] + turn[: number % 3]:
                    costs[name].append(ns_per_message(ws, batch))
                    await asyncio.sleep(0)
            return costs

    return asyncio.run(act())


def ns_per_message(ws, count):
    take = ws._connection.on_message
    now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    begun_ns = time.thread_time_ns()
    for _ in range(count):
        take(True, TRADE, now_ns, wall_ns)
    return (time.thread_time_ns() - begun_ns) / count
