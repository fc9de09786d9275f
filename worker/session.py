"""Session: the life of a connection to its exchange, one WebSocket life after another.

Pure. It owns what belongs to the session that is open (heartbeat, silence, outbox), and decides
when to dial, subscribe, close, wait and give up. It opens no socket and knows no library: the shell
is ``worker/connection.py``.
"""

import enum

from worker import heartbeat
from worker.announcement import Announcement, Cause, EventKind
from worker.backoff import Backoff
from worker.exits import Exit
from worker.heartbeat import Heartbeat
from worker.outbox import Outbox
from worker.session_facts import (
    AbortWire,
    AckSeen,
    Action,
    Announce,
    CloseWire,
    Connected,
    DataSeen,
    Dial,
    EndWorker,
    Event,
    Lost,
    Opened,
    Postponed,
    ReadySeen,
    Said,
    Say,
    Started,
    StopWanted,
    SubscriptionWanted,
    Tick,
)
from worker.silence import Heard, Silence
from worker.spec import ConnectionSpec, SubscribeSpec
from worker.subscription import change, opening_messages

SECOND_NS = 1_000_000_000
NORMAL_CLOSURE, GOING_AWAY, POLICY_VIOLATION = 1000, 1001, 1008  # RFC 6455 section 7.4.1
# Besides the statuses and the code that mean it by their definition, what exchanges use for it.
WILL_NOT_PASS_SOON = frozenset({401, 403, 404, 410, POLICY_VIOLATION, 4401, 4403})


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
WITH_SOCKET = OPEN | {State.DIALING, State.HANDSHAKING, State.DRAINING}


class Session:
    """
    A connection's sessions, one at a time.

    At most one socket exists: the next dial leaves only after ``Lost`` of the last.

    Args:
        spec: The connection.

    Attributes:
        number: Number of the session, from 1; facts of older ones must not be handed in.
        heartbeat: Of the session that is open, ``None`` without one.
        up_ns: When the session got up, CLOCK_MONOTONIC; 0 while it is not.
        subscription: What shall be subscribed; changes by ``SubscriptionWanted``.

    """

    def __init__(self, spec: ConnectionSpec) -> None:
        self._spec = spec
        self._backoff = Backoff(spec.reconnect)
        self.subscription: SubscribeSpec = spec.subscribe
        self.state = State.IDLE
        self.number = 0
        self.heartbeat: Heartbeat | None = None
        self.up_ns = 0
        self._silence: Silence | None = None
        self._looking = False  # whether what broke the silence waits in the socket
        self._looked: heartbeat.Looked | None = None
        self._outbox = Outbox(spec.outbound)
        self._said = 0  # messages of templates, for their ${seq}
        self._unanswered = 0  # subscriptions without their ack
        self.awaiting_ready = False
        self._deadline_ns: int | None = None
        self._dialed_ns = 0
        self._peer = ""
        self._end_cause = ""  # why we closed, "" if the peer or the network did
        self._end_error = ""
        self._postponed = False  # WAITING for a place in the host's budget, which is ours
        self._stop: StopWanted | None = None

    @property
    def attempt(self) -> int:
        """Number of the dial since the last session that lasted, from 1."""
        return self._backoff.attempt + 1

    @property
    def deadline_ns(self) -> int | None:
        """When ``Tick`` is due, CLOCK_MONOTONIC; ``None`` if there is nothing to wait for."""
        due = [self._deadline_ns]
        if self.state in OPEN:
            if not self.awaiting_ready:
                due.append(self._outbox.deadline_ns)
            if self.heartbeat is not None:
                due.append(self.heartbeat.deadline_ns)
            if self._silence is not None and not self._looking:
                due.append(self._silence.deadline_ns if self._looked is None else 0)
        return min((moment for moment in due if moment is not None), default=None)

    @property
    def awaiting_pong(self) -> bool:
        """Whether an application pong would mean anything."""
        return self.heartbeat is not None and self.heartbeat.awaiting

    @property
    def awaiting_acks(self) -> bool:
        """Whether an answer to a subscription would mean anything."""
        return self._unanswered > 0

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
            case Postponed(delay_ns):
                return self._postpone(now_ns, delay_ns)
            case Connected(peer):
                if self.state is State.DIALING:  # else a stop or a timeout was quicker
                    self.state, self._peer = State.HANDSHAKING, peer
                return ()
            case Opened(logins):
                return self._opened(now_ns, logins)
            case ReadySeen():
                return self._ready(now_ns)
            case AckSeen(error):
                return self._acked(now_ns, error)
            case Said():
                self._outbox.note(now_ns)
                return ()
            case DataSeen():
                return self._fresh(now_ns)
            case SubscriptionWanted(wanted):
                return self._resubscribe(now_ns, wanted)
            case Lost():
                return self._lost(now_ns, event)
            case StopWanted():
                return self._wind_up(event)
            case Tick(heard):
                return self._tick(now_ns, heard)
            case heartbeat.Looked():
                if self._looking:  # judged by the tick that is due at once
                    self._looking, self._looked = False, event
                return self._beat(now_ns, event)
            case _:
                return self._beat(now_ns, event)

    # Dialling --------------------------------------------------------------------------------

    def _dial(self, now_ns: int, *, reserved: bool = False) -> tuple[Action, ...]:
        self.state = State.DIALING
        if not reserved:
            self.number += 1
        self._dialed_ns = now_ns
        self._end_cause, self._peer = "", ""
        self._deadline_ns = now_ns + self._spec.reconnect.connect_timeout_ns
        return (Dial(self.number, reserved),)

    def _postpone(self, now_ns: int, delay_ns: int) -> tuple[Action, ...]:
        if self.state is not State.DIALING:
            return ()
        self.state, self._postponed = State.WAITING, True
        self._deadline_ns = now_ns + delay_ns
        return ()

    # Subscribing -----------------------------------------------------------------------------

    def _opened(self, now_ns: int, logins: tuple[bytes, ...]) -> tuple[Action, ...]:
        if self.state is not State.HANDSHAKING:
            return ()
        self.state = State.SUBSCRIBING
        self._outbox.add(*logins)
        self.awaiting_ready = self.subscription.ready is not None
        return () if self.awaiting_ready else self._subscribe(now_ns)

    def _ready(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is not State.SUBSCRIBING or not self.awaiting_ready:
            return ()
        self.awaiting_ready = False
        return self._subscribe(now_ns)

    def _subscribe(self, now_ns: int) -> tuple[Action, ...]:
        self._deadline_ns = None
        if self._spec.heartbeat is not None:
            # From here and not from UP: a long list, paced, may take longer than an exchange waits.
            self.heartbeat = Heartbeat(self._spec.heartbeat, now_ns)
        messages = opening_messages(self.subscription)
        self._said = len(messages)
        self._unanswered = len(messages) if self.subscription.ack is not None else 0
        self._outbox.add(*messages)
        return self._speak(now_ns)

    def _speak(self, now_ns: int) -> tuple[Action, ...]:
        """Say what may be said; once all is said, wait for the answers or be up."""
        texts = self._outbox.take(now_ns)
        actions: tuple[Action, ...] = (Say(texts),) if texts else ()
        if self._outbox:
            return actions
        ack = self.subscription.ack
        if self._unanswered and ack is not None and self._deadline_ns is None:
            self._deadline_ns = now_ns + ack.timeout_ns
        elif not self._unanswered and self.state is State.SUBSCRIBING:
            return actions + self._up(now_ns)
        return actions

    def _acked(self, now_ns: int, error: str) -> tuple[Action, ...]:
        if self.state not in OPEN or not self._unanswered:
            return ()
        self._unanswered -= 1
        if not self._unanswered and not self._outbox:
            self._deadline_ns = None
        if self.state is not State.SUBSCRIBING:
            return (_say(EventKind.CONFIG, Cause.SUBSCRIBE_REFUSED, error=error),) if error else ()
        if error:
            close = CloseWire(NORMAL_CLOSURE, "", wait=True)
            return self._close(Cause.SUBSCRIBE_REFUSED, close, error)
        return self._up(now_ns) if not self._unanswered and not self._outbox else ()

    def _up(self, now_ns: int) -> tuple[Action, ...]:
        self.state, self.up_ns, self._deadline_ns = State.UP, now_ns, None
        self._silence = Silence(self._spec.liveness, self._spec.server_heartbeat, now_ns)
        detail = {
            "session": self.number,
            "attempt": self.attempt,
            "peer": self._peer,
            "connect_s": round((now_ns - self._dialed_ns) / SECOND_NS, 6),
        }
        return (_say(EventKind.UP, **detail),)

    def _resubscribe(self, now_ns: int, wanted: SubscribeSpec) -> tuple[Action, ...]:
        former, self.subscription = self.subscription, wanted
        if former == wanted or self.state not in OPEN:
            return ()
        found = change(former, wanted, self._said + 1) if self.state in SERVING else None
        if found is None:
            close = CloseWire(NORMAL_CLOSURE, "", wait=True)
            return self._close(Cause.SUBSCRIPTION_CHANGED, close)
        self._said += len(found.messages)
        if wanted.ack is not None:
            self._unanswered += len(found.messages)
        self._outbox.add(*found.messages)
        said = _say(
            EventKind.CONFIG,
            Cause.SUBSCRIPTION_CHANGED,
            subscribed=found.added,
            unsubscribed=found.removed,
        )
        return (said, *self._speak(now_ns))

    # Time ------------------------------------------------------------------------------------

    def _tick(self, now_ns: int, heard: Heard) -> tuple[Action, ...]:
        if self._deadline_ns is not None and now_ns >= self._deadline_ns:
            expired = self._expired(now_ns)
            if expired:
                return expired
        if self.state not in OPEN:
            return ()
        actions: list[Action] = []
        if not self.awaiting_ready:
            actions += self._speak(now_ns)
        actions += self._beat(now_ns, heartbeat.Tick())
        actions += self._listen(now_ns, heard)
        return tuple(actions)

    def _expired(self, now_ns: int) -> tuple[Action, ...]:
        match self.state:
            case State.WAITING:
                reserved, self._postponed = self._postponed, False
                return self._dial(now_ns, reserved=reserved)
            case State.DIALING | State.HANDSHAKING:
                return self._close(Cause.CONNECT_TIMEOUT, AbortWire())
            case State.SUBSCRIBING if self.awaiting_ready:
                return self._close(Cause.CONNECT_TIMEOUT, AbortWire())
            case State.SUBSCRIBING:
                close = CloseWire(NORMAL_CLOSURE, "", wait=True)
                return self._close(Cause.SUBSCRIBE_TIMEOUT, close)
            case State.UP | State.STALE:  # a live change that was not answered
                self._deadline_ns, self._unanswered = None, 0
                return (_say(EventKind.CONFIG, Cause.SUBSCRIBE_TIMEOUT),)
            case _:
                return ()

    def _listen(self, now_ns: int, heard: Heard) -> tuple[Action, ...]:
        if self._silence is None or self._looking or self.state not in SERVING:
            return ()
        verdict = self._silence.judge(now_ns, heard)
        looked, self._looked = self._looked, None
        is_news = verdict.dead is not None or (verdict.stale and self.state is State.UP)
        if is_news and looked is None:
            self._looking = True
            return (heartbeat.Look(),)
        age_s = round(verdict.age_ns / SECOND_NS, 6)
        if verdict.dead is not None:
            unread = looked.unread if looked is not None else 0
            return self._dead(Cause.BUSY if unread else verdict.dead, age_s, unread)
        if verdict.stale and self.state is State.UP:
            self.state = State.STALE
            return (_say(EventKind.STALE, Cause.DATA_SILENCE, age_s=age_s),)
        if not verdict.stale and self.state is State.STALE:
            return self._fresh(now_ns)
        return ()

    def _fresh(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is not State.STALE or self._silence is None:
            return ()
        self._silence.judge(now_ns, Heard(frame_ns=now_ns, data_ns=now_ns))
        self.state = State.UP
        return (_say(EventKind.FRESH),)

    def _beat(self, now_ns: int, event: heartbeat.Event) -> tuple[Action, ...]:
        if self.heartbeat is None or self.state not in (*OPEN, State.DRAINING):
            unsolicited = isinstance(event, heartbeat.PongFrame)
            return (heartbeat.CountForeignPong(),) if unsolicited else ()
        actions: list[Action] = []
        for action in self.heartbeat.handle(now_ns, event):
            actions.append(action)
            if isinstance(action, heartbeat.DeclareDead):
                actions += self._declare_dead(action)
        return tuple(actions)

    def _declare_dead(self, dead: heartbeat.DeclareDead) -> tuple[Action, ...]:
        if self.state not in OPEN:
            return ()
        return self._dead(dead.cause, round(dead.waited_ns / SECOND_NS, 6), dead.unread)

    def _dead(self, cause: Cause, waited_s: float, unread: int) -> tuple[Action, ...]:
        detail: dict[str, object] = {"session": self.number, "waited_s": waited_s}
        if unread:
            detail["unread_bytes"] = unread
        timeout = _say(EventKind.TIMEOUT, cause, **detail)
        return (timeout, *self._close(cause, _closing_of_the_dead(cause)))

    # Ending ----------------------------------------------------------------------------------

    def _wind_up(self, stop: StopWanted) -> tuple[Action, ...]:
        self._stop = self._stop or stop
        match self.state:
            case State.IDLE | State.WAITING:
                self.state, self._deadline_ns = State.CLOSED, None
                return (EndWorker(Exit.STOPPED),)
            case State.DIALING | State.HANDSHAKING:
                return self._close(Cause.STOP, AbortWire())
            case State.SUBSCRIBING | State.UP | State.STALE:
                return self._close(Cause.STOP, CloseWire(stop.code, stop.reason, wait=True))
            case _:
                return ()

    def _close(self, cause: str, how: Action, error: str = "") -> tuple[Action, ...]:
        # No deadline: the wire itself ends within close_timeout, whoever began to close.
        self.state = State.DRAINING
        self._end_cause, self._end_error = cause, error
        self._deadline_ns = None
        self._forget()
        return (how,)

    def _forget(self) -> None:
        """Drop what only an open session needs."""
        self._silence, self._looking, self._looked = None, False, None
        self._outbox.clear()
        self._unanswered = 0
        self.awaiting_ready = False

    def _lost(self, now_ns: int, lost: Lost) -> tuple[Action, ...]:
        if self.state not in WITH_SOCKET:
            return ()
        up_for_ns = now_ns - self.up_ns if self.up_ns else 0
        self._forget()
        self.heartbeat, self.up_ns, self._deadline_ns = None, 0, None
        end = self._end_of(lost)
        delay_ns = None
        if end is None:
            hopeless = {*WILL_NOT_PASS_SOON, *self._spec.reconnect.refusals}
            refused = lost.status in hopeless or lost.code in hopeless
            delay_ns = self._backoff.next_delay_ns(
                up_for_ns,
                lost.draw,
                hammering=refused or self._end_cause == Cause.SUBSCRIBE_REFUSED,
                at_least_ns=lost.retry_after_ns,
            )
            end = Exit.UNAVAILABLE if self._backoff.exhausted else None
        if end is not None:
            self.state = State.CLOSED
            return (self._down(lost, up_for_ns, None), EndWorker(end))
        assert delay_ns is not None
        self.state = State.WAITING
        self._deadline_ns = now_ns + delay_ns
        return (self._down(lost, up_for_ns, delay_ns),)

    def _end_of(self, lost: Lost) -> Exit | None:
        if self._stop is not None:
            return Exit.STOPPED
        if lost.permanent is not None:
            return lost.permanent
        return None if self._spec.reconnect.enabled else Exit.UNAVAILABLE

    def _down(self, lost: Lost, up_for_ns: int, delay_ns: int | None) -> Announce:
        detail: dict[str, object] = {"session": self.number, "attempt": self._backoff.attempt}
        if up_for_ns:
            detail["up_s"] = round(up_for_ns / SECOND_NS, 3)
        for name in ("code", "reason", "status"):
            if (value := getattr(lost, name)) not in (None, ""):
                detail[name] = value
        # How our own closing looked to the wire is no news.
        if error := self._end_error if self._end_cause else lost.error:
            detail["error"] = error
        delay_s = None if delay_ns is None else delay_ns / SECOND_NS
        cause = self._end_cause or lost.cause
        return _say(EventKind.DOWN, cause, delay_s, **detail)


def _closing_of_the_dead(cause: str) -> CloseWire:
    return CloseWire(GOING_AWAY, cause.replace("_", " "), wait=False)


def _say(
    kind: EventKind, cause: str = "", delay_s: float | None = None, /, **detail: object
) -> Announce:
    return Announce(Announcement(kind=kind, cause=cause, detail=detail, delay_s=delay_s))
