"""Lines of the fleet's table, for tests that are about one or two of their fields."""

from dataclasses import replace

from supervisor.restart_state import State
from supervisor.slot import Slot

PLAIN = Slot(
    name="a",
    exchange="",
    pid=7,
    incarnation=3,
    state=State.RUNNING,
    wanted=True,
    hung=False,
    crash_loop=False,
    restarts=0,
    next_attempt_ns=0,
    last_exit=None,
)


def slot(**changes):
    """Return a running connection's, and what of it is different here."""
    return replace(PLAIN, **changes)
