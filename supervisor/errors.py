"""Errors of the supervisor and its command line.

FleetError                      root; ``exit_code`` is what the command line ends with
├── RuntimeDirectoryRefused     the runtime directory is not ours to use
├── AlreadyRunning              another supervisor holds the fleet
├── NoSuchFleet                 no running fleet of that name, or no name and several
├── NoSuchConnection            a name or glob that matches no connection
├── NoSuchSignal                kill --signal with something that is none
├── ForeignSupervisor           another distribution owns the import package ``supervisor``
├── ZygoteError                 the fork helper cannot be started or has gone
│   └── EndpointRefused         something foreign stands at an endpoint's path
├── FleetFileError              fleet.toml has faults (all of them are carried)
├── VariableRefused             an environment variable holds what it must not
├── TooLarge (capacity)         the fleet's segments do not fit into shared memory
├── TooFewDescriptors (descriptors)
├── SimulatorFailed (exchange_process)
├── Refused (reloading)         why nothing is changed
├── TopicRefused                a topic that no message can have
├── StreamEnded                 a subscriber has nothing more to give
├── ForeignProcess              a subscriber that a forked child inherited
├── FellBehind                  a subscriber is slower than its messages
├── OrderRefused, Left (orders)
└── TimedOut (orders)           an answer, or what was ordered, did not come in time
    └── RollingStopped (rolling)
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from supervisor.exit_codes import (
    ALREADY_RUNNING,
    CONFIGURATION,
    FAILED,
    NO_SUCH_FLEET,
    USAGE,
)


class FleetError(Exception):
    """Root of this package's errors."""

    exit_code = FAILED


class RuntimeDirectoryRefused(FleetError):
    """A directory or file in the way is not ours: it is left as it is."""

    exit_code = CONFIGURATION

    def __init__(self, path: Path, why: str, mend: str) -> None:
        super().__init__(path, why, mend)
        self.path, self.why, self.mend = path, why, mend

    def __str__(self) -> str:
        return f"cannot use {self.path}: {self.why}; {self.mend}"


class AlreadyRunning(FleetError):
    """The fleet's lock is held. ``pid`` is 0 where the holder did not leave its number."""

    exit_code = ALREADY_RUNNING

    def __init__(self, fleet: str, path: Path, pid: int) -> None:
        super().__init__(fleet, path, pid)
        self.fleet, self.path, self.pid = fleet, path, pid

    def __str__(self) -> str:
        holder = f"pid {self.pid}" if self.pid else "another process"
        return (
            f"fleet {self.fleet!r} is already run by {holder} (lock {self.path}); "
            f"stop it with: supervisor shutdown --fleet {self.fleet}"
        )


class NoSuchFleet(FleetError):
    """
    There is no such fleet, or the choice is not clear.

    ``known`` names what there is, ``headless`` what is there without a living supervisor.
    """

    exit_code = NO_SUCH_FLEET

    def __init__(
        self, wanted: str | None, known: tuple[str, ...], headless: tuple[str, ...] = ()
    ) -> None:
        super().__init__(wanted, known, headless)
        self.wanted, self.known, self.headless = wanted, known, headless
        if wanted is None and known:  # not missing, but not said which
            self.exit_code = USAGE

    def __str__(self) -> str:
        there = ", ".join(self.known)
        if self.wanted is None and self.known:
            return f"several fleets are running ({there}); choose one with --fleet NAME"
        if self.headless:
            return (
                f"the supervisor of {', '.join(self.headless)} is dead; run it again with: "
                "supervisor run FILE"
            )
        if self.wanted is not None:
            close = difflib.get_close_matches(self.wanted, self.known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            return f"no fleet {self.wanted!r} is running; running: {there or 'none'}{hint}"
        return "no fleet is running; start one with: supervisor run fleet.toml"


class NoSuchConnection(FleetError):
    """A name or glob that matches nothing. ``close`` holds near misses."""

    exit_code = USAGE

    def __init__(self, pattern: str, close: tuple[str, ...]) -> None:
        super().__init__(pattern, close)
        self.pattern, self.close = pattern, close

    def __str__(self) -> str:
        hint = f" (did you mean {', '.join(self.close)}?)" if self.close else ""
        return f"no connection matches {self.pattern!r}{hint}"


class ForeignSupervisor(FleetError):
    """PyPI's supervisord shares our import package: one of the two would run the other's files."""

    exit_code = CONFIGURATION

    def __str__(self) -> str:
        return (
            "the distribution 'supervisor' (supervisord) is installed in this environment and owns "
            "the same import package; install feedwarden in a virtual environment of its own"
        )


class ZygoteError(FleetError):
    """The fork helper did not start, ended, or answered what it must not."""


class EndpointRefused(ZygoteError):
    """Something that is not ours stands where an endpoint must be bound."""

    exit_code = CONFIGURATION


class NoSuchSignal(FleetError):
    """``kill --signal`` names no signal of this system."""

    exit_code = USAGE

    def __init__(self, wanted: str) -> None:
        super().__init__(wanted)
        self.wanted = wanted

    def __str__(self) -> str:
        return f"no signal {self.wanted!r}; name one like SIGSTOP, STOP or 19"


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing wrong with a file.

    ``line`` is 0 where none can be named. ``key`` is a dotted path, empty for the whole file.
    """

    file: str
    line: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        key = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{key}{self.message}{hint}"


class FleetFileError(FleetError):
    """A fleet.toml that cannot be run; ``faults`` holds everything that is wrong with it."""

    exit_code = CONFIGURATION

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class VariableRefused(FleetError):
    """An environment variable of ours holds what it must not."""

    exit_code = CONFIGURATION

    def __init__(self, name: str, value: str, mend: str) -> None:
        super().__init__(name, value, mend)
        self.name, self.value, self.mend = name, value, mend

    def __str__(self) -> str:
        return f"{self.name}={self.value!r}: {self.mend}"


class TopicRefused(FleetError):
    """A key that cannot be the last part of a topic."""

    exit_code = USAGE

    def __init__(self, key: object) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"topic {self.key!r}: name the key alone, 1 to 200 ASCII characters without NUL"


class ForeignProcess(FleetError):
    """A subscriber read in a process that did not make it. ``pid`` is of the one that did."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return f"this subscriber belongs to process {self.pid}; make one in this process"


class StreamEnded(FleetError):
    """A subscriber was closed or stopped, or its fleet has ended and it was not to wait."""

    def __str__(self) -> str:
        return "the stream has ended: the subscriber was stopped, or the fleet has ended"


class FellBehind(FleetError):
    """The next message is older than ``max_age``. It is still to be had: nothing is lost."""

    def __init__(self, connection: str, age_s: float, max_age_s: float) -> None:
        super().__init__(connection, age_s, max_age_s)
        self.connection, self.age_s, self.max_age_s = connection, age_s, max_age_s

    def __str__(self) -> str:
        return (
            f"{self.connection}: the next message is {self.age_s:.3f} s old, more than max_age = "
            f"{self.max_age_s:g}; read faster, subscribe to less, or use on_age='skip'"
        )
