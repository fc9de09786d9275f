"""Client spec: the arguments of ``WebSocket`` as the machines take them."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from worker import client_arguments as arguments
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
    engine: Literal["auto", "websockets", "picows"],
    compression: bool,
    max_message: int,
) -> ConnectionSpec:
    """
    Return what to keep up; arguments as of ``WebSocket``.

    Raises:
        ValueError: If one is impossible; the text names it.

    """
    arguments.check_uri(uri)
    spec = ConnectionSpec(
        name="client",
        url=uri,
        subscribe=SubscribeSpec(messages=arguments.messages_of(subscribe)),
        headers=arguments.headers_of(headers),
        subprotocols=arguments.subprotocols_of(subprotocols),
        engine=engine,
        compression=compression,
        proxy=proxy,
        heartbeat=None,
        reconnect=reconnect,
        limits=LimitsSpec(max_message=max_message),
    )
    return spec if config is None else config.onto(spec)
