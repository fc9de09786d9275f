"""Pings of a simulated exchange to its client, and the end of a session that does not answer them.

What a ping and its answer look like is in ``exchange_dialects``.
"""

import time
from collections.abc import Callable

from websockets.frames import CloseCode
from websockets.protocol import State
from websockets.server import ServerProtocol

from supervisor.exchange_dialects import Exchange, Message


class Pings:
    """
    Application pings and PING frames of one session, at the dialect's intervals.

    Args:
        exchange: Its dialect.
        engine: Sends PING frames, and closes.
        send: Sends a message.
        later: Called with seconds, a function and its arguments; does it then.

    """

    def __init__(
        self,
        exchange: Exchange,
        engine: ServerProtocol,
        send: Callable[[Message], None],
        later: Callable[..., None],
    ) -> None:
        self._exchange, self._engine = exchange, engine
        self._send, self._later = send, later
        self._unanswered_ms: list[int] = []
        self._unanswered_frames = 0
        if exchange.server_ping_s:
            later(exchange.server_ping_s, self._ping_message)
        if exchange.ping_frames_s:
            later(exchange.ping_frames_s, self._ping_frame)

    def note_pong_frame(self) -> None:
        """Take note of a PONG of the client."""
        self._unanswered_frames = 0

    def takes(self, text: str) -> bool:
        """Return whether a text of the client answers a ping of ours; if so it counts."""
        if not self._unanswered_ms or not self._exchange.is_pong(text, self._unanswered_ms[-1]):
            return False
        self._unanswered_ms.clear()
        return True

    def _ping_message(self) -> None:
        if len(self._unanswered_ms) >= self._exchange.misses_allowed:
            self._engine.send_close(CloseCode.UNSUPPORTED_DATA, "ping check expired")
            return
        now_ms = time.time_ns() // 1_000_000
        self._unanswered_ms.append(now_ms)
        self._send(self._exchange.server_ping(now_ms))
        self._later(self._exchange.server_ping_s, self._ping_message)

    def _ping_frame(self) -> None:
        if self._unanswered_frames >= self._exchange.misses_allowed:
            self._engine.send_close(CloseCode.POLICY_VIOLATION, "Pong timeout")
            return
        self._unanswered_frames += 1
        if self._engine.state is State.OPEN:
            self._engine.send_ping(str(time.time_ns() // 1_000_000).encode())
        self._later(self._exchange.ping_frames_s, self._ping_frame)
