"""Dispatcher: hands events of the library face to the user's handlers.

They run beside the connection, one after the other and in the order of the events: a slow one
delays other handlers and nothing else.
"""

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from worker.client_events import Error, Event, Message, check_name

log = logging.getLogger("worker.client")

Handler = Callable[[Any], Any]
OTHERS_MAX = 10_000  # events other than messages that may wait for slow handlers
# The dispatcher whose handler runs here, or began the task that runs here.
_handling: contextvars.ContextVar["Dispatcher | None"] = contextvars.ContextVar(
    "handling", default=None
)


def _place_of_first(queue: deque[tuple[int, Event, int]]) -> int:
    return queue[0][0]


class Dispatcher:
    """
    Runs handlers.

    Args:
        waiting_max: Message events that may wait for slow handlers; beyond, the oldest are dropped.
            Of all others together ``OTHERS_MAX`` may, so that no flood of messages drops any.
        bytes_max: Bytes of message events that may wait; one always may.

    Attributes:
        errors: Handlers that raised.
        dropped: Message events that were dropped.
        others_dropped: Events of other kinds that were.

    """

    def __init__(self, waiting_max: int, bytes_max: int) -> None:
        self._handlers: dict[str, list[Handler]] = {}
        # Each with its place in the order of all, by which the two are merged, and its bytes.
        self._messages: deque[tuple[int, Event, int]] = deque()
        self._others: deque[tuple[int, Event, int]] = deque()
        self._emitted = self._bytes = 0
        self._messages_max, self._bytes_max = waiting_max, bytes_max
        self._task: asyncio.Task[None] | None = None
        self.errors = self.dropped = self.others_dropped = 0

    def add(self, name: str, handler: Handler) -> None:
        """
        Call ``handler`` for events of that name, after those added before.

        Raises:
            ValueError: If there is no such event, or the handler is no function.

        """
        check_name(name)
        if not callable(handler):
            raise ValueError(f"a handler of {name!r} must be a function, got {handler!r}")
        handlers = self._handlers.setdefault(name, [])
        if handler not in handlers:
            handlers.append(handler)

    def remove(self, name: str, handler: Handler) -> None:
        """Call it no more; that it was never added is no error."""
        if handler in self._handlers.get(name, ()):
            self._handlers[name].remove(handler)

    def hears(self, name: str) -> bool:
        """Return whether anybody wants events of that name."""
        return bool(self._handlers.get(name))

    def emit(self, event: Event, size: int = 0) -> None:
        """Have the handlers of an event called, soon and in order; ``size``: bytes of a message."""
        if not self._handlers.get(event.name):
            return
        self._emitted += 1
        if isinstance(event, Message):
            waiting = self._messages
            self._bytes += size
            while waiting and (len(waiting) >= self._messages_max or self._bytes > self._bytes_max):
                self._bytes -= waiting.popleft()[2]
                self.dropped += 1
            waiting.append((self._emitted, event, size))
        else:
            if len(self._others) >= OTHERS_MAX:
                self._others.popleft()
                self.others_dropped += 1
            self._others.append((self._emitted, event, 0))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _next(self) -> Event | None:
        queues = [queue for queue in (self._messages, self._others) if queue]
        if not queues:
            return None
        _place, event, size = min(queues, key=_place_of_first).popleft()
        self._bytes -= size
        return event

    async def _run(self) -> None:
        _handling.set(self)
        try:
            while (event := self._next()) is not None:
                for handler in tuple(self._handlers.get(event.name, ())):
                    await self._call(handler, event)
        finally:
            self._task = None

    async def _call(self, handler: Handler, event: Event) -> None:
        try:
            result = handler(event)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._raised(event, RuntimeError(f"cancelled: {error}"))  # something it waited for
        except Exception as error:  # the user's code may raise anything
            self._raised(event, error)

    def _raised(self, event: Event, error: Exception) -> None:
        self.errors += 1
        log.error("a handler of %r raised", event.name, exc_info=error)
        if not isinstance(event, Error):
            self.emit(Error(error=error, where=f"handler of {event.name}"))

    async def drained(self, timeout: float) -> None:
        """Wait until every handler has run, or so many seconds; not at all if one of them asks."""
        if self._task is not None and _handling.get() is not self:
            await asyncio.wait((self._task,), timeout=timeout)
