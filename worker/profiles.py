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


def _frames(interval: float, timeout: float = 10, *, silence: float) -> dict[str, Any]:
    return {
        "heartbeat": {"interval": interval, "timeout": timeout},
        "liveness": {"max_silence": silence},
    }


def _messages(
    interval: float, timeout: float, payload: str, matcher: Any, *, silence: float
) -> dict[str, Any]:
    return {
        "liveness": {"max_silence": silence},
        "heartbeat": {
            "interval": interval,
            "timeout": timeout,
            "payload": payload,
            "use_ws_ping": False,
            "use_application_ping": True,
            "pong_matcher": matcher,
        },
    }


def _numbered(table: dict[str, Any], pong_id: str) -> dict[str, Any]:
    return table | {"heartbeat": table["heartbeat"] | {"pong_id": pong_id}}


def _beating(table: dict[str, Any], match: str, max_gap: float) -> dict[str, Any]:
    """A heartbeat of the exchange's that comes while there is nothing else to send."""
    beat = {"match": match, "max_gap": max_gap, "idle_only": True}
    return table | {"server_heartbeat": beat}


_HTX = {
    "heartbeat": False,
    "decode": "gzip",
    "liveness": {"max_silence": 15},
    "server_ping": [{"match": "ping", "reply": '{"pong":${ping}}'}],
}

PROFILES: dict[str, Profile] = {
    "binance_spot": Profile(
        _frames(20, silence=60)
        | {
            "outbound": {"messages": 5},  # PING and PONG frames counted
            "notice": ["e == 'serverShutdown' || stream == '!serverShutdown'"],
        },
        "binance-spot-api-docs: web-socket-streams",
    ),
    "binance_usdm": Profile(
        _frames(30, silence=90) | {"outbound": {"messages": 10}},
        "developers.binance.com: usds-margined-futures",
    ),
    "binance_coinm": Profile(
        _frames(30, silence=90), "developers.binance.com: coin-margined-futures"
    ),
    "bybit_v5": Profile(
        # Public channels answer with ret_msg, private and option ones with op.
        _messages(20, 10, '{"op":"ping"}', "op == 'pong' || ret_msg == 'pong'", silence=40),
        "bybit-exchange/docs: v5 websocket",
    ),
    "okx_v5": Profile(
        _messages(20, 10, "ping", {"text": "pong"}, silence=30)
        | {"notice": ["event == 'notice' && code == '64008'"]},  # 30 to 60 s ahead
        "OKX API v5: websocket",
    ),
    "kraken_v1": Profile(
        _beating(
            _numbered(
                _messages(30, 10, '{"event":"ping","reqid":${seq}}', "event == 'pong'", silence=60),
                "reqid",
            ),
            "event == 'heartbeat'",
            10,
        ),
        "docs.kraken.com: spot-websocket-v1 ping",
    ),
    "kraken_v2": Profile(
        _beating(
            _numbered(
                _messages(
                    30, 10, '{"method":"ping","req_id":${seq}}', "method == 'pong'", silence=60
                ),
                "req_id",
            ),
            "channel == 'heartbeat'",
            10,
        ),
        "docs.kraken.com: spot-websocket-v2 ping",
    ),
    "kraken_futures": Profile(_frames(30, silence=60), "docs.kraken.com: futures-websocket"),
    "coinbase_exchange": Profile(
        _frames(20, silence=60), "docs.cdp.coinbase.com: exchange websocket-feed"
    ),
    "coinbase_advanced": Profile(
        _frames(30, silence=90), "docs.cdp.coinbase.com: advanced trade websocket"
    ),
    "bitfinex": Profile(
        _numbered(
            _messages(20, 10, '{"event":"ping","cid":${seq}}', "event == 'pong'", silence=35), "cid"
        )
        | {"notice": ["event == 'info' && code == `20051`"]},
        "docs.bitfinex.com: ws-general",
    ),
    "bitmex": Profile(_frames(5, 5, silence=15), "BitMEX/api-connectors: official-ws"),
    "gate_spot": Profile(
        _frames(15, silence=30) | {"notice": ["type == 'upgrade'"]}, "gate.com: websocket v4"
    ),
    "gate_futures": Profile(_frames(10, silence=30), "gate.com: futures websocket v4"),
    "htx_spot": Profile(_HTX, "huobiapi.github.io: spot websocket"),
    "htx_swap": Profile(_HTX, "huobiapi.github.io: swap websocket"),
    "bitget": Profile(
        _messages(25, 10, "ping", {"text": "pong"}, silence=60), "bitget.com: websocket v2"
    ),
    "mexc_futures": Profile(
        _messages(15, 10, '{"method":"ping"}', "channel == 'pong'", silence=45),
        "mexc.com: contract websocket",
    ),
    "cryptocom": Profile(
        _frames(20, silence=45)
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
        _messages(20, 10, '{"method":"ping"}', "channel == 'pong'", silence=60),
        "hyperliquid docs: websocket",
    ),
    "bitstamp": Profile(
        _messages(20, 10, '{"event":"bts:heartbeat"}', "event == 'bts:heartbeat'", silence=60)
        | {"notice": ["event == 'bts:request_reconnect'"]},
        "bitstamp.net: websocket v2",
    ),
    "phemex": Profile(
        _numbered(
            _messages(
                5,
                5,
                '{"id":${seq},"method":"server.ping","params":[]}',
                "result == 'pong'",
                silence=15,
            ),
            "id",
        ),
        "phemex docs: websocket",
    ),
    "poloniex": Profile(
        _messages(15, 10, '{"event":"ping"}', "event == 'pong'", silence=30),
        "docs.poloniex.com: websocket",
    ),
    "whitebit": Profile(
        _numbered(
            _messages(
                20, 10, '{"id":${seq},"method":"ping","params":[]}', "result == 'pong'", silence=30
            ),
            "id",
        ),
        "docs.whitebit.com: websocket",
    ),
}
