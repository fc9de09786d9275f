"""Slot: one connection's line in the fleet's table, as record and as bytes. Pure.

Beside what ``status`` shows it holds what a successor of the supervisor must know: which process
exactly it was, and how its life stood (``restart_facts.Remembered``).
"""

import struct
from dataclasses import dataclass, replace

import msgspec

from supervisor.restart import WorkerLife
from supervisor.restart_facts import Remembered
from supervisor.restart_state import State
from worker.announcement import Announcement, EventKind

# Texts are padded with NUL. The life is MessagePack of varying length: a program that knows other
# fields of it begins that life anew, and nothing else.
RECORD = struct.Struct("<48s32sQQQQqqBBBx24s16s16sH816s")
LIFE_BYTES_MAX = 816
DEATHS_KEPT = 32  # of those that a crash loop counts

WANTED, HUNG, CRASH_LOOP, HAS_CODE = 1, 2, 4, 8
NEW_LIFE = Remembered()


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """The last death of a worker. ``wall_ns`` is CLOCK_REALTIME."""

    announcement: Announcement
    wall_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """
    One connection as the supervisor sees it.

    ``pid`` and ``start_ticks`` are 0 without a process, ``next_attempt_ns`` (CLOCK_MONOTONIC) 0
    without a plan. ``configured`` is the digest of the specification that the process was given
    (``supervisor/spec_digest.py``).
    """

    name: str
    exchange: str
    pid: int
    start_ticks: int = 0
    incarnation: int
    state: State
    wanted: bool
    hung: bool
    crash_loop: bool
    restarts: int
    next_attempt_ns: int
    last_exit: ExitRecord | None
    configured: bytes = bytes(16)
    life: Remembered = NEW_LIFE


@dataclass(frozen=True, slots=True)
class Former:
    """A slot as an earlier supervisor left it. ``heard``: the last event it had read."""

    slot: Slot
    heard: int


def pack(slot: Slot) -> bytes:
    """Return the record of a slot."""
    cause, code, signal, has_code, wall_ns = b"", 0, b"", False, 0
    if slot.last_exit is not None:
        said = slot.last_exit.announcement
        cause, wall_ns = said.cause.encode(), slot.last_exit.wall_ns
        has_code = "code" in said.detail
        code = said.detail.get("code", 0)
        signal = said.detail.get("signal", "").encode()
    flags = (
        slot.wanted * WANTED | slot.hung * HUNG | slot.crash_loop * CRASH_LOOP | has_code * HAS_CODE
    )
    life = _life_bytes(slot.life)
    return RECORD.pack(
        slot.name.encode(),
        slot.exchange.encode(),
        slot.pid,
        slot.start_ticks,
        slot.incarnation,
        slot.restarts,
        slot.next_attempt_ns,
        wall_ns,
        slot.state.value,
        flags,
        code & 0xFF,
        cause,
        signal,
        slot.configured,
        len(life),
        life,
    )


def unpack(record: bytes) -> Slot:
    """
    Return the slot of a record.

    Raises:
        ValueError: If it holds what no supervisor writes.

    """
    (name, exchange, pid, ticks, incarnation, restarts, next_attempt_ns, wall_ns, state, flags,
     code, cause, signal, configured, length, life) = RECORD.unpack(record)  # fmt: skip
    last_exit = None
    if wall_ns:
        detail: dict[str, object] = {}
        if flags & HAS_CODE:
            detail["code"] = code
        if signal.rstrip(b"\0"):
            detail["signal"] = _text(signal)
        said = Announcement(kind=EventKind.EXIT, cause=_text(cause), detail=detail)
        last_exit = ExitRecord(said, wall_ns)
    return Slot(
        name=_text(name),
        exchange=_text(exchange),
        pid=pid,
        start_ticks=ticks,
        incarnation=incarnation,
        state=State(state),
        wanted=bool(flags & WANTED),
        hung=bool(flags & HUNG),
        crash_loop=bool(flags & CRASH_LOOP),
        restarts=restarts,
        next_attempt_ns=next_attempt_ns,
        last_exit=last_exit,
        configured=configured,
        life=_life_of(life[:length]),
    )


def restore(life: WorkerLife, slot: Slot) -> None:
    """Have a fresh life go on as it stood when a slot of this boot was written."""
    life.wanted, life.crash_loop, life.restarts = slot.wanted, slot.crash_loop, slot.restarts
    life.last_exit = slot.last_exit.announcement if slot.last_exit is not None else None
    life.recall(slot.state, slot.life)


_lives = msgspec.msgpack.Decoder(Remembered)


def _life_bytes(life: Remembered) -> bytes:
    packed = msgspec.msgpack.encode(replace(life, deaths=life.deaths[-DEATHS_KEPT:]))
    # Its texts are causes and names of signals, so this does not happen; if it did, the life would
    # begin anew with the next supervisor.
    return packed if len(packed) <= LIFE_BYTES_MAX else b""


def _life_of(packed: bytes) -> Remembered:
    try:
        return _lives.decode(packed)
    except msgspec.MsgspecError:
        return Remembered()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")
