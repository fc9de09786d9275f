"""Session: the life of a connection to its exchange, one WebSocket life after another.

Pure. It owns what belongs to the session that is open (dialogue, heartbeat, silence), and decides
when to dial, subscribe, close, wait and give up. Its shell is ``worker/connection.py``.
"""

import itertools
from collections.abc import Iterator

from worker import heartbeat_facts
from worker import session_events as tell
from worker import session_facts as facts
from worker.announcement import Cause
from worker.backoff import Backoff
from worker.close_codes import GOING_AWAY, NORMAL
from worker.dialogue import Dialogue
from worker.exits import Exit
from worker.heartbeat import Heartbeat
from worker.outbox import Outbox, places_for_pings
from worker.session_facts import Action, Announce, CloseWire, Event
from worker.session_state import OPEN, SERVING, TRANSITIONS, WITH_SOCKET, State
from worker.silence import Heard, Silence
from worker.spec import ConnectionSpec, SubscribeSpec

__all__ = ["SERVING", "TRANSITIONS", "Session", "State"]

NORMAL_CLOSE = CloseWire(NORMAL, "", wait=True)


class Session:
    """
    A connection's sessions, one at a time.

    At most one socket exists: the next dial leaves only after ``Lost`` of the last.

    Args:
        spec: The connection.
        numbers: Gives each session its number; sessions beside these take theirs from it, too.

    Attributes:
        number: Number of the session, from 1; facts of older ones must not be handed in.
        heartbeat: Of the session that is open, ``None`` without one.
        up_ns: When the session got up, CLOCK_MONOTONIC; 0 while it is not.
        subscription: What shall be subscribed; changes by ``SubscriptionWanted``.

    """

    def __init__(self, spec: ConnectionSpec, numbers: Iterator[int] | None = None) -> None:
        self._spec = spec
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._backoff = Backoff(spec.reconnect)
        self.subscription: SubscribeSpec = spec.subscribe
        self.state = State.IDLE
        self.number = 0
        self.heartbeat: Heartbeat | None = None
        self.up_ns = 0
        self._dialogue: Dialogue | None = None  # while the session is open
        self._silence: Silence | None = None
        self._outbox = _outbox(spec)  # the exchange counts over sessions
        self._deadline_ns: int | None = None
        self._dialed_ns = 0
        self._peer = ""
        self._end_cause = ""  # why we closed, "" if the peer or the network did
        self._end_error = ""
        self._postponed = False  # WAITING for a place in the host's budget, which is ours
        self._stop: facts.StopWanted | None = None

    @property
    def attempt(self) -> int:
        """Number of the dial since the last session that lasted, from 1."""
        return self._backoff.attempt + 1

    @property
    def deadline_ns(self) -> int | None:
        """When ``Tick`` is due, CLOCK_MONOTONIC; ``None`` if there is nothing to wait for."""
        parts = (self._dialogue, self.heartbeat, self._silence) if self.state in OPEN else ()
        due = [self._deadline_ns, *(part.deadline_ns for part in parts if part is not None)]
        return min((moment for moment in due if moment is not None), default=None)

    @property
    def awaiting_pong(self) -> bool:
        """Whether an application pong would mean anything."""
        return self.heartbeat is not None and self.heartbeat.awaiting

    @property
    def awaiting_ready(self) -> bool:
        """Whether the exchange has still to open with its welcome."""
        return self._dialogue is not None and self._dialogue.awaiting_ready

    @property
    def awaiting_acks(self) -> bool:
        """Whether an answer to a subscription would mean anything."""
        return self._dialogue is not None and self._dialogue.awaiting_acks

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
            case facts.Started():
                return self._dial(now_ns)
            case facts.Postponed(delay_ns):
                return self._postpone(now_ns, delay_ns)
            case facts.Connected(peer):
                if self.state is State.DIALING:  # else a stop or a timeout was quicker
                    self.state, self._peer = State.HANDSHAKING, peer
                return ()
            case facts.Opened(logins):
                return self._opened(now_ns, logins)
            case facts.ReadySeen():
                return self._subscribe(now_ns) if self.awaiting_ready else ()
            case facts.AckSeen(error):
                return self._acked(now_ns, error)
            case facts.Said():
                self._outbox.note(now_ns)
                return ()
            case facts.DataSeen():
                return self._fresh(now_ns)
            case facts.SubscriptionWanted(wanted):
                return self._resubscribe(now_ns, wanted)
            case facts.Lost():
                return self._lost(now_ns, event)
            case facts.StopWanted():
                return self._wind_up(event)
            case facts.Adjusted(spec):
                self._adjust(spec)
                return ()
            case facts.RenewalWanted(cause):
                return self._close(cause, NORMAL_CLOSE) if self.state in OPEN else ()
            case facts.Tick(heard):
                return self._tick(now_ns, heard)
            case heartbeat_facts.Looked():
                if self._silence is not None:
                    self._silence.looked(event)
                return self._beat(now_ns, event)
            case _:
                return self._beat(now_ns, event)

    # Dialling --------------------------------------------------------------------------------

    def _dial(self, now_ns: int, *, reserved: bool = False) -> tuple[Action, ...]:
        self.state = State.DIALING
        if not reserved:
            self.number = next(self._numbers)
        self._dialed_ns = now_ns
        self._end_cause, self._peer = "", ""
        self._deadline_ns = now_ns + self._spec.reconnect.connect_timeout_ns
        return (facts.Dial(self.number, reserved),)

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
        self._dialogue = Dialogue(self.subscription, self._outbox, logins)
        return () if self._dialogue.awaiting_ready else self._subscribe(now_ns)

    def _subscribe(self, now_ns: int) -> tuple[Action, ...]:
        assert self._dialogue is not None
        self._deadline_ns = None
        if self._spec.heartbeat is not None:
            self.heartbeat = Heartbeat(self._spec.heartbeat, now_ns)
        self._dialogue.begin()
        return self._speak(now_ns)

    def _speak(self, now_ns: int) -> tuple[Action, ...]:
        """Say what may be said; once all is said and answered, be up."""
        if self._dialogue is None:
            return ()
        texts = self._dialogue.speak(now_ns)
        said: tuple[Action, ...] = (facts.Say(texts),) if texts else ()
        is_up = self._dialogue.is_over and self.state is State.SUBSCRIBING
        return said + self._up(now_ns) if is_up else said

    def _acked(self, now_ns: int, error: str) -> tuple[Action, ...]:
        if self._dialogue is None or not self._dialogue.take_answer():
            return ()
        if self.state is not State.SUBSCRIBING:
            return (Announce(tell.change_refused(error)),) if error else ()
        if error:
            return self._close(Cause.SUBSCRIBE_REFUSED, NORMAL_CLOSE, error)
        return self._up(now_ns) if self._dialogue.is_over else ()

    def _up(self, now_ns: int) -> tuple[Action, ...]:
        self.state, self.up_ns = State.UP, now_ns
        self._silence = Silence(self._spec.liveness, self._spec.server_heartbeat, now_ns)
        up = tell.up(self.number, self.attempt, self._peer, now_ns - self._dialed_ns)
        return (Announce(up),)

    def _resubscribe(self, now_ns: int, wanted: SubscribeSpec) -> tuple[Action, ...]:
        former, self.subscription = self.subscription, wanted
        if former == wanted or self._dialogue is None:
            return ()
        found = self._dialogue.change(wanted) if self.state in SERVING else None
        if found is None:
            return self._close(Cause.SUBSCRIPTION_CHANGED, NORMAL_CLOSE)
        changed = tell.subscription_changed(found.added, found.removed)
        return (Announce(changed), *self._speak(now_ns))

    def _adjust(self, spec: ConnectionSpec) -> None:
        self._spec = spec
        self._backoff.spec = spec.reconnect
        if self._silence is not None:
            self._silence.liveness = spec.liveness

    # Time ------------------------------------------------------------------------------------

    def _tick(self, now_ns: int, heard: Heard) -> tuple[Action, ...]:
        if self._deadline_ns is not None and now_ns >= self._deadline_ns:
            return self._expired(now_ns)
        if self._dialogue is None:
            return ()
        if self._dialogue.is_overdue(now_ns):
            return self._unanswered(self._dialogue)
        actions = list(self._speak(now_ns))
        actions += self._beat(now_ns, heartbeat_facts.Tick())
        actions += self._listen(now_ns, heard)
        return tuple(actions)

    def _expired(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is not State.WAITING:
            stuck = f"{self._peer} accepted, and no session opened" if self._peer else ""
            return self._close(Cause.CONNECT_TIMEOUT, facts.AbortWire(), stuck)
        reserved, self._postponed = self._postponed, False
        return self._dial(now_ns, reserved=reserved)

    def _unanswered(self, dialogue: Dialogue) -> tuple[Action, ...]:
        if self.state is State.SUBSCRIBING:
            return self._close(Cause.SUBSCRIBE_TIMEOUT, NORMAL_CLOSE)
        dialogue.give_up()  # a live change: what is subscribed stays so
        return (Announce(tell.change_unanswered()),)

    def _listen(self, now_ns: int, heard: Heard) -> tuple[Action, ...]:
        if self._silence is None or self.state not in SERVING:
            return ()
        verdict = self._silence.judge(now_ns, heard)
        if verdict.look:
            return (heartbeat_facts.Look(now_ns - verdict.age_ns),)
        if verdict.dead is not None:
            return self._dead(verdict.dead, verdict.age_ns, verdict.looked)
        if verdict.stale and self.state is State.UP:
            self.state = State.STALE
            return (Announce(tell.stale(verdict.age_ns)),)
        if not verdict.stale and self.state is State.STALE:
            return self._fresh(now_ns)
        return ()

    def _fresh(self, now_ns: int) -> tuple[Action, ...]:
        if self.state is not State.STALE or self._silence is None:
            return ()
        self._silence.data_seen(now_ns)
        self.state = State.UP
        return (Announce(tell.fresh()),)

    def _beat(self, now_ns: int, event: heartbeat_facts.Event) -> tuple[Action, ...]:
        if self.heartbeat is None or self.state not in (*OPEN, State.DRAINING):
            unsolicited = isinstance(event, heartbeat_facts.PongFrame)
            return (heartbeat_facts.CountForeignPong(),) if unsolicited else ()
        actions: list[Action] = []
        for action in self.heartbeat.handle(now_ns, event):
            actions.append(action)
            if isinstance(action, heartbeat_facts.DeclareDead) and self.state in OPEN:
                actions += self._dead(action.cause, action.waited_ns, action.looked)
        return tuple(actions)

    def _dead(
        self, cause: Cause, waited_ns: int, looked: heartbeat_facts.Looked | None
    ) -> tuple[Action, ...]:
        timeout = tell.timeout(self.number, cause, waited_ns, looked)
        return (Announce(timeout), *self._close(cause, _closing_of_the_dead(cause)))

    # Ending ----------------------------------------------------------------------------------

    def _wind_up(self, stop: facts.StopWanted) -> tuple[Action, ...]:
        self._stop = self._stop or stop
        match self.state:
            case State.IDLE | State.WAITING:
                self.state, self._deadline_ns = State.CLOSED, None
                return (facts.EndWorker(Exit.STOPPED),)
            case State.DIALING | State.HANDSHAKING:
                return self._close(stop.cause, facts.AbortWire())
            case State.SUBSCRIBING | State.UP | State.STALE:
                return self._close(stop.cause, CloseWire(stop.code, stop.reason, wait=True))
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
        self._dialogue = self._silence = None
        self._outbox.clear()

    def _lost(self, now_ns: int, lost: facts.Lost) -> tuple[Action, ...]:
        if self.state not in WITH_SOCKET:
            return ()
        up_for_ns = now_ns - self.up_ns if self.up_ns else 0
        self._forget()
        self.heartbeat, self.up_ns, self._deadline_ns = None, 0, None
        end = self._end_of(lost)
        delay_ns = None
        if end is None:
            delay_ns = self._backoff.next_delay_ns(
                up_for_ns,
                lost.draw,
                hammering=self._end_cause == Cause.SUBSCRIBE_REFUSED
                or self._backoff.is_refusal(lost.status, lost.code),
                at_least_ns=lost.retry_after_ns,
            )
            end = Exit.UNAVAILABLE if self._backoff.exhausted else None
        if end is None:
            assert delay_ns is not None
            self.state, self._deadline_ns = State.WAITING, now_ns + delay_ns
            return (self._down(lost, up_for_ns, delay_ns),)
        self.state = State.CLOSED
        return (self._down(lost, up_for_ns, None), facts.EndWorker(end))

    def _end_of(self, lost: facts.Lost) -> Exit | None:
        if self._stop is not None:
            return Exit.STOPPED
        if lost.permanent is not None:
            return lost.permanent
        return None if self._spec.reconnect.enabled else Exit.UNAVAILABLE

    def _down(self, lost: facts.Lost, up_for_ns: int, delay_ns: int | None) -> Announce:
        return Announce(
            tell.down(
                lost,
                number=self.number,
                attempt=self._backoff.attempt,
                up_for_ns=up_for_ns,
                delay_ns=delay_ns,
                our_cause=self._end_cause,
                our_error=self._end_error,
            )
        )


def _outbox(spec: ConnectionSpec) -> Outbox:
    if spec.outbound is None:
        return Outbox(None)
    interval_ns = 0 if spec.heartbeat is None else spec.heartbeat.interval_ns
    return Outbox(spec.outbound, places_for_pings(spec.outbound.per_ns, interval_ns))


def _closing_of_the_dead(cause: str) -> CloseWire:
    return CloseWire(GOING_AWAY, cause.replace("_", " "), wait=False)
