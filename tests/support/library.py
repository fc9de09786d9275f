"""For tests of the library face: a bounded run that leaks nothing, servers, an event diary."""

import asyncio
import contextlib
import os
import time

import uvloop
from aiohttp import WSMsgType, web
from raw_exchange import CLOSE, PING, PONG, TEXT, RawExchange

from worker import BackoffConfig, HeartbeatConfig, WebSocket

PATIENCE_S = 25
ENGINE = os.environ.get("TEST_ENGINE", "auto")
QUICK = BackoffConfig(initial=0.001, maximum=0.001)
EVENTS = (
    "connecting", "connected", "disconnected", "reconnecting", "ping", "pong", "late_pong",
    "timeout", "message", "error", "closed",
)  # fmt: skip


def open_sockets():
    """Return how many sockets this process holds; loops open other descriptors as they need."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


def run(coroutine, *, patience=PATIENCE_S, loop="asyncio"):
    """Run to its end, bounded; neither task nor socket may be left."""

    async def bounded():
        before = open_sockets()
        async with asyncio.timeout(patience):
            found = await coroutine
            await asyncio.sleep(0.01)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, left
        await asyncio.get_running_loop().shutdown_default_executor()
        assert open_sockets() == before
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        return runner.run(bounded())


async def until(condition):
    """Wait for what nobody tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def fast(**keys):
    """A heartbeat for tests: each key of ``HeartbeatConfig``, and 0.1 s for what is not given."""
    keys.setdefault("interval", 0.1)
    keys.setdefault("timeout", keys["interval"])
    keys.setdefault("first", 0.02)
    return HeartbeatConfig(**keys)


def client(url, **keys):
    """A client with short waits and no heartbeat, unless given."""
    keys.setdefault("heartbeat", None)
    keys.setdefault("backoff", QUICK)
    keys.setdefault("close_timeout", 0.3)
    keys.setdefault("engine", ENGINE)
    return WebSocket(url, **keys)


class Diary:
    """All events of a client, in the order its handlers were called."""

    def __init__(self, ws, *names):
        self.events = []
        for name in names or EVENTS:
            ws.add_handler(name, self.events.append)

    @property
    def names(self):
        return [event.name for event in self.events]

    def of(self, name):
        return [event for event in self.events if event.name == name]

    async def until(self, name, count=1):
        """Return the event that makes it ``count`` of that name."""
        await until(lambda: len(self.of(name)) >= count)
        return self.of(name)[count - 1]


class Answering:
    """
    A script of ``RawExchange``: answers PING and CLOSE, writes down everything.

    Args:
        delay: Seconds before a PONG.
        mute: Answers no PING.
        deaf: Leaves a CLOSE unanswered.
        answer: ``answer(text)`` is sent for each text, if not ``None``.
        opening: Texts sent at the start.

    """

    def __init__(self, *, delay=0.0, mute=False, deaf=False, answer=None, opening=()):
        self.delay, self.mute, self.deaf = delay, mute, deaf
        self.answer, self.opening = answer, opening
        self.pings, self.texts, self.closes = [], [], []
        self.sessions = []  # texts by session
        self.gone_ns = []

    async def __call__(self, peer):
        texts = []
        self.sessions.append(texts)
        for text in self.opening:
            peer.send(TEXT, text.encode())
        try:
            while True:
                opcode, payload = await peer.receive()
                if opcode == PING:
                    self.pings.append((time.monotonic_ns(), payload))
                    self.ping(peer, payload)
                elif opcode == TEXT:
                    texts.append(payload)
                    self.texts.append(payload)
                    self.text(peer, payload)
                elif opcode == CLOSE:
                    self.closes.append(payload)
                    if not self.deaf:
                        peer.send(CLOSE, payload)
                        return
        finally:
            self.gone_ns.append(time.monotonic_ns())

    def ping(self, peer, body):
        if not self.mute:
            self.later(peer, PONG, body)

    def text(self, peer, payload):
        if self.answer is not None and (said := self.answer(payload)) is not None:
            self.later(peer, TEXT, said)

    def later(self, peer, opcode, payload, delay=None):
        delay = self.delay if delay is None else delay
        if delay:
            asyncio.get_running_loop().call_later(delay, peer.send, opcode, payload)
        else:
            peer.send(opcode, payload)


@contextlib.asynccontextmanager
async def exchange_of(script=None, **keys):
    """A raw server that runs ``script`` (by default ``Answering()``)."""
    async with RawExchange(script or Answering(), **keys) as exchange:
        yield exchange


@contextlib.asynccontextmanager
async def foreign(serve=None, **options):
    """An aiohttp server; ``serve(ws)`` runs for each socket, by default an echo. Gives its URL."""

    async def echo(ws):
        async for message in ws:
            if message.type == WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await ws.send_bytes(message.data)

    async def handle(request):
        ws = web.WebSocketResponse(**options)
        await ws.prepare(request)
        await (serve or echo)(ws)
        return ws

    app = web.Application()
    app.router.add_get("/ws", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    try:
        yield f"ws://127.0.0.1:{port}/ws"
    finally:
        await runner.cleanup()


def refused_url():
    """A URL on a port where nobody listens."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"ws://127.0.0.1:{free.getsockname()[1]}/ws"
