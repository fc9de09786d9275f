"""What five exchanges say: subscriptions, acknowledgements, pings and market data, as bytes.

Prices are of ``exchange_feed``. Shapes and keepalive follow the exchanges' public
documentation; every data message carries a number that grows by one per session, so that a
receiver can prove that nothing is missing.
"""

import gzip
from dataclasses import dataclass

import msgspec

from supervisor.exchange_feed import Market

encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Message:
    """One WebSocket message to send."""

    payload: bytes
    is_text: bool = True


class Exchange:
    """
    One exchange's way of speaking. Subclasses say only what is theirs.

    ``server_ping_s`` is the interval of application pings of the server, ``ping_frames_s`` of PING
    frames, ``heartbeat_s`` of heartbeat messages while nothing else is sent; 0 for none.
    ``misses_allowed`` unanswered server pings end the session.
    """

    server_ping_s = 0.0
    ping_frames_s = 0.0
    heartbeat_s = 0.0
    misses_allowed = 0

    def greeting(self) -> list[Message]:
        """Return what is sent right after the handshake."""
        return []

    def acknowledge(self, text: str) -> list[Message] | None:
        """Return the acknowledgement of a subscription, ``None`` if the text is none."""
        raise NotImplementedError

    def pong(self, text: str) -> Message | None:
        """Return the answer to an application ping, ``None`` if the text is none."""
        return None

    def server_ping(self, now_ms: int) -> Message:
        """Return an application ping of ours."""
        raise NotImplementedError

    def is_pong(self, text: str, sent_ms: int) -> bool:
        """Return whether the text answers our ping of ``sent_ms``."""
        return False

    def heartbeat(self) -> Message:
        """Return what is sent while there is no data."""
        raise NotImplementedError

    def notice(self, now_ms: int) -> list[Message]:
        """Return what is said before a session is closed for its age; mostly nothing."""
        return []

    def data(self, market: Market, number: int, now_ms: int) -> Message:
        """Return data message ``number`` of a session."""
        raise NotImplementedError


def parsed(text: str) -> dict[str, object]:
    """Return a JSON object, or an empty one for anything else."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


class Binance(Exchange):
    """Spot market streams: PING frames from the server every 20 s, trades and depth updates."""

    ping_frames_s = 20.0
    misses_allowed = 3

    def acknowledge(self, text: str) -> list[Message] | None:
        request = parsed(text)
        if request.get("method") != "SUBSCRIBE":
            return None
        return [Message(encode({"result": None, "id": request.get("id")}))]

    def notice(self, now_ms: int) -> list[Message]:
        return [Message(encode({"e": "serverShutdown", "E": now_ms}))]

    def data(self, market: Market, number: int, now_ms: int) -> Message:
        price, size, maker = market.trade()
        if market.wants_book():
            return Message(
                encode(
                    {
                        "e": "depthUpdate",
                        "E": now_ms,
                        "s": "BTCUSDT",
                        "U": number,
                        "u": number,
                        "b": market.levels(market.depth()),
                        "a": market.levels(market.depth()),
                    }
                )
            )
        return Message(
            encode(
                {
                    "e": "trade",
                    "E": now_ms,
                    "s": "BTCUSDT",
                    "t": number,
                    "p": price,
                    "q": size,
                    "T": now_ms,
                    "m": maker,
                    "M": True,
                }
            )
        )


class Bybit(Exchange):
    """v5 public streams: the client pings, the public answer says pong in ret_msg."""

    def acknowledge(self, text: str) -> list[Message] | None:
        request = parsed(text)
        if request.get("op") != "subscribe":
            return None
        return [
            Message(
                encode(
                    {
                        "success": True,
                        "ret_msg": "",
                        "conn_id": "sim",
                        "req_id": request.get("req_id", ""),
                        "op": "subscribe",
                    }
                )
            )
        ]

    def pong(self, text: str) -> Message | None:
        request = parsed(text)
        if request.get("op") != "ping":
            return None
        answer = {"success": True, "ret_msg": "pong", "conn_id": "sim"}
        return Message(encode(answer | {"req_id": request.get("req_id", ""), "op": "ping"}))

    def data(self, market: Market, number: int, now_ms: int) -> Message:
        price, size, maker = market.trade()
        if market.wants_book():
            book = {
                "s": "BTCUSDT",
                "b": market.levels(market.depth()),
                "a": market.levels(market.depth()),
                "u": number,
                "seq": number,
            }
            message = {"topic": "orderbook.50.BTCUSDT", "type": "delta", "ts": now_ms, "data": book}
            return Message(encode(message | {"cts": now_ms}))
        side = "Sell" if maker else "Buy"
        trade = {"T": now_ms, "s": "BTCUSDT", "S": side, "v": size, "p": price, "i": str(number)}
        return Message(
            encode(
                {
                    "topic": "publicTrade.BTCUSDT",
                    "type": "snapshot",
                    "ts": now_ms,
                    "data": [trade | {"BT": False, "seq": number}],
                }
            )
        )


class Okx(Exchange):
    """v5 public channels: pings and pongs are bare text."""

    def acknowledge(self, text: str) -> list[Message] | None:
        request = parsed(text)
        arguments = request.get("args")
        if request.get("op") != "subscribe" or not isinstance(arguments, list):
            return None
        return [
            Message(encode({"event": "subscribe", "arg": argument, "connId": "sim"}))
            for argument in arguments
        ]

    def notice(self, now_ms: int) -> list[Message]:
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        notice = {"event": "notice", "code": "64008", "msg": text, "connId": "sim"}
        return [Message(encode(notice))]

    def pong(self, text: str) -> Message | None:
        return Message(b"pong") if text == "ping" else None

    def data(self, market: Market, number: int, now_ms: int) -> Message:
        price, size, maker = market.trade()
        if market.wants_book():
            channel = {"channel": "books", "instId": "BTC-USDT"}
            book = {
                "asks": [[*level, "0", "1"] for level in market.levels(market.depth())],
                "bids": [[*level, "0", "1"] for level in market.levels(market.depth())],
                "ts": str(now_ms),
                "checksum": -855196043,
                "seqId": number,
            }
            return Message(encode({"arg": channel, "action": "update", "data": [book]}))
        trade = {
            "instId": "BTC-USDT",
            "tradeId": str(number),
            "px": price,
            "sz": size,
            "side": "sell" if maker else "buy",
            "ts": str(now_ms),
            "count": "1",
            "seqId": number,
        }
        return Message(
            encode({"arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [trade]})
        )


class Kraken(Exchange):
    """v2: pings carry a req_id that comes back; heartbeats once a second when quiet."""

    heartbeat_s = 1.0

    def greeting(self) -> list[Message]:
        status = {"version": "2.0.0", "system": "online", "api_version": "v2", "connection_id": 1}
        return [Message(encode({"channel": "status", "type": "update", "data": [status]}))]

    def acknowledge(self, text: str) -> list[Message] | None:
        request = parsed(text)
        params = request.get("params")
        if request.get("method") != "subscribe" or not isinstance(params, dict):
            return None
        return [
            Message(
                encode(
                    {
                        "method": "subscribe",
                        "result": {"channel": params.get("channel"), "symbol": symbol},
                        "success": True,
                        "req_id": request.get("req_id"),
                    }
                )
            )
            for symbol in params.get("symbol", [])
        ]

    def pong(self, text: str) -> Message | None:
        request = parsed(text)
        if request.get("method") != "ping":
            return None
        return Message(encode({"method": "pong", "req_id": request.get("req_id"), "success": True}))

    def heartbeat(self) -> Message:
        return Message(b'{"channel":"heartbeat"}')

    def data(self, market: Market, number: int, now_ms: int) -> Message:
        price, size, maker = market.trade()
        if market.wants_book():
            levels = [
                {"price": float(price), "qty": float(quantity)}
                for price, quantity in market.levels(market.depth())
            ]
            book = {"symbol": "BTC/USD", "bids": levels, "asks": levels, "checksum": number}
            return Message(encode({"channel": "book", "type": "update", "data": [book]}))
        trade = {
            "symbol": "BTC/USD",
            "side": "sell" if maker else "buy",
            "price": float(price),
            "qty": float(size),
            "ord_type": "limit",
            "trade_id": number,
        }
        return Message(encode({"channel": "trade", "type": "update", "data": [trade]}))


class Htx(Exchange):
    """Spot: every message is gzip in a binary frame, the server pings every 5 s."""

    server_ping_s = 5.0
    misses_allowed = 2

    def acknowledge(self, text: str) -> list[Message] | None:
        request = parsed(text)
        if "sub" not in request:
            return None
        answer = {"id": request.get("id"), "status": "ok", "subbed": request["sub"], "ts": 0}
        return [_zipped(answer)]

    def server_ping(self, now_ms: int) -> Message:
        return _zipped({"ping": now_ms})

    def is_pong(self, text: str, sent_ms: int) -> bool:
        return parsed(text).get("pong") == sent_ms

    def data(self, market: Market, number: int, now_ms: int) -> Message:
        price, size, maker = market.trade()
        if market.wants_book():
            tick = {
                "bids": [[float(p), float(q)] for p, q in market.levels(market.depth())],
                "asks": [[float(p), float(q)] for p, q in market.levels(market.depth())],
                "version": number,
                "ts": now_ms,
            }
            return _zipped({"ch": "market.btcusdt.depth.step0", "ts": now_ms, "tick": tick})
        trade = {
            "id": number,
            "ts": now_ms,
            "tradeId": number,
            "amount": float(size),
            "price": float(price),
            "direction": "sell" if maker else "buy",
        }
        tick = {"id": number, "ts": now_ms, "data": [trade]}
        return _zipped({"ch": "market.btcusdt.trade.detail", "ts": now_ms, "tick": tick})


def _zipped(value: object) -> Message:
    return Message(gzip.compress(encode(value), 1, mtime=0), is_text=False)


EXCHANGES: dict[str, type[Exchange]] = {
    "/binance": Binance,
    "/bybit": Bybit,
    "/okx": Okx,
    "/kraken": Kraken,
    "/htx": Htx,
}
