"""Outbox: what waits to be said to the exchange, and when it may be.

Pure. Exchanges cut clients that send too much, and some count PING and PONG frames too (Binance
spot: five messages a second in all). Pings are never delayed; what waits here leaves them room.
"""

from collections import deque

from worker.spec import OutboundLimit


class Outbox:
    """
    Messages in order, paced.

    Args:
        limit: How many may leave; ``None`` for any number at once.
        places: How many of them are left to our pings, see ``places_for_pings``.

    """

    def __init__(self, limit: OutboundLimit | None, places: int = 1) -> None:
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._sent_ns: deque[int] = deque()  # of the last ``limit.messages`` that left
        self._messages_max = 0 if limit is None else max(1, limit.messages - places)

    def add(self, *messages: bytes) -> None:
        """Put messages at the end."""
        self._waiting.extend(messages)

    def clear(self) -> None:
        """Forget what waits: the session it was meant for has ended."""
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def deadline_ns(self) -> int | None:
        """When ``take`` gives something, CLOCK_MONOTONIC; ``None`` if nothing waits."""
        if not self._waiting:
            return None
        if self._limit is None or len(self._sent_ns) < self._messages_max:
            return 0
        return self._sent_ns[-self._messages_max] + self._limit.per_ns

    def take(self, now_ns: int) -> tuple[bytes, ...]:
        """Return, and count as sent, what may leave now."""
        taken: list[bytes] = []
        while (deadline_ns := self.deadline_ns) is not None and deadline_ns <= now_ns:
            taken.append(self._waiting.popleft())
            self.note(now_ns)
        return tuple(taken)

    def note(self, now_ns: int) -> None:
        """Count something that left without waiting here, but for our pings: they have places."""
        if self._limit is None:
            return
        self._sent_ns.append(now_ns)
        while len(self._sent_ns) > self._limit.messages:
            self._sent_ns.popleft()


def places_for_pings(per_ns: int, interval_ns: int) -> int:
    """
    Return how many places of an outbound limit are left to pings.

    Args:
        per_ns: The limit's time.
        interval_ns: Between pings of ours, 0 if there are none: one place then, for pongs we owe.

    """
    return -(-per_ns // interval_ns) if interval_ns else 1
