"""The process that owns one exchange connection, and the library face of what it does.

``from worker import WebSocket, HeartbeatConfig`` is for users of the library; what a supervised
worker needs is imported from its modules, so that it does not carry the rest.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.client import WebSocket, connect
    from worker.client_stats import Stats
    from worker.config import BackoffConfig, HeartbeatConfig
    from worker.errors import (
        ConnectionClosed,
        ConnectionFailed,
        NotConnected,
        WebSocketError,
        WrongLoop,
    )
    from worker.login import Login, LoginContext, LoginRefused

__all__ = [
    "BackoffConfig",
    "ConnectionClosed",
    "ConnectionFailed",
    "HeartbeatConfig",
    "Login",
    "LoginContext",
    "LoginRefused",
    "NotConnected",
    "Stats",
    "WebSocket",
    "WebSocketError",
    "WrongLoop",
    "connect",
]

_HOMES = {
    "BackoffConfig": "config",
    "HeartbeatConfig": "config",
    "Login": "login",
    "LoginContext": "login",
    "LoginRefused": "login",
    "Stats": "client_stats",
    "WebSocket": "client",
    "connect": "client",
}


if not TYPE_CHECKING:  # a type checker shall miss what is not there

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'worker' has no attribute {name!r}")
        import importlib

        module = importlib.import_module(f"worker.{_HOMES.get(name, 'errors')}")
        return getattr(module, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
