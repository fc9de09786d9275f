"""States of a session, and which may follow which.

Pure. ``worker/session.py`` asserts every step against the table, and docs/architecture.md draws it.
"""

import enum


class State(enum.Enum):
    """Where the session stands; the number is the hot word that others read."""

    IDLE = 0  # not started
    DIALING = 1  # name, TCP, TLS
    HANDSHAKING = 2  # HTTP upgrade
    SUBSCRIBING = 3  # open; welcome, login, subscriptions and their answers on their way
    UP = 4  # subscribed
    DRAINING = 5  # closing: the socket is still there
    WAITING = 6  # no socket, the next dial has a time
    CLOSED = 7  # for good
    STALE = 8  # up, and the exchange sends no data


_ENDED = {State.DRAINING, State.WAITING, State.CLOSED}
TRANSITIONS: dict[State, frozenset[State]] = {
    State.IDLE: frozenset({State.DIALING, State.CLOSED}),
    State.DIALING: frozenset({State.HANDSHAKING, *_ENDED}),
    State.HANDSHAKING: frozenset({State.SUBSCRIBING, State.UP, *_ENDED}),
    State.SUBSCRIBING: frozenset({State.UP, *_ENDED}),
    State.UP: frozenset({State.STALE, *_ENDED}),
    State.STALE: frozenset({State.UP, *_ENDED}),
    State.DRAINING: frozenset({State.WAITING, State.CLOSED}),
    State.WAITING: frozenset({State.DIALING, State.CLOSED}),
    State.CLOSED: frozenset(),
}
SERVING = frozenset({State.UP, State.STALE})
OPEN = SERVING | {State.SUBSCRIBING}
CONNECTED = frozenset(state.name.lower() for state in OPEN)  # data can come; as subscribers read it
WITH_SOCKET = OPEN | {State.DIALING, State.HANDSHAKING, State.DRAINING}
