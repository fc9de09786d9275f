"""Subscriptions: what the peers of a data endpoint have subscribed to, counted.

Pure. An XPUB with ZMQ_XPUB_VERBOSER tells every subscription and every end of one, those of a peer
that died included, but once where it subscribed to one prefix several times. So a count may stay
too high; ``clear`` it when no peer is left. The end of what was never subscribed to is not told.
"""

from worker.envelope import TOPIC_LENGTH_MAX, topic_prefix

SUBSCRIBE, UNSUBSCRIBE = 1, 0
PREFIXES_MAX = 10_000  # different ones
PREFIX_BYTES_MAX = TOPIC_LENGTH_MAX + 1  # a longer one matches no topic


class Subscriptions:
    """
    The prefixes subscribed at one endpoint.

    Args:
        connection: Whose data it is.

    Attributes:
        total: How many subscriptions there are, each peer's counted.
        refused: Frames that are no subscription, or one that cannot match or is one too many.
        ended: Whether a subscription has ended since this was last set to false.

    """

    def __init__(self, connection: str) -> None:
        self._topics = (topic_prefix(f"data.{connection}"), f"data.{connection}.".encode("ascii"))
        self._counts: dict[bytes, int] = {}
        self._data = 0
        self.total = 0
        self.refused = 0
        self.ended = False

    @property
    def wants_data(self) -> bool:
        """Whether any of them can match a data topic."""
        return self._data > 0

    def clear(self) -> None:
        """Count from nothing again: nobody is there."""
        self._counts.clear()
        self._data = self.total = 0

    def take(self, frame: bytes) -> bool:
        """Count what a peer sent; return whether it is a subscription."""
        kind, prefix = frame[:1], frame[1:]
        self.ended |= kind == bytes([UNSUBSCRIBE])
        if kind == bytes([SUBSCRIBE]) and len(prefix) <= PREFIX_BYTES_MAX:
            if prefix in self._counts or len(self._counts) < PREFIXES_MAX:
                self._counts[prefix] = self._counts.get(prefix, 0) + 1
                self.total += 1
                self._data += self._is_data(prefix)
                return True
            # libzmq has it all the same, and its end will not be known: from now on all is sent.
            self._data += self._is_data(prefix)
        elif kind == bytes([UNSUBSCRIBE]) and prefix in self._counts:
            self._end(prefix)
            return False
        self.refused += 1
        return False

    def _end(self, prefix: bytes) -> None:
        self._counts[prefix] -= 1
        self.total -= 1
        self._data -= self._is_data(prefix)
        if not self._counts[prefix]:
            del self._counts[prefix]

    def _is_data(self, prefix: bytes) -> bool:
        return any(topic.startswith(prefix) or prefix.startswith(topic) for topic in self._topics)
