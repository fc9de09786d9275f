"""The handshake of the engine ``picows``: what is asked, what may be agreed, how it fails."""

import base64
import socket
from typing import Any

from picows import WSHandshakeError, WSInvalidUpgradeError, WSUpgradeResponse
from websockets.uri import WebSocketURI

from worker.announcement import Cause
from worker.endings import Ending, ending_of_refusal, text_of
from worker.socket_wire import USER_AGENT, Route
from worker.spec import ConnectionSpec


class ConnectedSocket(socket.socket):
    """
    A connected socket that has a peer even when the peer is gone.

    One that has none picows would connect itself, past the proxy and the connect budget.
    """

    def getpeername(self) -> Any:
        """Return the peer's address, ``None`` if it is gone."""
        try:
            return super().getpeername()
        except OSError:
            return None


def url_of(uri: WebSocketURI) -> str:
    """Return the URL without user and password, which picows does not take."""
    return f"{'wss' if uri.secure else 'ws'}://{_host(uri)}:{uri.port}{uri.resource_name}"


def request_headers(uri: WebSocketURI, spec: ConnectionSpec, route: Route) -> list[tuple[str, str]]:
    """Return the headers of the upgrade request besides those of WebSocket itself."""
    is_default = uri.port == (443 if uri.secure else 80)
    wanted = [
        ("Host", _host(uri) if is_default else f"{_host(uri)}:{uri.port}"),
        ("User-Agent", USER_AGENT),
    ]
    if uri.username is not None:
        user = base64.b64encode(f"{uri.username}:{uri.password}".encode()).decode("ascii")
        wanted.append(("Authorization", f"Basic {user}"))
    if spec.subprotocols:
        wanted.append(("Sec-WebSocket-Protocol", ", ".join(spec.subprotocols)))
    wanted += route.headers
    return list({name.lower(): (name, value) for name, value in wanted}.values())


def check_agreed(spec: ConnectionSpec, response: WSUpgradeResponse) -> None:
    """
    Check what the peer chose of what it was offered (RFC 6455 section 4.1).

    Raises:
        WSHandshakeError: If it chose something else.

    """
    spoken = response.headers.getall("Sec-WebSocket-Protocol", [])
    if len(spoken) > 1 or not set(spoken) <= set(spec.subprotocols):
        raise WSHandshakeError(f"unsupported subprotocol {spoken}", b"", b"", response)
    if extensions := response.headers.get("Sec-WebSocket-Extensions"):
        raise WSHandshakeError(f"unsupported extension {extensions}", b"", b"", response)


def ending_of_handshake(error: WSHandshakeError) -> Ending:
    """Return how a handshake ended that was answered otherwise than wished."""
    # From the bytes, for picows knows no status that Python's http does not (520, say).
    if refused := ending_of_refusal(error.raw_header or b""):
        return refused
    text = text_of(error)
    if isinstance(error, WSInvalidUpgradeError):
        text += '; engine = "websockets" reads such headers more freely'
    return Ending(Cause.HANDSHAKE_FAILED, error=text)


def _host(uri: WebSocketURI) -> str:
    return f"[{uri.host}]" if ":" in uri.host else uri.host
