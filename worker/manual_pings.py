"""Manual pings: PING frames that a user asked for, and who waits for their PONGs.

Beside the heartbeat: they have bodies of their own, postpone nothing, and end nothing.
"""

import asyncio


class ManualPings:
    """Those of one connection that are not answered yet, by body."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[int, asyncio.Future[int]]] = {}
        self._count = 0

    def body(self, wanted: bytes | None) -> bytes:
        """
        Return the body of the next one: as wanted, or one of its own.

        Raises:
            ValueError: If a ping of that body waits already.

        """
        self._count += 1
        chosen = f"manual-{self._count}".encode() if wanted is None else wanted
        if chosen in self._waiting:
            raise ValueError(f"payload: a ping with {chosen!r} waits for its answer already")
        return chosen

    def sent(self, body: bytes, sent_ns: int) -> asyncio.Future[int]:
        """Return the round trip to be, in ns, of a ping sent at ``sent_ns`` (CLOCK_MONOTONIC)."""
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[body] = sent_ns, answered
        answered.add_done_callback(lambda answered: self._forget(body, answered))
        return answered

    def _forget(self, body: bytes, answered: asyncio.Future[int]) -> None:
        """Wait no longer, unless it is for another ping of that body meanwhile."""
        if body in self._waiting and self._waiting[body][1] is answered:
            del self._waiting[body]

    def take(self, body: bytes, now_ns: int) -> int | None:
        """Take a PONG that came at ``now_ns``; return when its ping was sent, if it is of these."""
        if body not in self._waiting:
            return None
        sent_ns, answered = self._waiting.pop(body)
        if not answered.done():
            answered.set_result(now_ns - sent_ns)
        return sent_ns

    def lost(self) -> None:
        """Tell all who wait that the session is gone, by ``ConnectionResetError``."""
        for _sent_ns, answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(ConnectionResetError("the session is lost"))
        self._waiting.clear()
