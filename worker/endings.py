"""Endings: how a wire ended, in words that no engine has a say in."""

import re
import socket
import ssl
import time
from dataclasses import dataclass

from worker.announcement import Cause
from worker.proxy import ProxyRefused
from worker.retry_after import retry_after_ns
from worker.utf8 import printable

RETRY_AFTER_STATUSES = frozenset({418, 429, 503})
ERROR_TEXT_MAX = 200
HEAD_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?=[ \r]|\Z)")  # balancers refuse in 1.0
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([^\r\n]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a wire ended. Fields as in ``worker.session_facts.Lost``."""

    cause: str
    code: int | None = None
    reason: str = ""
    status: int | None = None
    error: str = ""
    retry_after_ns: int = 0


def ending_of_dial(error: OSError | ValueError) -> Ending:
    """Return how a dial ended that came to no WebSocket handshake."""
    if isinstance(error, socket.gaierror | UnicodeError):
        cause = Cause.DNS
    elif isinstance(error, ssl.SSLError):
        cause = Cause.TLS
    elif isinstance(error, ProxyRefused):
        cause = Cause.PROXY
    elif isinstance(error, ConnectionRefusedError):
        cause = Cause.CONNECT_REFUSED
    else:
        cause = Cause.CONNECT_FAILED
    return Ending(cause, error=text_of(error))


def ending_of_refusal(head: bytes) -> Ending | None:
    """
    Return how a handshake ended that was answered with another status than 101, else ``None``.

    From the head of the answer alone: a body says nothing to us, and may never come to its end.
    """
    status = _STATUS.match(head)
    if status is None or status[1] == b"101":
        return None
    number, wait_ns = int(status[1]), None
    wait = _RETRY_AFTER.search(head)
    if wait is not None and number in RETRY_AFTER_STATUSES:
        wait_ns = retry_after_ns(wait[1].decode("latin-1"), time.time_ns())
    return Ending(
        Cause.HANDSHAKE_REFUSED,
        status=number,
        error=f"the handshake was answered with HTTP {number}",
        retry_after_ns=wait_ns or 0,
    )


def ending_of_loss(error: Exception | None, *, close_sent: bool) -> Ending:
    """Return how a session ended whose socket was lost without a close frame of the peer's."""
    if isinstance(error, ssl.SSLError):
        return Ending(Cause.TLS, error=text_of(error))
    if close_sent:  # by us, and unanswered: the session knows why
        return Ending(Cause.CLOSED)
    text = text_of(error) if error else "the peer closed without a close frame"
    return Ending(Cause.RESET, error=text)


def text_of(error: BaseException) -> str:
    """Return an error in one short line. It may quote the peer."""
    return printable(f"{type(error).__name__}: {error}"[:ERROR_TEXT_MAX])
