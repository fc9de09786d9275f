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
        bytes_max: How many bytes of payload may wait; one message always may.

    Attributes:
        has_consumer: Whether anybody ever asked for a message.
        dropped: Messages that found no place.

    """

    def __init__(self, size_max: int, bytes_max: int) -> None:
        self._size_max, self._bytes_max = size_max, bytes_max
        self._bytes = 0
        self._items: deque[tuple[bytes, bool]] = deque()
        self._changed = asyncio.Event()
        self._is_closed = False
        self._in_a_row = 0
        self.has_consumer = False
        self.dropped = 0

    def put(self, payload: bytes, is_text: bool) -> None:
        """Keep a message, in the place of the oldest if there is none left."""
        items = self._items
        self._bytes += len(payload)
        while items and (len(items) >= self._size_max or self._bytes > self._bytes_max):
            self._bytes -= len(items.popleft()[0])
            self.dropped += 1
        items.append((payload, is_text))
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
                item = self._items.popleft()
                self._bytes -= len(item[0])
                return item
            self._in_a_row = 0
            await asyncio.sleep(0)  # meanwhile another task may take what is there
