"""Age: notices a consumer that is slower than its messages (the suicidal snail of the zguide)."""

import math
import time
from typing import Literal, get_args

from supervisor.errors import FellBehind
from supervisor.items import Item, Message

Policy = Literal["warn", "skip", "raise"]


class AgeWatch:
    """
    Judges the age of messages at the moment they are handed to the consumer.

    Args:
        max_age_s: Seconds from arrival at this host.
        policy: What is to be done.

    Attributes:
        max_age_ns: The same limit.

    Raises:
        ValueError: If the limit is not above 0, or there is no such policy.

    """

    def __init__(self, max_age_s: float, policy: Policy) -> None:
        if not 0 < max_age_s < math.inf:
            raise ValueError(f"max_age is in seconds and above 0, got {max_age_s!r}")
        if policy not in get_args(Policy):
            raise ValueError(f"on_age is one of {', '.join(get_args(Policy))}, got {policy!r}")
        self.max_age_ns = int(max_age_s * 1e9)
        self.policy = policy
        self._behind: set[str] = set()

    def judge(self, item: Item) -> FellBehind | None:
        """Return what is to be told of an item that is late, or nothing if it is not."""
        if type(item) is not Message or item.repaired:
            return None
        age_ns = time.monotonic_ns() - item.monotonic_ns
        if age_ns <= self.max_age_ns:
            self._behind.discard(item.connection)
            return None
        return FellBehind(item.connection, age_ns / 1e9, self.max_age_ns / 1e9)

    def is_new(self, connection: str) -> bool:
        """Note that a connection is behind; return whether that is news."""
        if connection in self._behind:
            return False
        self._behind.add(connection)
        return True
