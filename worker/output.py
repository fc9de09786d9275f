"""Output: what a connection tells its owner, and the numbers that it keeps there.

The library's is ``worker/client_output.py``. A supervised worker has ``worker/legs.py`` between:
``worker/runner.py`` is told of all sessions as one.
"""

from typing import Protocol

from worker.announcement import Announcement
from worker.dialect import DialectError
from worker.exits import Exit
from worker.session import Session
from worker.together import Seen
from worker.tuning import Fact


class Cells(Protocol):
    """Numbers by index: a view of shared memory, or a list."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class Ear(Protocol):
    """
    Who hears of a connection, or of one session of it.

    ``now_ns`` is CLOCK_MONOTONIC and ``wall_ns`` CLOCK_REALTIME when the bytes arrived.
    """

    def message(self, payload: bytes, is_text: bool, now_ns: int, wall_ns: int) -> None:
        """Data came, as it was sent."""

    def read(self) -> None:
        """All messages of one read were told."""

    def ping(self, body: bytes, sent_ns: int) -> None:
        """A ping of the timetable was sent at ``sent_ns``, CLOCK_MONOTONIC: a moment ago."""

    def pong(self, rtt_ns: int | None, now_ns: int, payload: bytes) -> None:
        """A ping was answered; ``rtt_ns`` as in ``heartbeat_facts.TakePong``."""

    def announce(self, announcement: Announcement) -> None:
        """An event happened."""

    def dialect_error(self, error: DialectError) -> None:
        """A rule raised, or a payload did not decode."""

    def tuned(self, facts: tuple[Fact, ...]) -> None:
        """The options of a new socket were set."""

    def ended(self, code: Exit) -> None:
        """The connection is closed for good."""


class Output(Ear, Protocol):
    """Who hears of a connection, session by session."""

    def state(self, machine: Session, now_ns: int) -> None:
        """The session may have another state."""

    def notice(self) -> None:
        """The exchange announced the end of the session."""

    def crowded(self) -> None:
        """A dial waits, for the host allows no further session at a time."""


class Owner(Ear, Protocol):
    """Who hears of all sessions of a connection as one."""

    def state(self, seen: Seen, now_ns: int) -> None:
        """The connection may have another state."""
