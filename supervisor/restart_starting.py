"""Starting: how far the start of a process has come, and until when it must come further.

Pure. One per connection, over all its processes; what becomes of one that is late is
``supervisor/restart.py``'s.
"""

from supervisor.restart_facts import Remembered
from worker.announcement import Cause
from worker.spec import ConnectionSpec


class Starting:
    """
    From fork to first stamp, and from there to serving: a limit each, both since the fork.

    What comes after the first stamp may load an operator's modules and take its time.

    Attributes:
        forked_ns: When it was forked, or that was asked for while there is no process yet;
            CLOCK_MONOTONIC.
        stamped: Whether its loop has turned.

    """

    def __init__(self) -> None:
        self.forked_ns = 0
        self.stamped = False

    def recall(self, remembered: Remembered) -> None:
        """Go on where another supervisor's stood."""
        self.forked_ns, self.stamped = remembered.forked_ns, remembered.stamped

    def begin(self, now_ns: int) -> None:
        """Begin another process."""
        self.forked_ns, self.stamped = now_ns, False

    def limit_ns(self, spec: ConnectionSpec) -> int:
        """Return how long the process may take for what it is at, nanoseconds since its fork."""
        if self.stamped:
            return spec.ready_timeout_ns
        return min(spec.start_timeout_ns, spec.ready_timeout_ns)

    def deadline_ns(self, spec: ConnectionSpec) -> int:
        """Return when that is over, CLOCK_MONOTONIC."""
        return self.forked_ns + self.limit_ns(spec)

    def limit_missed(self, spec: ConnectionSpec) -> Cause:
        """Return which limit it is."""
        if self.stamped or spec.ready_timeout_ns < spec.start_timeout_ns:
            return Cause.READY_TIMEOUT
        return Cause.START_TIMEOUT
