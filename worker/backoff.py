"""Backoff: how long to wait before the next dial. A small calculator.

Pure. Randomness comes in as a number; waiting is the session's.
"""

from worker.close_codes import POLICY_VIOLATION
from worker.spec import ReconnectSpec

# Besides the statuses and the code that mean it by their definition, what exchanges use for it.
WILL_NOT_PASS_SOON = frozenset({401, 403, 404, 410, POLICY_VIOLATION, 4401, 4403})


class Backoff:
    """
    Full-jitter exponential backoff that only time spent UP can reset.

    Resetting on connect would dial a flapping exchange at full speed. A session that was UP for
    ``stable_after`` is redialled at once, yet keeps its place in the doubling until one was UP for
    ``reset_after``. ``spec`` may be replaced.
    """

    def __init__(self, spec: ReconnectSpec) -> None:
        self.spec = spec
        self.attempt = 0  # dials since the last reset

    @property
    def exhausted(self) -> bool:
        """Whether ``max_attempts`` dials in a row have failed."""
        return bool(self.spec.max_attempts) and self.attempt >= self.spec.max_attempts

    def is_refusal(self, status: int | None, code: int | None) -> bool:
        """Return whether an HTTP status or a close code says what will not pass soon."""
        hopeless = {*WILL_NOT_PASS_SOON, *self.spec.refusals}
        return status in hopeless or code in hopeless

    def next_delay_ns(
        self, up_ns: int, draw: float, *, hammering: bool = False, at_least_ns: int = 0
    ) -> int:
        """
        Return the delay before the next dial, in nanoseconds.

        Args:
            up_ns: How long the session that ended had been UP; 0 if it never was.
            draw: A uniform random number of [0, 1).
            hammering: The exchange refused what will not pass soon: the longest delay at once.
            at_least_ns: What the exchange itself asked for (``Retry-After``).

        """
        spec = self.spec
        if up_ns and up_ns >= spec.reset_after_ns:
            self.attempt = 0
        self.attempt += 1
        if hammering:
            return max(spec.max_delay_ns, at_least_ns)
        if up_ns and up_ns >= spec.stable_after_ns:
            return at_least_ns
        grown_ns = spec.initial_delay_ns * spec.factor ** min(self.attempt - 1, 40)
        return max(int(min(grown_ns, spec.max_delay_ns) * draw), at_least_ns)
