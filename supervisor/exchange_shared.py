"""One market for all sessions of an exchange: everybody subscribed gets the same messages.

As real exchanges do, and what two sessions of one connection need to be compared. Numbers go on
whoever comes and goes; a session that comes late has missed what was said before.
"""

import asyncio
import time
from typing import Protocol

from supervisor.exchange_dialects import Exchange, Message
from supervisor.exchange_feed import Feed, Market
from supervisor.exchange_spec import SimulatorSpec


class Receiver(Protocol):
    """A session that is subscribed."""

    def give(self, message: Message) -> None:
        """Send it a data message."""


class SharedFeed:
    """
    The market of one exchange; its clock runs while anybody is subscribed.

    Args:
        exchange: How it speaks.
        spec: What it does.

    """

    def __init__(self, exchange: Exchange, spec: SimulatorSpec) -> None:
        self._exchange = exchange
        self._market, self._feed = Market(spec.seed), Feed(spec.rate)
        self._receivers: dict[Receiver, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, receiver: Receiver) -> None:
        """Give a session what comes from now on."""
        self._receivers[receiver] = None
        if self._timer is None:
            if not self._feed.has_begun:
                self._feed.begin(time.monotonic())
            self._feed.mute(time.monotonic())  # what fell due while nobody was there
            self._turn()

    def remove(self, receiver: Receiver) -> None:
        """Give it nothing more."""
        self._receivers.pop(receiver, None)
        if not self._receivers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        for number in self._feed.take(time.monotonic()):
            message = self._exchange.data(self._market, number, now_ms)
            for receiver in self._receivers:
                receiver.give(message)
        self._timer = asyncio.get_running_loop().call_later(self._feed.pause_s, self._turn)
