"""Simulator: an exchange in a process of its own, for demos and tests, with faults on command.

A real WebSocket server (``exchange_session``). Commands are plain HTTP on the same port
(docs/simulator.md).
"""

import asyncio
import errno
import signal
import sys
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import uvloop

from supervisor.exchange_dialects import EXCHANGES
from supervisor.exchange_faults import KINDS, Fault, FaultBoard
from supervisor.exchange_session import COMMANDS, Session
from supervisor.exchange_shared import SharedFeed
from supervisor.exchange_spec import SimulatorSpec
from supervisor.exit_codes import CONFIGURATION, OK
from worker.process_name import set_process_name


class Exchanges:
    """
    The server: its sessions and its faults.

    Args:
        spec: What it does.

    """

    def __init__(self, spec: SimulatorSpec) -> None:
        self.spec = spec
        self.faults = FaultBoard()
        self._sessions: dict[int, Session] = {}
        self._opened = 0
        self._markets: dict[str, SharedFeed] = {}
        self._left_out: Counter[str] = Counter()  # by tag

    def enter(self, session: Session) -> int:
        """Take a session that is open; return its number, from 1."""
        self._opened += 1
        self._sessions[self._opened] = session
        return self._opened

    def leave(self, session: Session) -> None:
        """Forget a session whose socket is gone, whether it was open or not."""
        self._sessions.pop(session.number, None)

    def market(self, session: Session) -> SharedFeed:
        """Return the market that the sessions of an exchange share."""
        if session.path not in self._markets:
            self._markets[session.path] = SharedFeed(EXCHANGES[session.path](), self.spec)
        return self._markets[session.path]

    def leave_out(self, session: Session) -> None:
        """Count a message of a shared market that a session does not get."""
        self._left_out[session.tag] += 1

    def command(self, target: str) -> tuple[int, Any]:
        """Carry out an HTTP command; return status and document."""
        parts = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        match parts.path.removeprefix(COMMANDS):
            case "sessions":
                return 200, [session.describe() for session in self._sessions.values()]
            case "faults":
                return 200, [fault.describe() for fault in self.faults.active()]
            case "left_out":
                return 200, self._left_out
            case "clear":
                self.faults.clear()
                return 200, []
            case "fault":
                return self._fault(query)
            case _:
                return 404, {"error": "commands: fault, faults, clear, sessions, left_out"}

    def _fault(self, query: dict[str, str]) -> tuple[int, Any]:
        try:
            fault = Fault.parse(query)
        except ValueError as error:
            return 400, {"error": str(error), "kinds": KINDS}
        if fault.path and fault.path not in EXCHANGES:
            return 404, {"error": f"no path {fault.path!r}", "paths": sorted(EXCHANGES)}
        matching = [s for s in self._sessions.values() if fault.concerns(s.path, s.tag, s.number)]
        if fault.kind.is_lasting:
            self.faults.add(fault)
            for session in matching:
                session.note_faults()
        else:
            for session in matching:
                session.suffer(fault)
        return 200, {"sessions": len(matching)}


async def serve(spec: SimulatorSpec, lifeline: int | None) -> int:
    """Serve until SIGINT, SIGTERM or the end of the lifeline; return the exit code."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    exchanges = Exchanges(spec)
    try:
        server = await loop.create_server(
            lambda: Session(exchanges), spec.host, spec.port, backlog=1024
        )
    except (OSError, ValueError) as error:  # ValueError: a host that can be none
        print(f"simulator: {_cannot_listen(spec, error)}", file=sys.stderr)
        return CONFIGURATION
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if lifeline is not None:
        loop.add_reader(lifeline, ended.set)
    port = server.sockets[0].getsockname()[1]
    print(f"LISTENING {spec.host} {port}", flush=True)
    await ended.wait()
    server.close()
    return OK


def _cannot_listen(spec: SimulatorSpec, error: Exception) -> str:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    is_port = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
    mend = "port (0 takes any free one)" if is_port else "host: an address of this machine"
    return f"cannot listen on {spec.host}:{spec.port}: {why}; choose another {mend}"


def main() -> int:
    """Serve as the arguments say: a ``SimulatorSpec`` as JSON, and the lifeline's descriptor."""
    spec = msgspec.json.decode(sys.argv[1], type=SimulatorSpec)
    lifeline = int(sys.argv[2]) if len(sys.argv) > 2 else None
    set_process_name("fw-exchange")
    return uvloop.run(serve(spec, lifeline))


if __name__ == "__main__":
    sys.exit(main())
