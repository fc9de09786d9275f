"""Queue bound: how many messages may wait for a slow subscriber, so that their bytes are bounded.

Pure. libzmq bounds a queue by messages alone: ten thousand of 1 MiB would be ten gigabytes. A full
queue holds the latest messages, so as many are allowed as the latest ones with a bounded sum.
"""

from collections import deque

OVERHEAD_BYTES = 128  # of a message: topic, header, and what libzmq and malloc add
MESSAGES_MIN = 4


class QueueBound:
    """
    The high-water mark for the traffic of late.

    Args:
        messages_max: The most messages, whatever their size.
        bytes_max: The most bytes, whatever their number, but for the four messages that are
            always allowed.

    """

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._messages_max, self._bytes_max = messages_max, bytes_max
        self._steps: deque[tuple[int, int]] = deque()
        self._messages = self._bytes = 0
        self._is_cut = False

    def passed(self, messages: int, size: int) -> int:
        """Take in what was sent since the last call; return the high-water mark."""
        if messages:
            step = messages, size + messages * OVERHEAD_BYTES
            self._steps.append(step)
            self._messages += step[0]
            self._bytes += step[1]
        while len(self._steps) > 1 and self._messages - self._steps[0][0] >= self._messages_max:
            self._forget()
            self._is_cut = False
        while len(self._steps) > 1 and self._bytes > self._bytes_max:
            self._forget()
            self._is_cut = True
        if self._bytes > self._bytes_max:  # of one step alone
            allowed = self._messages * self._bytes_max // self._bytes
        else:
            allowed = self._messages if self._is_cut else self._messages_max
        return max(min(MESSAGES_MIN, self._messages_max), min(allowed, self._messages_max))

    def _forget(self) -> None:
        messages, size = self._steps.popleft()
        self._messages -= messages
        self._bytes -= size
