"""Restart backoff: how long a connection waits for its next process, and whether it is in a loop.

Pure. One per connection, over all its processes; when and whether anything is started is
``supervisor/restart.py``'s.
"""

from collections import deque

from supervisor.restart_facts import Remembered
from worker.spec import RestartSpec

JITTER = 0.25


class RestartBackoff:
    """
    Deaths of one connection's workers, and how long they were up before.

    All numbers are of the connection's ``restart`` table: no delay if the worker had been up for
    ``stable_after``, else ``initial_delay`` doubling to ``max_delay`` with 25 % jitter either way;
    the doubling is forgotten after ``reset_after`` up, or by an operator.

    All times are CLOCK_MONOTONIC, nanoseconds. The rules are handed over with each call, for they
    may change while the fleet runs.

    Attributes:
        crash_loop: Whether they die too often; a flag with a floor, retries never stop.
        attempt: How many deaths in a row were answered with a delay.
        deaths: When they died that count against the loop, the oldest first.
        up_since_ns: Since when this process has its session up.
        longest_up_ns: The longest that it had one, -1 for never.

    """

    def __init__(self) -> None:
        self.crash_loop = False
        self.attempt = 0
        self.deaths: deque[int] = deque()
        self.up_since_ns: int | None = None
        self.longest_up_ns = -1

    def recall(self, remembered: Remembered) -> None:
        """Go on where another supervisor's stood; ``crash_loop`` is set by the caller."""
        self.attempt = remembered.attempt
        self.deaths.extend(remembered.deaths)
        self.up_since_ns = remembered.up_since_ns
        self.longest_up_ns = remembered.longest_up_ns

    def begin(self) -> None:
        """Begin another process."""
        self.longest_up_ns = -1
        self.up_since_ns = None

    def up(self, now_ns: int) -> None:
        """Take note that the session is up."""
        self.up_since_ns = now_ns

    def down(self, now_ns: int, rules: RestartSpec) -> None:
        """Take note that it is not any more, if it was."""
        if self.up_since_ns is None:
            return
        self.longest_up_ns = max(self.longest_up_ns, now_ns - self.up_since_ns)
        self.pass_time(now_ns, rules)
        self.up_since_ns = None

    def pass_time(self, now_ns: int, rules: RestartSpec) -> None:
        """Forget what was once it has been up for ``reset_after``."""
        if self.up_since_ns is not None and now_ns - self.up_since_ns >= rules.reset_after_ns:
            self.forgive()

    def forgive(self) -> None:
        """Forget all deaths so far."""
        self.crash_loop = False
        self.attempt = 0
        self.deaths.clear()

    def died(self, now_ns: int, rules: RestartSpec) -> bool:
        """Count a death; return whether it makes a loop of what was none."""
        limit = rules.crash_loop
        if limit is None:
            return False
        self.deaths.append(now_ns)
        while self.deaths[0] <= now_ns - limit.within_ns:
            self.deaths.popleft()
        if self.crash_loop or len(self.deaths) < limit.deaths:
            return False
        self.crash_loop = True
        return True

    def delay_ns(self, draw: float, rules: RestartSpec) -> int:
        """
        Return how long the next process shall wait, 0 for not at all; this is one attempt more.

        Args:
            draw: From 0 to 1, for the jitter.
            rules: The connection's.

        """
        delay_ns = 0
        if rules.stable_after_ns and self.longest_up_ns < rules.stable_after_ns:
            plain_ns = min(rules.initial_delay_ns << min(self.attempt, 32), rules.max_delay_ns)
            self.attempt += 1
            delay_ns = max(1, round(plain_ns * (1 - JITTER + 2 * JITTER * draw)))
        if self.crash_loop and rules.crash_loop is not None:
            # Upwards only, it is a floor: workers that fail together shall not stay in step.
            floor_ns = round(rules.crash_loop.floor_ns * (1 + JITTER * draw))
            delay_ns = max(delay_ns, floor_ns)
        return delay_ns
