"""Exit codes of a worker: what the supervisor's restart policy reads. Numbers of sysexits(3)."""

from enum import IntEnum


class Exit(IntEnum):
    """Why a worker ended by itself. A signal or any other code counts as a crash."""

    STOPPED = 0  # it was asked to stop, or it lost its supervisor
    UNAVAILABLE = 69  # no session, and reconnecting is disabled or its attempts are spent
    BUG = 70  # an exception nobody expected; the traceback is on stderr
    TEMPORARY = 75  # segment locked by a predecessor, or /dev/shm is full
    CREDENTIALS = 77  # the exchange refuses our credentials; not retried
    CONFIGURATION = 78  # the connection cannot work as configured; not retried


PERMANENT = frozenset({Exit.CREDENTIALS, Exit.CONFIGURATION})
