"""Loop watch: a descriptor that an asyncio loop watches, for the one task that waits for it."""

import asyncio
from collections.abc import Callable

LOOK_S = 0.1  # some of what there is to do is due by time, and no descriptor tells


class LoopWatch:
    """
    What a subscriber has on a loop. It stays there from wait to wait, and goes if nobody waits.

    Args:
        fd: The descriptor.
        read: Reads without waiting; returns whether there is something for who waits.

    Attributes:
        loop: The loop that watches, ``None`` if none does.

    """

    def __init__(self, fd: int, read: Callable[[], bool]) -> None:
        self._fd, self._read = fd, read
        self.loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waited_for(self) -> bool:
        """Whether a task waits."""
        return self._waiter is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a loop watch, and no other one."""
        if self.loop is loop:
            return
        self.detach()
        self.loop = loop
        loop.add_reader(self._fd, self._look)
        self._timer = loop.call_later(LOOK_S, self._look_again)

    def detach(self) -> None:
        """Have no loop watch."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
            if self._timer is not None:
                self._timer.cancel()
        self.loop = self._timer = None

    async def wait(self, timeout_s: float | None) -> None:
        """
        Wait on the loop that watches until there is something, or for that long.

        Raises:
            Exception: Whatever ``read`` raises meanwhile.

        """
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def interrupt(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """End the wait on a loop, if there is one; safe to call from a signal's handler amid it."""
        if self._waiter is not None and loop is not None and loop.is_running():
            _wake(self._waiter)
            loop.call_soon_threadsafe(_nothing)  # a handler's words wake no loop that sleeps

    def _look(self) -> None:
        """Read for who waits. If nobody does, the loop is left in peace until somebody will."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.detach()
            return
        try:
            has_something = self._read()
        except Exception as error:
            if not waiter.done():  # a close has woken it
                waiter.set_exception(error)
        else:
            if has_something:
                _wake(waiter)

    def _look_again(self) -> None:
        loop = self.loop
        self._look()
        if loop is not None and self.loop is loop:
            self._timer = loop.call_later(LOOK_S, self._look_again)


def _nothing() -> None:
    """Do nothing, in a turn of the loop."""


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
