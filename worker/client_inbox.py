"""Inbox: messages that wait for a consumer of the library.

Bounded, and nobody who reads from a socket ever waits for it: when it is full the oldest go.
"""

import asyncio
from collections import deque

TURN_OF = 100  # messages a consumer may take in a row before the loop has its turn


class Inbox:
    """
    Messages as they came: payload, and whether it is text.

    Args:
        size_max: How many may wait.

    Attributes:
        has_consumer: Whether anybody ever asked for a message.
        dropped: Messages that found no place.

    """

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._items: deque[tuple[bytes, bool]] = deque()
        self._changed = asyncio.Event()
        self._is_closed = False
        self._in_a_row = 0
        self.has_consumer = False
        self.dropped = 0

    def put(self, payload: bytes, is_text: bool) -> None:
        """Keep a message, in the place of the oldest if there is none left."""
        if len(self._items) >= self._size_max:
            self._items.popleft()
            self.dropped += 1
        self._items.append((payload, is_text))
        self._changed.set()

    def close(self) -> None:
        """Say that no more will come."""
        self._is_closed = True
        self._changed.set()

    async def take(self) -> tuple[bytes, bool] | None:
        """Return the next message, ``None`` once closed and empty. Cancelling it loses none."""
        self.has_consumer = True
        while True:
            while not self._items:
                if self._is_closed:
                    return None
                self._changed.clear()
                self._in_a_row = 0
                await self._changed.wait()
            self._in_a_row += 1
            if self._in_a_row < TURN_OF:
                return self._items.popleft()
            self._in_a_row = 0
            await asyncio.sleep(0)  # meanwhile another task may take what is there
