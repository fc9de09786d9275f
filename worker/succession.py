"""Succession: a worker's connection, and the one that follows it when the configuration changes.

The session machine never changes its specification. Where a change needs a new session, the
connection is ended orderly and another one begins with the new specification, in the same process,
on the same shared memory and endpoint.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from shm.layout import Counter
from worker.announcement import Cause
from worker.close_codes import GOING_AWAY
from worker.exits import Exit
from worker.output import Cells
from worker.respec import Change, cost
from worker.spec import ConnectionSpec, SubscribeSpec

log = logging.getLogger("worker")


class Sessions(Protocol):
    """What keeps up the sessions of one specification."""

    def start(self) -> None:
        """Dial."""

    def stop(self, code: int = ..., reason: str = ..., cause: Cause = ...) -> None:
        """End for good; ``Succession.ended`` is called once the socket is gone."""

    def resubscribe(self, wanted: SubscribeSpec) -> None:
        """Have another subscription."""

    def adjust(self, spec: ConnectionSpec) -> None:
        """Have other numbers where ``worker.respec`` says that they are live."""

    def rotate(self, cause: Cause) -> None:
        """Replace its sessions by fresh ones."""

    async def close(self) -> None:
        """Let go of what is kept between dials."""


class Succession:
    """
    The connection of a worker, one after another.

    Args:
        spec: What to begin with.
        make: Makes a connection of a specification.
        on_end: Called once when the last is closed, and there shall be no other.
        counters: By ``shm.layout.Counter``; a following connection is a reconnection.

    Raises:
        Exception: Whatever ``make`` raises.

    """

    def __init__(
        self,
        spec: ConnectionSpec,
        make: Callable[[ConnectionSpec], Sessions],
        on_end: Callable[[Exit], None],
        counters: Cells,
    ) -> None:
        self._make, self._on_end, self._counters = make, on_end, counters
        self._loop = asyncio.get_running_loop()
        self.spec = spec
        self._next: ConnectionSpec | None = None
        self._stopping = False
        self._former: set[asyncio.Task[None]] = set()
        self._connection = make(spec)

    def start(self) -> None:
        """Dial."""
        self._connection.start()

    def stop(self) -> None:
        """End for good."""
        self._stopping = True
        self._connection.stop()

    def rotate(self, cause: Cause) -> None:
        """Replace the sessions by fresh ones; where another connection follows they are."""
        if self._next is None and not self._stopping:
            self._connection.rotate(cause)

    def take(self, wanted: ConnectionSpec) -> None:
        """Have another specification; what needs another process is left to the supervisor."""
        change = cost(self.spec, wanted)
        if self._stopping or change is Change.RESTART:
            return
        if self._next is not None:  # the last intent wins
            self._next = wanted
        elif change is Change.LIVE:
            self.spec = wanted
            self._connection.adjust(wanted)
            self._connection.resubscribe(wanted.subscribe)
        elif change is Change.RECONNECT:
            self._next = wanted
            self._connection.stop(GOING_AWAY, "configuration changed", Cause.CONFIG)

    def ended(self, code: Exit) -> None:
        """The connection is closed for good; another one may follow."""
        if self._next is None or self._stopping:
            self._on_end(code)
        else:
            # In a turn of its own: the connection is in the midst of telling it.
            self._loop.call_soon(self._succeed)

    def _succeed(self) -> None:
        wanted, self._next = self._next, None
        if self._stopping or wanted is None:
            self._on_end(Exit.STOPPED)
            return
        former = self._connection
        closing = self._loop.create_task(former.close())
        self._former.add(closing)
        closing.add_done_callback(self._former.discard)
        try:
            self._connection = self._make(wanted)
        except Exception as error:  # a function of the operator's that cannot be loaded
            log.error("connection=%s cannot go on as configured: %s", wanted.name, error)
            self._on_end(Exit.CONFIGURATION)
            return
        self.spec = wanted
        self._counters[Counter.RECONNECTS] += 1
        self._connection.start()

    async def close(self) -> None:
        """Let go of timers and of what is kept between dials; the session must have ended."""
        await asyncio.gather(*self._former)
        await self._connection.close()
