"""States of a connection's process, and which may follow which.

Pure. ``supervisor/restart.py`` asserts every step against the table, and docs/architecture.md draws
it.
"""

import enum


class State(enum.Enum):
    """Where the process of a connection stands. The number is what the registry shows."""

    STOPPED = 1  # no process, none wanted
    STARTING = 2  # forked, has not said that it serves
    RUNNING = 3  # serves its endpoint; its session is its own affair
    STOPPING = 4  # asked to end
    KILLING = 5  # made to end
    BACKOFF = 6  # no process, the next one has a time
    FAILED = 7  # no process, only an operator starts it again


# A step to the same state is always allowed.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING}),
    State.STARTING: frozenset(
        {State.RUNNING, State.STOPPING, State.KILLING, State.BACKOFF, State.FAILED}
    ),
    State.RUNNING: frozenset(
        {State.STARTING, State.STOPPING, State.KILLING, State.BACKOFF, State.FAILED}
    ),
    State.STOPPING: frozenset({State.STOPPED, State.STARTING, State.KILLING, State.BACKOFF}),
    State.KILLING: frozenset({State.STOPPED, State.STARTING, State.BACKOFF, State.FAILED}),
    State.BACKOFF: frozenset({State.STARTING, State.STOPPED}),
    State.FAILED: frozenset({State.STARTING, State.STOPPED}),
}
NO_PROCESS = frozenset({State.STOPPED, State.BACKOFF, State.FAILED})
UNENDED = frozenset({State.STARTING, State.RUNNING})  # a process that nobody ends
