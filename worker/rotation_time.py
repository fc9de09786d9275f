"""Rotation time: when a session is to be replaced by a fresh one.

Pure. Wall times are CLOCK_REALTIME nanoseconds, so a day begins at midnight UTC: exchanges count in
UTC, and UTC has no hour twice or never.
"""

from dataclasses import dataclass

from worker.spec import DAY_NS, RotateSpec, Window


@dataclass(slots=True)
class Lifetime:
    """
    Since when a session is up, and until when it shall be.

    Attributes:
        up_ns: When it got up, CLOCK_MONOTONIC; 0 while it is not.
        born_ns: The same moment, CLOCK_REALTIME.
        draw: A random number of [0, 1), for its jitter.
        due_ns: When it is to be replaced, CLOCK_MONOTONIC; ``None`` for never by itself.

    """

    up_ns: int = 0
    born_ns: int = 0
    draw: float = 0.0
    due_ns: int | None = None

    def begin(self, now_ns: int, wall_ns: int, draw: float, spec: RotateSpec) -> None:
        """Take that it got up; arguments as of the class."""
        self.up_ns, self.born_ns, self.draw = now_ns, wall_ns, draw
        self.plan(spec)

    def plan(self, spec: RotateSpec) -> None:
        """Note when it is to be replaced."""
        due = due_ns(spec, self.born_ns, self.draw)
        self.due_ns = None if due is None or not self.up_ns else self.up_ns + due - self.born_ns


def due_ns(spec: RotateSpec, born_ns: int, draw: float) -> int | None:
    """
    Return when a session is to be replaced, ``None`` for never by itself.

    At ``max_age``, or, with a window, at the last moment of a window that is not later; a window
    that cannot be reached does not let a session grow older. Jitter is taken off, never added. The
    rest of a window in which a session was born counts only where that leads into the next one:
    otherwise sessions would be replaced in it again and again and be none the better for it.

    Args:
        spec: What is wanted.
        born_ns: When the session got up, CLOCK_REALTIME.
        draw: A random number of [0, 1).

    """
    if not spec.max_age_ns:
        return None
    earlier_ns = round(draw * spec.jitter_ns)
    latest_ns = born_ns + spec.max_age_ns - earlier_ns
    window = spec.window
    if window is None or _is_within(window, latest_ns):
        return latest_ns
    opening_ns = _last_opening(window, latest_ns)
    closing_ns = opening_ns + _length(window)
    moment_ns = max(opening_ns, closing_ns - earlier_ns)
    if opening_ns > born_ns:
        return moment_ns
    leads_on = moment_ns + spec.max_age_ns >= opening_ns + DAY_NS
    return moment_ns if leads_on and moment_ns - born_ns > spec.jitter_ns else latest_ns


def _is_within(window: Window, moment_ns: int) -> bool:
    return moment_ns - _last_opening(window, moment_ns) < _length(window)


def _last_opening(window: Window, moment_ns: int) -> int:
    """Return when the window opened last, at or before a moment."""
    return moment_ns - (moment_ns - window.opens_ns) % DAY_NS


def _length(window: Window) -> int:
    """Return how long the window is open; one may go over midnight."""
    return (window.closes_ns - window.opens_ns) % DAY_NS or DAY_NS
