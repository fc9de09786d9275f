"""Facts and requests of the rotation machine: what it is told, and what it asks the shell to do.

Pure.
"""

from dataclasses import dataclass

from worker.announcement import Cause

# Facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    """
    A session is subscribed.

    ``wall_ns`` is CLOCK_REALTIME, ``draw`` a random number of [0, 1) for its jitter.
    """

    is_second: bool
    wall_ns: int
    draw: float


@dataclass(frozen=True, slots=True)
class Down:
    """A session has ended, or was not to be had; it dials again by itself."""

    is_second: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A fresh session is wanted."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class SecondData:
    """The second session brought its first data."""


@dataclass(frozen=True, slots=True)
class Matched:
    """A message came that both sessions have."""


@dataclass(frozen=True, slots=True)
class Crowded:
    """The exchange allows no further session at a time: the second one cannot be dialled."""


@dataclass(frozen=True, slots=True)
class FirstGone:
    """The first session was closed for good."""


@dataclass(frozen=True, slots=True)
class SecondGone:
    """The second session was given up by itself, for good."""


@dataclass(frozen=True, slots=True)
class Settled:
    """No message of the first session waits for its twin any more."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. ``first_data_ns``: when the first session brought data last, 0 for never."""

    first_data_ns: int = 0


Event = (
    Up | Down | Wanted | SecondData | Matched | Crowded | FirstGone | SecondGone | Settled | Tick
)

# Requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Tell that a rotation begins, and whether it must break before it makes."""

    cause: Cause
    breaks: bool


@dataclass(frozen=True, slots=True)
class MakeSecond:
    """Dial another session beside the first."""


@dataclass(frozen=True, slots=True)
class DropSecond:
    """Give the second session up; the first stays."""


@dataclass(frozen=True, slots=True)
class RenewSecond:
    """Close the second session and have it dialled again: it is of no use."""


@dataclass(frozen=True, slots=True)
class RenewFirst:
    """Close the first session and have it dialled again."""


@dataclass(frozen=True, slots=True)
class AwaitMatch:
    """Answer the next message that both have with ``Matched``."""


@dataclass(frozen=True, slots=True)
class CloseFirst:
    """Close the first session for good; answer with ``FirstGone``."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The second session is the first one from now on, and the only one."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Tell that it has failed: the first session stays, and it is tried again later."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Tell that it is done: ``overlap_ns`` is how long both sessions brought data."""

    overlap_ns: int


Action = (
    Begin
    | MakeSecond
    | DropSecond
    | RenewSecond
    | RenewFirst
    | AwaitMatch
    | CloseFirst
    | TakeOver
    | GiveUp
    | Finish
)
