"""A client of a fuzzing server: echoes whatever case it is put through, with either engine."""

import asyncio
import collections

from worker.spec import ConnectionSpec, ReconnectSpec
from worker.wire import Route, make_wire


class Echo:
    """Says back what it is told."""

    def __init__(self, spec):
        self.wire = make_wire(spec, Route(url=spec.url), self)
        self.heard, self.closed = [], asyncio.Event()

    def on_socket(self, _connection):
        pass

    def on_connected(self, peer):
        pass

    def on_opened(self):
        pass

    def on_message(self, is_text, payload, _now_ns, _wall_ns):
        self.heard.append(payload)
        (self.wire.send_text if is_text else self.wire.send_binary)(payload)

    def on_pong(self, body, now_ns):
        pass

    def on_ping(self, body, now_ns):
        pass

    def on_read(self):
        pass

    def on_closed(self, ending):
        self.closed.set()


class Mute(Echo):
    """Says nothing back."""

    def on_message(self, _is_text, payload, _now_ns, _wall_ns):
        self.heard.append(payload)


async def session(url, engine, *, compression=False, owner=Echo):
    """Echo until the server ends it; return what was heard."""
    patient = ReconnectSpec(close_timeout_ns=10**10)
    spec = ConnectionSpec(
        name="x", url=url, engine=engine, compression=compression, reconnect=patient
    )
    echo = owner(spec)
    echo.wire.open(None)
    await echo.closed.wait()
    return echo.heard


async def run_cases(server, engine, **keys):
    """Run all cases with one engine; keys as of ``session``."""
    (count,) = await session(f"{server}/getCaseCount", engine, owner=Mute)
    for case in range(1, int(count) + 1):
        url = f"{server}/runCase?case={case}&agent={engine}"
        await session(url, engine, **keys)
    await session(f"{server}/updateReports?agent={engine}", engine)


def table(index):
    """Return the table of an index.json, and the cases that FAILED."""
    lines = ["| engine | cases | " + "behaviour |", "|---|---|---|"]
    failed = []
    for engine, cases in index.items():
        told = collections.Counter(case["behavior"] for case in cases.values())
        said = ", ".join(f"{count} {behavior}" for behavior, count in told.most_common())
        lines.append(f"| {engine} | {len(cases)} | {said} |")
        failed += [f"{engine} {name}" for name, c in cases.items() if c["behavior"] == "FAILED"]
    return lines, failed
