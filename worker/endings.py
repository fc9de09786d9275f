"""Endings: how a wire ended, told from what the socket and the engine of websockets say."""

import socket
import ssl
import time
from dataclasses import dataclass

from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, PayloadTooBig

from worker.announcement import Cause
from worker.dial import ProxyRefused
from worker.retry_after import retry_after_ns

RETRY_AFTER_STATUSES = frozenset({418, 429, 503})


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
    """Return how a dial ended that got no socket, or no TLS on it."""
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
    return Ending(cause, error=_text(error))


def ending_of(engine: ClientProtocol, error: Exception | None) -> Ending:
    """Return how an open wire ended; ``error`` is the transport's, ``None`` after a FIN."""
    refusal = engine.handshake_exc
    if isinstance(refusal, InvalidStatus):
        status = refusal.response.status_code
        return Ending(
            Cause.HANDSHAKE_REFUSED,
            status=status,
            error=_text(refusal),
            retry_after_ns=_retry_after_ns(refusal) if status in RETRY_AFTER_STATUSES else 0,
        )
    if isinstance(refusal, InvalidHandshake):
        return Ending(Cause.HANDSHAKE_FAILED, error=_text(refusal))
    if isinstance(engine.parser_exc, PayloadTooBig):
        return Ending(Cause.OVERSIZE, error=_text(engine.parser_exc))
    broken = engine.parser_exc is not None and not isinstance(
        engine.parser_exc, EOFError | ConnectionClosed
    )
    if broken and engine.close_sent is not None:
        return Ending(Cause.PROTOCOL_ERROR, error=_text(engine.parser_exc))
    if engine.close_rcvd is not None:
        return Ending(Cause.PEER_CLOSED, engine.close_rcvd.code, engine.close_rcvd.reason)
    if isinstance(error, ssl.SSLError):
        return Ending(Cause.TLS, error=_text(error))
    if engine.close_sent is not None:  # by us, and unanswered: the session knows why
        return Ending(Cause.CLOSED)
    return Ending(
        Cause.RESET, error=_text(error) if error else "the peer closed without a close frame"
    )


def _retry_after_ns(refusal: InvalidStatus) -> int:
    values = refusal.response.headers.get_all("Retry-After")
    return (retry_after_ns(values[0], time.time_ns()) or 0) if values else 0


def _text(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"[:200]
