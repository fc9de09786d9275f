"""Client spec: the arguments of ``WebSocket`` as the machines take them."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from worker import client_arguments as arguments
from worker.config import BackoffConfig, HeartbeatConfig
from worker.spec import ConnectionSpec, LimitsSpec, SubscribeSpec


def client_spec(
    uri: str,
    *,
    config: HeartbeatConfig | None,
    reconnect: bool,
    backoff: BackoffConfig,
    subscribe: Iterable[Any],
    headers: Mapping[str, str] | None,
    subprotocols: Iterable[str] | None,
    proxy: str | None,
    compression: bool,
    max_message: int,
    connect_timeout: float,
    close_timeout: float,
    engine: Literal["auto", "websockets", "picows"],
) -> ConnectionSpec:
    """
    Return what to keep up; arguments as of ``WebSocket``.

    Raises:
        ValueError: If one is impossible; the text names it.

    """
    arguments.check_uri(uri)
    arguments.check_seconds("connect_timeout", connect_timeout)
    arguments.check_seconds("close_timeout", close_timeout)
    arguments.check_engine(engine, compression=compression)
    arguments.check_count("max_message", max_message)
    arguments.check_instance("reconnect", reconnect, bool, "True or False; see backoff")
    arguments.check_instance("backoff", backoff, BackoffConfig, "a BackoffConfig")
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
        reconnect=backoff.spec(
            enabled=reconnect, connect_timeout=connect_timeout, close_timeout=close_timeout
        ),
        limits=LimitsSpec(max_message=max_message),
    )
    return spec if config is None else config.onto(spec)
