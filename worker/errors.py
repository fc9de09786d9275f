"""Errors of the library face.

WebSocketError              root
├── ConnectionFailed        no session came about, and none will be tried any more
├── ConnectionClosed        the connection has ended for good; ``code`` and ``reason`` say how
├── NotConnected            there is no session this moment; one may come again
└── WrongLoop               the client belongs to another event loop
"""

from urllib.parse import urlsplit

from worker.utf8 import printable


def endpoint_of(uri: str) -> str:
    """Return scheme, host and port of a URI: what may be shown, for the rest may hold a token."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class WebSocketError(Exception):
    """Root of the library's errors."""


class ConnectionFailed(WebSocketError):
    """
    Connecting was given up. Its text tells scheme, host and port of the URI only.

    Attributes:
        uri: Of the client.
        cause: A word of ``worker.announcement.Cause``.
        status: HTTP status of a refused handshake, ``None`` otherwise.

    """

    def __init__(self, uri: str, cause: str, error: str, status: int | None = None) -> None:
        super().__init__(uri, cause, error, status)
        self.uri, self.cause, self.error, self.status = uri, cause, error, status

    def __str__(self) -> str:
        detail = f": {self.error}" if self.error else ""
        return f"cannot connect to {endpoint_of(self.uri)} ({self.cause}){detail}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ConnectionClosed(WebSocketError):
    """
    The connection has ended for good.

    Attributes:
        code: Close code of the peer (RFC 6455 section 7.4); 1006 if it sent none.
        reason: Its reason.

    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __str__(self) -> str:
        return f"closed with {self.code}" + (f" ({printable(self.reason)})" if self.reason else "")


class NotConnected(WebSocketError):
    """There is no session to send on. ``state`` is the client's."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state

    def __str__(self) -> str:
        mend = "; call connect() first, or use async with" if self.state == "idle" else ""
        return f"not connected: {self.state}{mend}"


class WrongLoop(WebSocketError):
    """The client belongs to another event loop, the one on which it was first awaited."""

    def __str__(self) -> str:
        return (
            "this client belongs to another event loop; make one on this loop, or call it there: "
            "asyncio.run_coroutine_threadsafe(ws.recv(), loop)"
        )
