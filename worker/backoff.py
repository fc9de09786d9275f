"""Backoff: how long to wait before the next dial. A small calculator.

Pure. Randomness comes in as a number; waiting is the session's.
"""

from worker.spec import ReconnectSpec


class Backoff:
    """
    Full-jitter exponential backoff that only time spent UP can reset.

    Resetting on connect would dial a flapping exchange at full speed. A session that was UP for
    ``stable_after`` is redialled at once, yet keeps its place in the doubling until one was UP for
    ``reset_after``.
    """

    def __init__(self, spec: ReconnectSpec) -> None:
        self._spec = spec
        self.attempt = 0  # dials since the last reset

    def next_delay_ns(self, up_ns: int, draw: float, *, hammering: bool = False) -> int:
        """
        Return the delay before the next dial, in nanoseconds.

        Args:
            up_ns: How long the session that ended had been UP; 0 if it never was.
            draw: A uniform random number of [0, 1).
            hammering: The exchange refused in a way that will not pass soon (401, 403, 404, 410,
                close code 1008): the longest delay at once.

        """
        spec = self._spec
        if up_ns and up_ns >= spec.reset_after_ns:
            self.attempt = 0
        self.attempt += 1
        if hammering:
            return spec.max_delay_ns
        if up_ns and up_ns >= spec.stable_after_ns:
            return 0
        ceiling_ns = min(spec.initial_delay_ns << min(self.attempt - 1, 40), spec.max_delay_ns)
        return int(ceiling_ns * draw)
