"""Connection: the I/O shell around session, heartbeat and dialect, on the running loop.

It performs what the machines request, tells them what happened, and counts. What becomes of
messages and events is its owner's: the supervised worker publishes them (``worker/runner.py``), the
library hands them to its user (``worker/client.py``). Both run this very code.
"""

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator

from shm.layout import Counter, Word
from worker import heartbeat_facts, socket_options
from worker import session_events as events
from worker import session_facts as facts
from worker.alarm import Alarm
from worker.announcement import Announcement, Cause
from worker.close_codes import NORMAL
from worker.dialect import Dialect, MatchFunction
from worker.dialing import Dialing
from worker.endings import Ending
from worker.exits import Exit
from worker.login import LoginFunction
from worker.output import Cells, Output
from worker.pings import Pings
from worker.self_check import SelfCheck
from worker.session import Session, State
from worker.signs import Signs
from worker.silence import Heard
from worker.spec import ConnectionSpec, SubscribeSpec
from worker.wire import Route, Wire, make_wire, tls_context

LAST_FRAME_NS, LAST_MESSAGE_NS = int(Word.LAST_FRAME_NS), int(Word.LAST_MESSAGE_NS)
MESSAGES, BYTES = int(Counter.MESSAGES), int(Counter.BYTES)
Deliver = Callable[[bytes, bool, int, int], None]  # as ``Output.message``


class Connection:
    """
    One connection's sessions.

    Args:
        spec: What to keep up.
        output: Who hears of it.
        words: Hot words, by ``shm.layout.Word``; stamps of what was heard last are written here.
        counters: By ``shm.layout.Counter``.
        pong_matcher: The matcher, if it is a function.
        login: The login function.
        tls: Context of ``wss``; by default one is made at the first dial.
        numbers: Gives sessions their numbers, if there are other sessions beside these.

    Attributes:
        session: The machine; of the session at hand, or of the next.
        wire: The socket at hand, ``None`` without one.

    """

    def __init__(
        self,
        spec: ConnectionSpec,
        output: Output,
        words: Cells,
        counters: Cells,
        *,
        pong_matcher: MatchFunction | None = None,
        login: LoginFunction | None = None,
        tls: ssl.SSLContext | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._spec, self._output = spec, output
        self._words, self._counters = words, counters
        self._loop = asyncio.get_running_loop()
        self._dialing = Dialing(spec, login, self)
        self._logins: tuple[bytes, ...] = ()
        self._tls = tls
        self.session = Session(spec, numbers)
        self._has_dialed = False
        self.wire: Wire | None = None
        self._alarm = Alarm(self._expire)
        self._deliver: Deliver = output.message
        self._frame_ns = self._data_ns = 0  # when the latest came
        self._messages, self._bytes = counters[MESSAGES], counters[BYTES]
        self._shown: tuple[int, int] | None = None  # of these, while another session counts, too
        dialect = Dialect(spec, pong_matcher)
        self._pings = pings = Pings(spec.heartbeat, dialect, output, counters, self._feed)
        self._signs = Signs(dialect, self.session, pings, output, counters, self._feed)
        self._looks = self._signs.matter()
        self._self_check = SelfCheck(lambda: self.wire, self._feed)

    def start(self) -> None:
        """Dial."""
        self._feed(facts.Started())

    def stop(self, code: int = NORMAL, reason: str = "", cause: Cause = Cause.STOP) -> None:
        """End for good: ``ended`` is called once the socket is gone."""
        self._feed(facts.StopWanted(code, reason, cause))

    def renew(self, cause: Cause) -> None:
        """Close the session, if one is open, and dial again."""
        self._feed(facts.RenewalWanted(cause))

    def resubscribe(self, wanted: SubscribeSpec) -> None:
        """Have another subscription from now on, without a new session where that is possible."""
        self._feed(facts.SubscriptionWanted(wanted))

    def adjust(self, spec: ConnectionSpec) -> None:
        """Have other numbers where ``worker.respec`` says that they are live."""
        self._spec = spec
        self._dialing.adjust(spec)
        self._feed(facts.Adjusted(spec))
        self._expire()  # what was heard so far is judged by them

    async def close(self) -> None:
        """Let go of timers and of what is kept between dials; the session must have ended."""
        self._alarm.cancel()
        self._self_check.stop()
        await self._dialing.close()

    # Beside another --------------------------------------------------------------------------

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context of ``wss``, if there is one already."""
        return self._tls

    @property
    def data_ns(self) -> int:
        """When data came last, CLOCK_MONOTONIC; 0 for never."""
        return self._data_ns

    @property
    def answer_ns(self) -> int:
        """When a welcome or an answer to a subscription came last, likewise."""
        return self._signs.answer_ns

    def go_beside(self, deliver: Deliver) -> None:
        """Hand messages to ``deliver``, and count beside another line of the same counters."""
        self._deliver = deliver
        self._shown = self._messages, self._bytes

    def go_alone(self) -> None:
        """Hand messages to the output, and count alone from now on."""
        self._show_beside()
        self._deliver, self._shown = self._output.message, None
        self._messages, self._bytes = self._counters[MESSAGES], self._counters[BYTES]

    # Machine and shell -----------------------------------------------------------------------

    def _feed(self, event: facts.Event, now_ns: int | None = None) -> None:
        """Hand one fact to the session and perform what it requests, in order."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        session = self.session
        actions = session.handle(now_ns, event)
        # Shown before it is announced: whom an event wakes reads the words at once.
        self._output.state(session, now_ns)
        for action in actions:
            self._perform(action, now_ns)
        self._looks = self._signs.matter()
        self._alarm.set(session.deadline_ns)

    def _perform(self, action: facts.Action, now_ns: int) -> None:
        match action:
            case facts.Dial(number, reserved):
                self._dial(number, reserved=reserved)
            case facts.Say(texts):
                for text in texts:
                    if self.wire is not None:
                        self.wire.send_text(text)
            case facts.CloseWire(code, reason, wait):
                if self.wire is not None:
                    self.wire.close(code, reason, wait=wait)
            case facts.AbortWire():
                self._abort()
            case facts.Announce(announcement):
                self._announce(announcement)
            case facts.EndWorker(code):
                self._output.ended(code)
            case _:
                self._perform_heartbeat(action, now_ns)

    def _perform_heartbeat(self, action: heartbeat_facts.Action, now_ns: int) -> None:
        match action:
            case heartbeat_facts.SendPing(seq):
                assert self.wire is not None
                self._pings.send(self.wire, self.session.number, seq)
            case heartbeat_facts.TakePong(_seq, rtt_ns):
                self._pings.tell_answered(rtt_ns, now_ns)
            case heartbeat_facts.CountLatePong(rtt_ns):
                self._announce(events.late_pong(rtt_ns))
            case heartbeat_facts.CountMissed():
                self._counters[Counter.MISSED_PONGS] += 1
            case heartbeat_facts.CountForeignPong():
                self._counters[Counter.FOREIGN_PONGS] += 1
            case heartbeat_facts.Look(since_ns):
                self._self_check.look(since_ns)

    def _announce(self, announcement: Announcement) -> None:
        self._pings.tell()
        for counter in events.counters_of(announcement):
            self._counters[counter] += 1
        self._output.announce(announcement)

    def _expire(self) -> None:
        heard = Heard(
            frame_ns=self._frame_ns,
            data_ns=self._data_ns,
            heartbeat_ns=self._signs.beat_ns,
        )
        self._feed(facts.Tick(heard))

    # Actions ---------------------------------------------------------------------------------

    def _dial(self, number: int, *, reserved: bool) -> None:
        if self._has_dialed and not reserved:
            self._counters[Counter.RECONNECTS] += 1
        self._has_dialed = True
        # In a turn of its own: a refusal at once must not come in the midst of its request.
        self._loop.call_soon(self._begin, number)

    def _begin(self, number: int) -> None:
        if self.session.number == number and self.session.state is State.DIALING:
            self._dialing.begin(number)
        elif self.session.state is State.DRAINING:  # stopped in between
            self.on_closed(Ending(Cause.CLOSED))

    def _abort(self) -> None:
        if self.wire is not None:
            self.wire.abort()
        elif self._dialing.cancel():
            self._loop.call_soon(self.on_closed, Ending(Cause.CLOSED))

    def on_routed(self, route: Route, logins: tuple[bytes, ...]) -> None:
        """The way is clear: open the socket."""
        self._logins = logins
        try:
            self.wire = make_wire(self._spec, route, self)
            is_secure = route.url.lower().startswith("wss:")  # which a login decides
            if is_secure and self._tls is None:
                self._tls = tls_context(route.url, self._spec.tls_ca)
        except OSError as error:
            self.on_refused(Cause.TLS, str(error), None)
        except ValueError as error:  # a login's URL
            self.on_refused(Cause.LOGIN_FAILED, str(error), None)
        else:
            self.wire.open(self._tls if is_secure else None)

    def on_postponed(self, delay_ns: int) -> None:
        """The host's connect budget is spent."""
        self._counters[Counter.DIALS_POSTPONED] += 1
        self._feed(facts.Postponed(delay_ns))
        if self._dialing.is_crowded:
            self._output.crowded()

    def on_refused(self, cause: Cause, error: str, permanent: Exit | None) -> None:
        """There is nothing to dial with."""
        self.on_closed(Ending(cause, error=error), permanent)

    def ping_once(self, body: bytes | None) -> asyncio.Future[int] | None:
        """Send a PING frame outside the timetable (``Pings.send_once``), if there is a socket."""
        return None if self.wire is None else self._pings.send_once(self.wire, body)

    # What the wire tells ---------------------------------------------------------------------

    def on_socket(self, connection: socket.socket) -> None:
        """A socket is about to be connected: its options are set now."""
        if tuned := socket_options.apply(connection, self._spec.socket):
            self._output.tuned(tuned)

    def on_connected(self, peer: str) -> None:
        """TCP and TLS are done."""
        self._feed(facts.Connected(peer))

    def on_opened(self) -> None:
        """The handshake is done."""
        self._dialing.opened()
        self._self_check.start()
        self._feed(facts.Opened(self._logins))

    def on_message(self, is_text: bool, payload: bytes, now_ns: int, wall_ns: int) -> None:
        """A message came: control if the dialect says so, else data. The hot path."""
        self._frame_ns = now_ns
        if self._looks and self.wire is not None and self._signs.take(self.wire, payload, now_ns):
            if self._spec.publish.control:
                self._deliver(payload, is_text, now_ns, wall_ns)
            return
        self._data_ns = now_ns
        self._messages += 1
        self._bytes += len(payload)
        self._deliver(payload, is_text, now_ns, wall_ns)

    def on_read(self) -> None:
        """All frames of one read were told: show what they changed in shared memory."""
        words, counters = self._words, self._counters
        if self._shown is None:
            words[LAST_FRAME_NS] = self._frame_ns
            words[LAST_MESSAGE_NS] = self._data_ns
            counters[MESSAGES] = self._messages
            counters[BYTES] = self._bytes
        else:
            self._show_beside()
        self._output.read()
        if self._spec.socket.quickack and self.wire is not None:
            self.wire.set_option(*socket_options.QUICK)  # the kernel forgets it (tcp(7))

    def _show_beside(self) -> None:
        words, counters = self._words, self._counters
        words[LAST_FRAME_NS] = max(words[LAST_FRAME_NS], self._frame_ns)
        words[LAST_MESSAGE_NS] = max(words[LAST_MESSAGE_NS], self._data_ns)
        messages, size = self._shown or (self._messages, self._bytes)
        counters[MESSAGES] += self._messages - messages
        counters[BYTES] += self._bytes - size
        self._shown = self._messages, self._bytes

    def on_pong(self, body: bytes, now_ns: int) -> None:
        """A PONG frame came."""
        self._frame_ns = now_ns
        # Without what we took to find it among what was read.
        self._pings.hear_frame(body, now_ns if self.wire is None else self.wire.read_ns)

    def on_ping(self, body: bytes, now_ns: int) -> None:
        """A PING frame came and was answered."""
        self._frame_ns = now_ns
        self._counters[Counter.SERVER_PINGS] += 1
        if self._spec.outbound is not None:
            self._feed(facts.Said(), now_ns)

    def on_closed(self, ending: Ending, permanent: Exit | None = None) -> None:
        """The socket is gone, or never came to be."""
        self.wire = None
        self._self_check.stop()
        self._pings.lost()
        self._dialing.ended()
        self._feed(
            facts.Lost(
                ending.cause,
                random.random(),
                ending.code,
                ending.reason,
                ending.status,
                ending.error,
                ending.retry_after_ns,
                permanent,
            )
        )
