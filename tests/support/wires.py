"""For tests of wires: an owner that writes down what it is told, dials, bounded runs."""

import asyncio

import uvloop
from raw_exchange import RawExchange

from worker.spec import ConnectionSpec, ReconnectSpec
from worker.wire import Route, make_wire, tls_context

PATIENCE_S = 60
CLOSE_TIMEOUT_S = 0.3


class Ear:
    """Writes down what a wire tells."""

    def __init__(self):
        self.told = []
        self.opened, self.closed = asyncio.Event(), asyncio.Event()
        self.ending = None

    def on_socket(self, connection):
        self.socket = connection

    def on_connected(self, peer):
        self.told.append(("connected", peer))

    def on_opened(self):
        self.told.append(("opened",))
        self.opened.set()

    def on_message(self, is_text, payload, now_ns, wall_ns):
        assert 0 < now_ns < wall_ns
        self.told.append(("message", is_text, payload))

    def on_pong(self, body, now_ns):
        self.told.append(("pong", body))

    def on_ping(self, body, now_ns):
        self.told.append(("ping", body))

    def on_read(self):
        pass

    def on_closed(self, ending):
        assert self.ending is None, "closed twice"
        self.ending = ending
        self.closed.set()

    def of(self, kind):
        return [item[1:] for item in self.told if item[0] == kind]


def spec_of(url, **keys):
    keys.setdefault("reconnect", ReconnectSpec(close_timeout_ns=int(CLOSE_TIMEOUT_S * 1e9)))
    return ConnectionSpec(name="x", url=url, **keys)


def dial(spec, ear=None):
    ear = ear or Ear()
    wire = make_wire(spec, Route(url=spec.url, headers=spec.headers), ear)
    wire.open(tls_context(spec.url, spec.tls_ca))
    return wire, ear


def run(coroutine, *, loop="uvloop"):
    async def bounded():
        async with asyncio.timeout(PATIENCE_S):
            return await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        return runner.run(bounded())


async def wait_until(condition):
    while not condition():  # noqa: ASYNC110 - nobody tells when a socket is gone
        await asyncio.sleep(0.005)


def life(script, *, handshake=True, **keys):
    """Return what a wire told from dial to end, the exchange being ``script``."""

    async def act():
        async with RawExchange(script, handshake=handshake) as exchange:
            _wire, ear = dial(spec_of(exchange.url, **keys))
            await ear.closed.wait()
            await wait_until(lambda: exchange.open == 0)
            return ear, exchange

    return run(act())
