"""Ending: what is done to make a process end, and what its death is put down to.

Pure. One per connection, over all its processes; when one is to end, and how long each step may
take, is ``supervisor/restart.py``'s.
"""

from supervisor.restart_facts import Action, Exited, Remembered, Signal, say
from worker.announcement import Cause, EventKind
from worker.exits import PERMANENT, Exit

# Codes with which a worker ends on purpose; they are restarted like a crash, only named apart.
BY_CHOICE = frozenset({Exit.STOPPED, Exit.UNAVAILABLE, Exit.TEMPORARY})
ASKS_TO_STOP = frozenset({"SIGTERM", "SIGINT", "SIGHUP"})


class Ending:
    """
    From SIGTERM by SIGABRT to SIGKILL, as far as it has to go.

    Attributes:
        cause: Why we end the process, "" while we do not.
        operator_signal: What an operator sent it, "" for nothing: that may end it, too.
        killed: Whether SIGKILL was sent.

    """

    def __init__(self) -> None:
        self.cause = self.operator_signal = ""
        self.killed = False

    def recall(self, remembered: Remembered) -> None:
        """Go on where another supervisor's stood."""
        self.cause, self.operator_signal = remembered.kill_cause, remembered.operator_signal
        self.killed = remembered.killed

    def begin(self) -> None:
        """Begin another process, which nobody ends yet."""
        self.cause = self.operator_signal = ""
        self.killed = False

    def terminate(self, cause: str) -> tuple[Action, ...]:
        """Ask the process to end."""
        self.cause = cause
        # SIGCONT: a stopped process must be able to obey (s6 does the same).
        return (Signal("SIGTERM"), Signal("SIGCONT"))

    def abort(self, cause: str, **detail: float) -> tuple[Action, ...]:
        """End the process with a dump of its stacks."""
        self.cause = cause
        return (
            say(EventKind.KILL, cause, signal="SIGABRT", **detail),
            Signal("SIGABRT"),
            Signal("SIGCONT"),  # a stopped one too must be able to write its stacks
        )

    def kill(self, cause: str) -> tuple[Action, ...]:
        """End the process; the second time is not announced."""
        again, self.killed = self.killed, True
        self.cause = cause
        if again:
            return (Signal("SIGKILL"),)
        return (say(EventKind.KILL, cause, signal="SIGKILL"), Signal("SIGKILL"))

    def inject(self, signal: str) -> tuple[Action, ...]:
        """Send what an operator wants sent, and remember who did."""
        self.operator_signal = signal
        return (say(EventKind.KILL, Cause.OPERATOR, signal=signal), Signal(signal))

    def cause_of_death(self, exited: Exited) -> str:
        """Return what a death is put down to; from here on nobody ends anything."""
        cause, self.cause = self.cause or self._cause_beside_ours(exited), ""
        return cause

    def _cause_beside_ours(self, exited: Exited) -> str:
        code, signal = exited.code, exited.signal
        if signal is not None and signal == self.operator_signal:
            return Cause.OPERATOR
        if exited.oom:
            return Cause.OOM
        if signal is not None:
            return Cause.SIGNAL
        if code == Exit.STOPPED and self.operator_signal in ASKS_TO_STOP:
            return Cause.OPERATOR
        if code is None:
            return Cause.UNKNOWN
        if code in PERMANENT:
            return Cause[Exit(code).name]
        return Cause.EXIT if code in BY_CHOICE else Cause.CRASH
