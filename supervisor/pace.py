"""Pace: how many workers of a fleet are replaced at the same instant.

Pure. What ends many workers together (an exchange that closes, a network that goes) must not make
the machine fork, and the exchange greet, all of them in lockstep. A single death waits for nothing:
only who comes after ``BURST`` others takes a turn, and turns are ``TURN_NS`` apart.
"""

from dataclasses import dataclass

BURST = 5
TURN_NS = 50_000_000  # docs/decisions/0013
CALM_NS = 60_000_000_000  # nobody had to wait for so long: the next storm is another one


@dataclass(frozen=True, slots=True)
class Storm:
    """Deaths came faster than replacements may. ``waiting``: so many had to wait, so far."""

    waiting: int


class Pace:
    """
    Turns of a fleet's replacements: a GCRA, as ``worker.budget``, over ``BURST`` and ``TURN_NS``.

    What an operator orders takes no turn.
    """

    def __init__(self) -> None:
        self._full_ns = 0  # when all of the burst may be had again
        self._waited_ns: int | None = None  # when somebody last had to wait
        self._waiting = 0
        self._told = False

    def turn(self, now_ns: int) -> int:
        """Take a turn and return when it comes, CLOCK_MONOTONIC: ``now_ns`` in calm weather."""
        if self._waited_ns is not None and now_ns - self._waited_ns >= CALM_NS:
            self._waited_ns, self._waiting, self._told = None, 0, False
        full_ns = max(self._full_ns, now_ns)
        self._full_ns = full_ns + TURN_NS
        turn_ns = max(now_ns, full_ns - (BURST - 1) * TURN_NS)
        if turn_ns > now_ns:
            self._waited_ns = now_ns
            self._waiting += 1
        return turn_ns

    def news(self) -> Storm | None:
        """Return a storm that was not told yet, once."""
        if not self._waiting or self._told:
            return None
        self._told = True
        return Storm(self._waiting)
