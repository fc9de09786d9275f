"""Facts and requests of the restart machine: what it is told, and what it asks the shell to do.

Pure.
"""

from dataclasses import dataclass

from worker.announcement import Announcement, Cause, EventKind

# Facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartWanted:
    """The connection shall run (from the configuration or an operator)."""


@dataclass(frozen=True, slots=True)
class StopWanted:
    """The connection shall not run. ``cause``: operator, shutdown."""

    cause: str = Cause.OPERATOR


@dataclass(frozen=True, slots=True)
class RestartWanted:
    """A fresh process is wanted, whatever the state."""


@dataclass(frozen=True, slots=True)
class KillWanted:
    """An operator injects a fault: ``signal`` at once, policy decides what follows."""

    signal: str


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process exists."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The fork was refused, for instance at RLIMIT_NPROC."""

    error: str


@dataclass(frozen=True, slots=True)
class Stamped:
    """Its loop turns: it has put its first stamp into shared memory."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The process serves its endpoint and stamps."""


@dataclass(frozen=True, slots=True)
class Up:
    """Its exchange session is subscribed."""


@dataclass(frozen=True, slots=True)
class Down:
    """Its exchange session ended."""


@dataclass(frozen=True, slots=True)
class Hung:
    """Its liveness stamp is older than the connection's ``hang.timeout``."""

    age_ns: int


@dataclass(frozen=True, slots=True)
class MemoryHigh:
    """It holds more than ``process.memory_hard``."""


@dataclass(frozen=True, slots=True)
class Exited:
    """
    The process is gone. Exactly one of ``code`` and ``signal``, or neither if nobody knows.

    ``draw`` is a uniform random number of [0, 1) for the jitter. ``oom``: its memory ran out.
    """

    code: int | None
    signal: str | None
    draw: float
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = (
    StartWanted
    | StopWanted
    | RestartWanted
    | KillWanted
    | Spawned
    | SpawnFailed
    | Stamped
    | Ready
    | Up
    | Down
    | Hung
    | MemoryHigh
    | Exited
    | Tick
)


# Over the supervisor's death -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """How a process of the connection ended, and when, CLOCK_MONOTONIC."""

    at_ns: int
    cause: str
    code: int | None = None
    signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """
    What a successor must know of a life besides what everybody may read of it.

    The fields are those of ``restart.WorkerLife`` and its parts, times of CLOCK_MONOTONIC; the two
    limits are of its specification, for ``explain``. Every one has a default, so that a program
    with one field more reads what one without it has written.
    """

    stop_cause: str = ""
    replace: bool = False
    kill_cause: str = ""
    operator_signal: str = ""
    killed: bool = False
    forked_ns: int = 0
    stamped: bool = False
    has_turn: bool = False
    renewing: bool = False
    why: str = ""
    since_ns: int = 0
    exits: tuple[Death, ...] = ()
    hang_timeout_ns: int = 0
    reset_after_ns: int = 0
    attempt: int = 0
    deaths: tuple[int, ...] = ()
    up_since_ns: int | None = None
    longest_up_ns: int = -1
    deadline_ns: int | None = None


# Requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork the next incarnation."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send ``name`` to the process."""

    name: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish on the fleet's event endpoint."""

    announcement: Announcement


Action = Spawn | Signal | Announce


def say(
    kind: EventKind, cause: str = "", delay_s: float | None = None, /, **detail: object
) -> Announce:
    """Return the request to announce something."""
    return Announce(Announcement(kind=kind, cause=cause, detail=detail, delay_s=delay_s))
