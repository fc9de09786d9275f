"""Client spec: the arguments of ``WebSocket`` as the machines take them."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from worker.config import HeartbeatConfig
from worker.spec import ConnectionSpec, LimitsSpec, ReconnectSpec, SubscribeSpec


def client_spec(
    uri: str,
    *,
    config: HeartbeatConfig | None,
    reconnect: ReconnectSpec,
    subscribe: Iterable[Any],
    headers: Mapping[str, str] | None,
    subprotocols: Iterable[str] | None,
    proxy: str | None,
    compression: bool,
    max_message: int,
) -> ConnectionSpec:
    """
    Return what to keep up; arguments as of ``WebSocket``.

    Raises:
        ValueError: If the URI is none of a WebSocket.

    """
    try:
        parse_uri(uri)
    except InvalidURI as error:
        raise ValueError(f"uri: {error}") from None
    spec = ConnectionSpec(
        name="client",
        url=uri,
        subscribe=SubscribeSpec(messages=tuple(text_of(item) for item in subscribe)),
        headers=tuple((headers or {}).items()),
        subprotocols=tuple(subprotocols or ()),
        compression=compression,
        proxy=proxy,
        heartbeat=None,
        reconnect=reconnect,
        limits=LimitsSpec(max_message=max_message),
    )
    return spec if config is None else config.onto(spec)


def text_of(item: Any) -> str:
    """Return text as it is, UTF-8 decoded, any other object as JSON."""
    if isinstance(item, str):
        return item
    return item.decode() if isinstance(item, bytes) else msgspec.json.encode(item).decode()
