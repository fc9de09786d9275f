"""Faults of the simulated exchange: which there are, whom they concern, how long they last."""

import asyncio
import gzip
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

MIB = 1 << 20


class FaultKind(StrEnum):
    """What can go wrong on command."""

    MUTE_PONGS = "mute_pongs"  # frame and message pings stay unanswered
    MUTE_DATA = "mute_data"  # no data, everything else goes on
    LATE_PONGS = "late_pongs"  # answers wait for ``delay`` seconds
    WRONG_PONGS = "wrong_pongs"  # answers of another body
    DOUBLE_PONGS = "double_pongs"  # each answer twice
    HALF_OPEN = "half_open"  # the socket stays, nothing is read or written
    REFUSE = "refuse"  # handshakes end with HTTP ``status``, ``retry_after`` if given
    FREEZE = "freeze"  # handshakes are never answered
    LAG = "lag"  # data comes ``delay`` seconds late (with a shared market)
    FRAGMENTS = "fragments"  # messages in two frames with a PING between
    NOTICE = "notice"  # the exchange announces that it will close the session
    RESET = "reset"  # RST
    CLOSE = "close"  # close frame with ``code`` and ``reason``
    GARBAGE = "garbage"  # bytes that are no frame
    OVERSIZE = "oversize"  # a frame of ``mib``
    GZIP_BOMB = "gzip_bomb"  # a small binary message that inflates to ``mib``

    @property
    def is_lasting(self) -> bool:
        """Whether it stands until its time is over; the others happen once, now."""
        return self in LASTING


LASTING = frozenset(
    {
        FaultKind.MUTE_PONGS,
        FaultKind.MUTE_DATA,
        FaultKind.LATE_PONGS,
        FaultKind.WRONG_PONGS,
        FaultKind.DOUBLE_PONGS,
        FaultKind.HALF_OPEN,
        FaultKind.REFUSE,
        FaultKind.FREEZE,
        FaultKind.LAG,
        FaultKind.FRAGMENTS,
    }
)
KINDS = [kind.value for kind in FaultKind]
SELECTORS = ("kind", "path", "tag", "session", "seconds")
DAY_S = 86_400
# Bounds of the numbers of a command: what is beyond them breaks the simulator, not its client.
NUMBERS = {
    "seconds": (0, 366 * DAY_S),
    "session": (1, 1 << 53),
    "delay": (0, DAY_S),
    "status": (100, 599),
    "code": (1000, 4999),
    "mib": (0, 1024),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One fault: for a path, a tag, a session, or for everybody; for ever if ``until`` is infinite.
    """

    kind: FaultKind
    path: str = ""
    tag: str = ""
    until: float = float("inf")  # time.monotonic seconds
    options: dict[str, str] = field(default_factory=dict)
    session: int = 0  # 0: all

    @classmethod
    def parse(cls, query: dict[str, str]) -> "Fault":
        """
        Return the fault that a command's query describes.

        Raises:
            ValueError: If the kind is unknown, or a number is none or out of bounds.

        """
        if query.get("kind") not in KINDS:
            raise ValueError(f"unknown kind {query.get('kind')!r}")
        for name, (low, high) in NUMBERS.items():
            if name in query and not low <= float(query[name]) <= high:  # nor NaN
                raise ValueError(f"{name} must be {low} to {high}, got {query[name]!r:.80}")
        if "status" in query:
            HTTPStatus(int(float(query["status"])))
        until = float("inf")
        if "seconds" in query:
            until = time.monotonic() + float(query["seconds"])
        options = {key: value for key, value in query.items() if key not in SELECTORS}
        return cls(
            FaultKind(query["kind"]),
            query.get("path", ""),
            query.get("tag", ""),
            until,
            options,
            int(float(query.get("session", "0"))),
        )

    def concerns(self, path: str, tag: str, session: int) -> bool:
        """Return whether a session of this path, tag and number suffers it."""
        is_named = self.session in (0, session)
        return is_named and self.path in ("", path) and self.tag in ("", tag)

    def number(self, name: str, default: float) -> float:
        """Return a numeric option."""
        return float(self.options.get(name, default))

    def describe(self) -> dict[str, object]:
        """Return its line of ``/-/faults``."""
        return {
            "kind": self.kind,
            "path": self.path,
            "tag": self.tag,
            "session": self.session,
            "options": self.options,
        }


class FaultBoard:
    """The faults that last."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, fault: Fault) -> None:
        """Put one up."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Take all down."""
        self._faults.clear()

    def active(self) -> list[Fault]:
        """Return those whose time is not over."""
        now = time.monotonic()
        self._faults = [fault for fault in self._faults if fault.until > now]
        return self._faults

    def find(self, kind: FaultKind, path: str, tag: str, session: int) -> Fault | None:
        """Return the latest of a kind that concerns a session, or ``None``."""
        for fault in reversed(self.active()):
            if fault.kind is kind and fault.concerns(path, tag, session):
                return fault
        return None


def spoil(fault: Fault) -> Iterator[bytes]:
    """Yield the raw bytes of a fault of a moment."""
    size = int(fault.number("mib", 32) * MIB)
    match fault.kind:
        case FaultKind.GARBAGE:
            # Reserved bits and an opcode that is none (RFC 6455 section 5.2), then noise.
            yield b"\xff\xff" + os.urandom(64)
        case FaultKind.OVERSIZE:
            yield struct.pack("!BBQ", 0x82, 127, size)
            for _ in range(size // MIB):
                yield bytes(MIB)
        case FaultKind.GZIP_BOMB:
            bomb = gzip.compress(bytes(size), 9)
            yield struct.pack("!BBQ", 0x82, 127, len(bomb)) + bomb


def reset(transport: asyncio.Transport) -> None:
    """End a connection with a RST; a plain close might be a FIN."""
    raw: socket.socket = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # socket(7)
    transport.abort()
