"""Frames of the engine ``picows`` to messages: the hot path, and what picows leaves to its user.

That is reserved bits, reassembly, UTF-8 and close codes.
"""

from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import Protocol

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from worker.close_codes import INVALID_DATA, NO_STATUS, PROTOCOL_ERROR, SENDABLE, TOO_BIG
from worker.socket_wire import WireEvents
from worker.utf8 import is_utf8

OnFrame = Callable[[WSTransport, WSFrame], None]

TEXT, BINARY, CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
PING, PONG, CLOSE = WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE


class SessionEvents(Protocol):
    """What is not the owner's but the wire's to hear."""

    def opened(self, ws: WSTransport) -> None:
        """The handshake is done."""

    def ping(self, body: bytes, now_ns: int) -> None:
        """A PING frame came."""

    def closed(self, code: int, reason: str) -> None:
        """The peer closes; ``code`` 1005 if it gave none."""

    def broken(self, code: int, why: str) -> None:
        """The peer has broken the protocol, which is answered with ``code``."""

    def failed(self, error: Exception) -> None:
        """Somebody who was told raised."""


class Listener(WSListener):
    """
    Where picows calls.

    The callback of frames is an attribute of the instance: a function is called sooner than a
    method, and what must not be asked for each frame (is a message half there, is all over) is
    asked by putting another function in its place.

    Args:
        session: The wire.
        events: The wire's owner.
        max_message: Longest message in bytes.

    """

    def __init__(self, session: SessionEvents, events: WireEvents, max_message: int) -> None:
        self._session, self._events, self._max_message = session, events, max_message
        self._fragments: bytearray | None = None
        self._is_text = False
        self._between_messages = self._make_hot_path()
        self._put(self._between_messages)

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Pass it on (picows.WSListener)."""
        try:
            self._session.opened(transport)
        except Exception as error:
            self._session.failed(error)

    def _put(self, on_frame: OnFrame) -> None:
        self.__dict__["on_ws_frame"] = on_frame

    def mute(self) -> None:
        """Pass nothing on any more."""
        self._fragments = None
        self._put(_ignore)

    def _make_hot_path(self) -> OnFrame:
        deliver, hear, failed = self._events.on_message, self._hear, self._session.failed

        def on_frame(_ws: WSTransport, frame: WSFrame) -> None:
            now_ns = monotonic_ns()
            try:
                kind = frame.msg_type
                if frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
                    if kind is TEXT:
                        payload = frame.get_payload_as_bytes()
                        if payload.isascii() or is_utf8(payload):
                            deliver(True, payload, now_ns, time_ns())
                            return
                    elif kind is BINARY:
                        deliver(False, frame.get_payload_as_bytes(), now_ns, time_ns())
                        return
                hear(kind, frame, now_ns)
            except Exception as error:
                failed(error)

        return on_frame

    def _within_message(self, _ws: WSTransport, frame: WSFrame) -> None:
        now_ns = monotonic_ns()
        try:
            self._hear(frame.msg_type, frame, now_ns)
        except Exception as error:
            self._session.failed(error)

    def _hear(self, kind: WSMsgType, frame: WSFrame, now_ns: int) -> None:
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._session.broken(PROTOCOL_ERROR, "reserved bits must be 0")
        elif kind is PING:
            self._session.ping(frame.get_payload_as_bytes(), now_ns)
        elif kind is PONG:
            self._events.on_pong(frame.get_payload_as_bytes(), now_ns)
        elif kind is CLOSE:
            self._hear_close(frame.get_payload_as_bytes())
        elif kind is CONTINUATION and self._fragments is None:
            self._session.broken(PROTOCOL_ERROR, "nothing to continue")
        elif kind is not CONTINUATION and self._fragments is not None:
            self._session.broken(PROTOCOL_ERROR, "the message before is unfinished")
        else:
            self._hear_fragment(kind, frame, now_ns)

    def _hear_fragment(self, kind: WSMsgType, frame: WSFrame, now_ns: int) -> None:
        fragments = self._fragments
        if fragments is None:
            self._fragments = fragments = bytearray()
            self._is_text = kind is TEXT
            self._put(self._within_message)
        if len(fragments) + frame.payload_size > self._max_message:
            self._session.broken(TOO_BIG, f"over {self._max_message} bytes in fragments")
            return
        fragments += frame.get_payload_as_memoryview()
        if not frame.fin:
            return
        payload, self._fragments = bytes(fragments), None
        self._put(self._between_messages)
        if self._is_text and not is_utf8(payload):
            self._session.broken(INVALID_DATA, "text is not UTF-8")
        else:
            self._events.on_message(self._is_text, payload, now_ns, time_ns())

    def _hear_close(self, payload: bytes) -> None:
        # picows has refused a payload of one byte, a reason that is no UTF-8, and some codes.
        code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
        if payload and code not in SENDABLE:
            self._session.broken(PROTOCOL_ERROR, f"invalid close code {code}")
        else:
            self._session.closed(code, payload[2:].decode())


def _ignore(_ws: WSTransport, _frame: WSFrame) -> None:
    """Take a frame that came when all was over."""
