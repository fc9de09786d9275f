"""Profiles: what is known of the keepalive of exchanges, as data.

A profile is a piece of a ``[[connection]]`` table: what an operator would otherwise look up and
type. It stands between ``[defaults]`` and the connection's own keys. The remark names the public
source; nothing here was tried against a live exchange by this project.
"""

from typing import Any, NamedTuple


class Profile(NamedTuple):
    """``table``: keys as in fleet.toml. ``source``: where the facts come from."""

    table: dict[str, Any]
    source: str


def _frames(interval: float, timeout: float = 10) -> dict[str, Any]:
    return {"heartbeat": {"interval": interval, "timeout": timeout}}


def _messages(interval: float, timeout: float, payload: str, matcher: Any) -> dict[str, Any]:
    return {
        "heartbeat": {
            "interval": interval,
            "timeout": timeout,
            "payload": payload,
            "use_ws_ping": False,
            "use_application_ping": True,
            "pong_matcher": matcher,
        }
    }


def _numbered(table: dict[str, Any], pong_id: str) -> dict[str, Any]:
    return {"heartbeat": table["heartbeat"] | {"pong_id": pong_id}}


_HTX = {
    "heartbeat": False,
    "decode": "gzip",
    "server_ping": [{"match": "ping", "reply": '{"pong":${ping}}'}],
}

PROFILES: dict[str, Profile] = {
    "binance_spot": Profile(_frames(20), "binance-spot-api-docs: web-socket-streams"),
    "binance_usdm": Profile(_frames(30), "developers.binance.com: usds-margined-futures"),
    "binance_coinm": Profile(_frames(30), "developers.binance.com: coin-margined-futures"),
    "bybit_v5": Profile(
        # Public channels answer with ret_msg, private and option ones with op.
        _messages(20, 10, '{"op":"ping"}', "op == 'pong' || ret_msg == 'pong'"),
        "bybit-exchange/docs: v5 websocket",
    ),
    "okx_v5": Profile(_messages(20, 10, "ping", {"text": "pong"}), "OKX API v5: websocket"),
    "kraken_v1": Profile(
        _numbered(_messages(30, 10, '{"event":"ping","reqid":${seq}}', "event == 'pong'"), "reqid"),
        "docs.kraken.com: spot-websocket-v1 ping",
    ),
    "kraken_v2": Profile(
        _numbered(
            _messages(30, 10, '{"method":"ping","req_id":${seq}}', "method == 'pong'"), "req_id"
        ),
        "docs.kraken.com: spot-websocket-v2 ping",
    ),
    "kraken_futures": Profile(_frames(30), "docs.kraken.com: futures-websocket"),
    "coinbase_exchange": Profile(_frames(20), "docs.cdp.coinbase.com: exchange websocket-feed"),
    "coinbase_advanced": Profile(_frames(30), "docs.cdp.coinbase.com: advanced trade websocket"),
    "bitfinex": Profile(
        _numbered(_messages(20, 10, '{"event":"ping","cid":${seq}}', "event == 'pong'"), "cid"),
        "docs.bitfinex.com: ws-general",
    ),
    "bitmex": Profile(_frames(5, 5), "BitMEX/api-connectors: official-ws"),
    "gate_spot": Profile(_frames(15), "gate.com: websocket v4"),
    "gate_futures": Profile(_frames(10), "gate.com: futures websocket v4"),
    "htx_spot": Profile(_HTX, "huobiapi.github.io: spot websocket"),
    "htx_swap": Profile(_HTX, "huobiapi.github.io: swap websocket"),
    "bitget": Profile(_messages(25, 10, "ping", {"text": "pong"}), "bitget.com: websocket v2"),
    "mexc_futures": Profile(
        _messages(15, 10, '{"method":"ping"}', "channel == 'pong'"), "mexc.com: contract websocket"
    ),
    "cryptocom": Profile(
        _frames(20)
        | {
            "server_ping": [
                {
                    "match": "method == 'public/heartbeat'",
                    "reply": '{"id":${id},"method":"public/respond-heartbeat"}',
                }
            ]
        },
        "exchange-docs.crypto.com: heartbeats",
    ),
    "hyperliquid": Profile(
        _messages(20, 10, '{"method":"ping"}', "channel == 'pong'"), "hyperliquid docs: websocket"
    ),
    "bitstamp": Profile(
        _messages(20, 10, '{"event":"bts:heartbeat"}', "event == 'bts:heartbeat'"),
        "bitstamp.net: websocket v2",
    ),
    "phemex": Profile(
        _numbered(
            _messages(5, 5, '{"id":${seq},"method":"server.ping","params":[]}', "result == 'pong'"),
            "id",
        ),
        "phemex docs: websocket",
    ),
    "poloniex": Profile(
        _messages(15, 10, '{"event":"ping"}', "event == 'pong'"), "docs.poloniex.com: websocket"
    ),
    "whitebit": Profile(
        _numbered(
            _messages(20, 10, '{"id":${seq},"method":"ping","params":[]}', "result == 'pong'"),
            "id",
        ),
        "docs.whitebit.com: websocket",
    ),
}
