"""Session: the life of a connection to its exchange, one WebSocket life after another.

Pure. It owns the heartbeat of the session that is up, and decides when to dial, subscribe, close,
wait and give up. It opens no socket and knows no library: the shell is ``worker/runner.py``.
"""

import enum
from dataclasses import dataclass

from worker import heartbeat
from worker.announcement import Announcement, Cause, EventKind
from worker.backoff import Backoff
from worker.exits import Exit
from worker.heartbeat import Heartbeat
from worker.spec import ConnectionSpec

SECOND_NS = 1_000_000_000
NORMAL_CLOSURE, GOING_AWAY, POLICY_VIOLATION = 1000, 1001, 1008  # RFC 6455 section 7.4.1
WILL_NOT_PASS_SOON = frozenset({401, 403, 404, 410})


class State(enum.Enum):
    """Where the session stands; the number is the hot word that others read."""

    IDLE = 0  # not started
    DIALING = 1  # name, TCP, TLS
    HANDSHAKING = 2  # HTTP upgrade
    SUBSCRIBING = 3  # open, subscriptions on their way
    UP = 4  # subscribed, heartbeat running
    DRAINING = 5  # closing: the socket is still there
    WAITING = 6  # no socket, the next dial has a time
    CLOSED = 7  # for good


# Facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The worker serves; the first dial may go."""


@dataclass(frozen=True, slots=True)
class Connected:
    """TCP and TLS are done; the upgrade request is on its way to ``peer``."""

    peer: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake is done."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """All subscriptions were written."""


@dataclass(frozen=True, slots=True)
class Lost:
    """
    The socket of this session is gone, or never came to be.

    ``cause`` is a word of the closed set in docs/wire-format.md; ``code`` and ``reason`` are the
    peer's close frame, ``status`` its refusal of the handshake. ``draw`` is a random number of
    [0, 1) for the backoff.
    """

    cause: str
    draw: float
    code: int | None = None
    reason: str = ""
    status: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class StopWanted:
    """The worker shall end."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = Started | Connected | Opened | Subscribed | Lost | StopWanted | Tick | heartbeat.Event


# Requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """Open session number ``session``; answer with ``Connected``, ``Opened`` or ``Lost``."""

    session: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Write the subscriptions; answer with ``Subscribed``."""


@dataclass(frozen=True, slots=True)
class CloseWire:
    """
    Send a close frame and close the socket within ``close_timeout``; answer with ``Lost``.

    ``wait``: give the peer that time to answer the close. A dead one gets none.
    """

    code: int
    reason: str
    wait: bool


@dataclass(frozen=True, slots=True)
class AbortWire:
    """Drop the socket, or the dial, now; answer with ``Lost``."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the world."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class EndWorker:
    """The worker has nothing left to do."""

    code: Exit


Action = Dial | Subscribe | CloseWire | AbortWire | Announce | EndWorker | heartbeat.Action

TRANSITIONS: dict[State, frozenset[State]] = {
    State.IDLE: frozenset({State.DIALING, State.CLOSED}),
    State.DIALING: frozenset({State.HANDSHAKING, State.DRAINING, State.WAITING, State.CLOSED}),
    State.HANDSHAKING: frozenset({State.SUBSCRIBING, State.DRAINING, State.WAITING, State.CLOSED}),
    State.SUBSCRIBING: frozenset({State.UP, State.DRAINING, State.WAITING, State.CLOSED}),
    State.UP: frozenset({State.DRAINING, State.WAITING, State.CLOSED}),
    State.DRAINING: frozenset({State.WAITING, State.CLOSED}),
    State.WAITING: frozenset({State.DIALING, State.CLOSED}),
    State.CLOSED: frozenset(),
}
WITH_SOCKET = frozenset(
    {State.DIALING, State.HANDSHAKING, State.SUBSCRIBING, State.UP, State.DRAINING}
)


class Session:
    """
    A connection's sessions, one at a time.

    At most one socket exists: the next dial leaves only after ``Lost`` of the last.

    Args:
        spec: The connection.

    Attributes:
        number: Number of the session, from 1; facts of older ones must not be handed in.
        heartbeat: Of the session that is up, ``None`` without one.
        up_ns: When the session got up, CLOCK_MONOTONIC; 0 while it is not.

    """

    def __init__(self, spec: ConnectionSpec) -> None:
        self._spec = spec
        self._backoff = Backoff(spec.reconnect)
        self.state = State.IDLE
        self.number = 0
        self.heartbeat: Heartbeat | None = None
        self.up_ns = 0
        self._deadline_ns: int | None = None
        self._dialed_ns = 0
        self._peer = ""
        self._end_cause = ""  # why we closed, "" if the peer or the network did
        self._stopping = False

    @property
    def deadline_ns(self) -> int | None:
        """When ``Tick`` is due, CLOCK_MONOTONIC; ``None`` if there is nothing to wait for."""
        beat_ns = None
        if self.state is State.UP and self.heartbeat is not None:
            beat_ns = self.heartbeat.deadline_ns
        if self._deadline_ns is None or beat_ns is None:
            return beat_ns if self._deadline_ns is None else self._deadline_ns
        return min(self._deadline_ns, beat_ns)

    @property
    def awaiting_pong(self) -> bool:
        """Whether an application pong would mean anything."""
        return self.heartbeat is not None and self.heartbeat.awaiting

    def handle(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        """
        Take one fact, return what the shell must do, in order. Late calls are safe.

        Args:
            now_ns: CLOCK_MONOTONIC nanoseconds; of a pong, when its bytes arrived.
            event: The fact, of the current session.

        """
        before = self.state
        actions = self._step(now_ns, event)
        assert self.state is before or self.state in TRANSITIONS[before], (before, event)
        return actions

    def _step(self, now_ns: int, event: Event) -> tuple[Action, ...]:
        match event:
            case Started():
                return self._dial(now_ns)
            case Connected(peer):
                self._peer = peer
                return self._advance(State.DIALING, State.HANDSHAKING)
            case Opened():
                return self._advance(State.HANDSHAKING, State.SUBSCRIBING, Subscribe())
            case Subscribed():
                return self._up(now_ns)
            case Lost():
                return self._lost(now_ns, event)
            case StopWanted():
                return self._stop()
            case Tick():
                return self._tick(now_ns)
            case _:
                return self._beat(now_ns, event)

    def _dial(self, now_ns: int) -> tuple[Action, ...]:
        self.state = State.DIALING
        self.number += 1
        self._dialed_ns = now_ns
        self._end_cause, self._peer = "", ""
        self._deadline_ns = now_ns + self._spec.reconnect.connect_timeout_ns
        return (Dial(self.number),)

    def _advance(self, source: State, target: State, *actions: Action) -> tuple[Action, ...]:
        if self.state is not source:  # a stop or a timeout was quicker
            return ()
        self.state = target
        return actions

    def _up(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is not State.SUBSCRIBING:
            return ()
        self.state, self.up_ns, self._deadline_ns = State.UP, now_ns, None
        if self._spec.heartbeat is not None:
            self.heartbeat = Heartbeat(self._spec.heartbeat, now_ns)
        detail = {
            "session": self.number,
            "attempt": self._backoff.attempt + 1,
            "peer": self._peer,
            "connect_s": round((now_ns - self._dialed_ns) / SECOND_NS, 6),
        }
        return (Announce(Announcement(kind=EventKind.UP, detail=detail)),)

    def _tick(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is State.UP:
            return self._beat(now_ns, heartbeat.Tick())
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return ()
        match self.state:
            case State.WAITING:
                return self._dial(now_ns)
            case State.DIALING | State.HANDSHAKING | State.SUBSCRIBING:
                return self._close(Cause.CONNECT_TIMEOUT, AbortWire())
            case _:
                return ()

    def _beat(self, now_ns: int, event: heartbeat.Event) -> tuple[Action, ...]:
        if self.heartbeat is None:
            unsolicited = isinstance(event, heartbeat.PongFrame)
            return (heartbeat.CountForeignPong(),) if unsolicited else ()
        actions: list[Action] = []
        for action in self.heartbeat.handle(now_ns, event):
            actions.append(action)
            if isinstance(action, heartbeat.DeclareDead):
                actions += self._declare_dead(action)
        return tuple(actions)

    def _declare_dead(self, dead: heartbeat.DeclareDead) -> tuple[Action, ...]:
        if self.state is not State.UP:
            return ()
        detail = {
            "session": self.number,
            "waited_s": round(dead.waited_ns / SECOND_NS, 6),
        }
        timeout = Announcement(kind=EventKind.TIMEOUT, cause=dead.cause, detail=detail)
        close = CloseWire(GOING_AWAY, dead.cause.replace("_", " "), wait=False)
        return (Announce(timeout), *self._close(dead.cause, close))

    def _stop(self) -> tuple[Action, ...]:
        self._stopping = True
        match self.state:
            case State.IDLE | State.WAITING:
                self.state, self._deadline_ns = State.CLOSED, None
                return (EndWorker(Exit.STOPPED),)
            case State.DIALING | State.HANDSHAKING:
                return self._close(Cause.STOP, AbortWire())
            case State.SUBSCRIBING | State.UP:
                return self._close(Cause.STOP, CloseWire(NORMAL_CLOSURE, "", wait=True))
            case _:
                return ()

    def _close(self, cause: str, how: Action) -> tuple[Action, ...]:
        # No deadline: the wire itself ends within close_timeout, whoever began to close.
        self.state = State.DRAINING
        self._end_cause = cause
        self._deadline_ns = None
        return (how,)

    def _lost(self, now_ns: int, lost: Lost) -> tuple[Action, ...]:
        if self.state not in WITH_SOCKET:
            return ()
        cause = self._end_cause or lost.cause
        up_for_ns = now_ns - self.up_ns if self.up_ns else 0
        self.heartbeat, self.up_ns, self._deadline_ns = None, 0, None
        if self._stopping:
            self.state = State.CLOSED
            return (self._down(cause, lost, up_for_ns, None), EndWorker(Exit.STOPPED))
        if not self._spec.reconnect.enabled:
            self.state = State.CLOSED
            return (self._down(cause, lost, up_for_ns, None), EndWorker(Exit.UNAVAILABLE))
        refused = lost.status in WILL_NOT_PASS_SOON or lost.code == POLICY_VIOLATION
        delay_ns = self._backoff.next_delay_ns(up_for_ns, lost.draw, hammering=refused)
        self.state = State.WAITING
        self._deadline_ns = now_ns + delay_ns
        return (self._down(cause, lost, up_for_ns, delay_ns),)

    def _down(self, cause: str, lost: Lost, up_for_ns: int, delay_ns: int | None) -> Announce:
        detail: dict[str, object] = {"session": self.number, "attempt": self._backoff.attempt}
        if up_for_ns:
            detail["up_s"] = round(up_for_ns / SECOND_NS, 3)
        for name in ("code", "reason", "status"):
            if (value := getattr(lost, name)) not in (None, ""):
                detail[name] = value
        if lost.error and not self._end_cause:  # how our own closing looked to the wire is no news
            detail["error"] = lost.error
        delay_s = None if delay_ns is None else delay_ns / SECOND_NS
        return Announce(
            Announcement(kind=EventKind.DOWN, cause=cause, detail=detail, delay_s=delay_s)
        )
