"""Errors of the supervisor and its command line.

FleetError                      root; ``exit_code`` is what the command line ends with
├── FleetFileError              fleet.toml has faults (all of them are carried)
├── RuntimeDirectoryRefused     the runtime directory is not ours to use
├── AlreadyRunning              another supervisor holds the fleet
├── NoSuchFleet                 no running fleet of that name, or no name and several
├── NoSuchConnection            a name or glob that matches no connection
├── ForeignSupervisor           another distribution owns the import package ``supervisor``
└── ZygoteError                 the fork helper cannot be started or has gone
"""

from pathlib import Path


class FleetError(Exception):
    """Root of this package's errors."""

    exit_code = 1


class RuntimeDirectoryRefused(FleetError):
    """A directory or file in the way is not ours: it is left as it is."""

    exit_code = 5

    def __init__(self, path: Path, why: str, mend: str) -> None:
        super().__init__(path, why, mend)
        self.path, self.why, self.mend = path, why, mend

    def __str__(self) -> str:
        return f"cannot use {self.path}: {self.why}; {self.mend}"


class AlreadyRunning(FleetError):
    """The fleet's lock is held. ``pid`` is 0 where the holder did not leave its number."""

    exit_code = 4

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
    """There is no such fleet, or the choice is not clear. ``known`` names what there is."""

    exit_code = 6

    def __init__(self, wanted: str | None, known: tuple[str, ...]) -> None:
        super().__init__(wanted, known)
        self.wanted, self.known = wanted, known

    def __str__(self) -> str:
        there = ", ".join(self.known)
        if self.wanted is not None:
            return f"no fleet {self.wanted!r} is running; running: {there or 'none'}"
        if self.known:
            return f"several fleets are running ({there}); choose one with --fleet NAME"
        return "no fleet is running; start one with: supervisor run fleet.toml"


class NoSuchConnection(FleetError):
    """A name or glob that matches nothing. ``close`` holds near misses."""

    exit_code = 2

    def __init__(self, pattern: str, close: tuple[str, ...]) -> None:
        super().__init__(pattern, close)
        self.pattern, self.close = pattern, close

    def __str__(self) -> str:
        hint = f" (did you mean {', '.join(self.close)}?)" if self.close else ""
        return f"no connection matches {self.pattern!r}{hint}"


class ForeignSupervisor(FleetError):
    """PyPI's supervisord shares our import package: one of the two would run the other's files."""

    exit_code = 5

    def __str__(self) -> str:
        return (
            "the distribution 'supervisor' (supervisord) is installed in this environment and owns "
            "the same import package; install feedwarden in a virtual environment of its own"
        )


class ZygoteError(FleetError):
    """The fork helper did not start, ended, or answered what it must not."""
