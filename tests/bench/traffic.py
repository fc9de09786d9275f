"""Traffic: messages as exchanges send them, seeded or from a recording, as WebSocket frames. Pure.

The mix follows 30 s recordings of nine exchanges: 3 % of messages are shorter than 64 bytes, 34 %
than 128, most have some hundred, a few are snapshots of kilobytes; 370 bytes on average.
"""

import ast
import random
from collections.abc import Iterable
from dataclasses import dataclass

# Share of messages, shortest, longest; evenly distributed in the logarithm.
MIX = ((3, 48, 63), (34, 64, 127), (41, 128, 511), (18, 512, 1023), (4, 1024, 4095))
POOL = 4000  # messages, then it starts over; a multiple of every burst
FIXED_POOL = 200
TEXT, BINARY = 0x1, 0x2


@dataclass(frozen=True, slots=True)
class Message:
    """A payload and whether it is text."""

    payload: bytes
    is_text: bool = True


def mixed(seed: int, count: int = POOL) -> list[Message]:
    """Return ``count`` messages of the mix; the same seed gives the same."""
    rng = random.Random(seed)
    shares = [share for share, _, _ in MIX]
    found = []
    for number in range(count):
        _, low, high = rng.choices(MIX, shares)[0]
        size = round(low * (high / low) ** rng.random())
        found.append(Message(trade(rng, number, size)))
    return found


def sized(size: int, seed: int = 1, count: int = FIXED_POOL) -> list[Message]:
    """Return ``count`` messages of exactly ``size`` bytes, at least 48."""
    rng = random.Random(seed)
    return [Message(trade(rng, number, size)) for number in range(count)]


def trade(rng: random.Random, number: int, size: int) -> bytes:
    """Return a JSON text of exactly ``size`` bytes, at least 48."""
    head = f'{{"e":"trade","t":"{number % 100_000:05d}","p":{rng.uniform(1e4, 1e5):.2f},"d":"'
    filler = "".join(rng.choices("0123456789.,[]:", k=64)) * (size // 64 + 1)
    return (head + filler[: size - len(head) - 2] + '"}').encode()


def recorded(lines: Iterable[str]) -> list[Message]:
    """
    Return the received messages of a recording.

    One event a line: ``<address> <-> <time>`` opened, ``<address> <- <time>: <text>`` sent,
    ``<time>: <payload>`` received; a payload that begins like ``b'`` is a Python literal of bytes.

    Raises:
        ValueError: If nothing in it was received.

    """
    found = []
    for line in lines:
        time_s, colon, payload = line.rstrip("\n").partition(": ")
        if not colon or not time_s.replace(".", "", 1).isdigit():
            continue
        if payload[:2] in ("b'", 'b"'):
            found.append(Message(ast.literal_eval(payload), is_text=False))
        else:
            found.append(Message(payload.encode()))
    if not found:
        raise ValueError("a recording has lines '<time>: <payload>' of what was received")
    whole = found * -(-POOL // len(found))
    return whole[:POOL]


def encoded(message: Message) -> bytes:
    """Return it as an unmasked frame (RFC 6455, 5.2)."""
    opcode = 0x80 | (TEXT if message.is_text else BINARY)
    size = len(message.payload)
    if size < 126:
        head = bytes((opcode, size))
    elif size < 1 << 16:
        head = bytes((opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode, 127)) + size.to_bytes(8, "big")
    return head + message.payload


def batched(frames: list[bytes], burst: int) -> list[bytes]:
    """
    Return the frames joined ``burst`` at a time.

    Raises:
        ValueError: If their number is no multiple of it.

    """
    if len(frames) % burst:
        raise ValueError(f"bursts of {burst} do not divide {len(frames)} messages")
    return [b"".join(frames[at : at + burst]) for at in range(0, len(frames), burst)]
