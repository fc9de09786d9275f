"""What a WebSocket client must bear: after the published list of the Autobahn test suite.

Sections 1 to 7, 9 and 10 of it, in our own words and with fewer sizes. The server sends ``sends``;
the client must echo every message, answer every ping, and close with one of ``closes`` if the
server has broken the protocol or begun to close.
"""

from dataclasses import dataclass

from raw_exchange import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

SIZES = (0, 125, 126, 127, 128, 65535, 65536)
CONTROL_MAX = 125
GOOD_CODES = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
GOOD_UTF8 = (
    "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff",
    "\ue000", "\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0010ffff", "\U0001fffe", "\ufdd0",
)  # fmt: skip
BAD_UTF8 = (
    b"\x80", b"\xbf", b"\x80\xbf\x80", bytes(range(0x80, 0xC0)),  # continuation of nothing
    b"\xc0 \xc1 ", b"\xe0 \xef ", b"\xf0 \xf4 ",  # starts that nothing continues
    b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf",  # cut short
    b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf",  # overlong
    b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf",  # above U+10FFFF
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80",  # surrogates
    "κόσμε".encode() + b"\xed\xa0\x80" + b"edited",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """
    One case.

    Args:
        name: Section and what it is about.
        sends: The server's bytes, in order.
        answers: The client's frames, in order: (opcode, payload).
        closes: Codes of which the client must close with one, by itself or in answer; ``None`` in
            it: a close frame without a code. Empty: the server closes with 1000 when all answers
            have come.
        chop: The server's bytes leave in pieces of so many, 0 for all at once.
        may_miss: Answers may be missing, for the end came before they could be sent.

    """

    name: str
    sends: tuple[bytes, ...]
    answers: tuple[tuple[int, bytes], ...] = ()
    closes: tuple[int | None, ...] = ()
    chop: int = 0
    may_miss: bool = False


def fragments(opcode, payload, size):
    """Return a message in fragments of so many bytes."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    return tuple(
        frame(CONT if number else opcode, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


def breach(name, *sends, answers=(), closes=(1002,), **keys):
    """Return a case of which the client may see the end before it has answered."""
    return Case(name, sends, tuple(answers), closes, may_miss=True, **keys)


def echoes():
    for section, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for size in SIZES:
            message = (opcode, byte * size)
            yield Case(f"1.{section} a message of {size}", (frame(*message),), (message,))
        yield Case(f"1.{section} chopped", (frame(*message),), (message,), chop=997)


def pings():
    for body in (b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * CONTROL_MAX):
        sends = (frame(PING, body),)
        yield Case(f"2 a ping of {len(body)}", sends, ((PONG, body),))
    yield breach("2 a ping of 126", frame(PING, b"\xfe" * 126))
    yield Case("2 a ping byte by byte", sends, ((PONG, body),), chop=1)
    for stray in (b"", b"unsolicited"):
        yield Case(f"2 a stray pong of {len(stray)}", (frame(PONG, stray),))
    yield Case(
        "2 a stray pong, then a ping", (frame(PONG, b"x"), frame(PING, b"y")), ((PONG, b"y"),)
    )
    bodies = [b"payload-%d" % number for number in range(10)]
    for chop in (0, 1):
        yield Case(
            f"2 ten pings, chop {chop}",
            tuple(frame(PING, body) for body in bodies),
            tuple((PONG, body) for body in bodies),
            chop=chop,
        )


def reserved():
    hello = (TEXT, b"Hello")
    for rsv in range(1, 8):
        for opcode in (TEXT, BINARY, PING, CLOSE):
            body = b"\x03\xe8" if opcode == CLOSE else b"Hello"
            yield breach(f"3 reserved bits {rsv} on opcode {opcode}", frame(opcode, body, rsv=rsv))
        for chop in (0, 1):
            yield breach(
                f"3 reserved bits {rsv} between messages, chop {chop}",
                frame(*hello),
                frame(*hello, rsv=rsv),
                frame(PING),
                answers=(hello,),
                chop=chop,
            )
        yield breach(
            f"3 reserved bits {rsv} on a continuation",
            frame(TEXT, b"a", fin=False),
            frame(CONT, b"b", rsv=rsv),
        )
    for opcode in (*range(3, 8), *range(11, 16)):
        for payload in (b"", b"reserved"):
            yield breach(f"4 opcode {opcode}, {len(payload)} bytes", frame(opcode, payload))
        for chop in (0, 1):
            yield breach(
                f"4 opcode {opcode} between messages, chop {chop}",
                frame(*hello),
                frame(opcode, b"x"),
                frame(PING),
                answers=(hello,),
                chop=chop,
            )
    yield breach("5 a masked frame", b"\x81\x85\0\0\0\0Hello")
    yield breach(
        "5 a length of 64 bits", b"\x82\x7f" + (1 << 63).to_bytes(8, "big"), closes=(1002, 1009)
    )


def fragmented():
    whole = (TEXT, b"fragment1fragment2")
    first, second = frame(TEXT, b"fragment1", fin=False), frame(CONT, b"fragment2")
    yield breach("5 a ping in fragments", frame(PING, b"a", fin=False), frame(CONT, b"b"))
    yield breach("5 a pong in fragments", frame(PONG, b"a", fin=False), frame(CONT, b"b"))
    yield breach("5 a close in fragments", frame(CLOSE, b"\x03\xe8", fin=False))
    for chop in (0, 1):
        yield Case(f"5 two fragments, chop {chop}", (first, second), (whole,), chop=chop)
        yield Case(
            f"5 a ping between fragments, chop {chop}",
            (first, frame(PING, b"ping"), second),
            ((PONG, b"ping"), whole),
            chop=chop,
        )
        yield Case(
            f"5 pings and empty fragments, chop {chop}",
            (first, frame(PING, b"1"), frame(CONT, fin=False), frame(PING, b"2"), second),
            ((PONG, b"1"), (PONG, b"2"), whole),
            chop=chop,
        )
        for fin in (True, False):
            yield breach(
                f"5 nothing to continue, fin {fin}, chop {chop}",
                frame(CONT, b"?", fin=fin),
                frame(*whole),
                chop=chop,
            )
            yield breach(
                f"5 continued after its end, fin {fin}, chop {chop}",
                first,
                second,
                frame(CONT, b"?", fin=fin),
                answers=(whole,),
                chop=chop,
            )
        yield breach(f"5 a message within another, chop {chop}", first, frame(*whole), chop=chop)
        yield breach(f"5 binary within text, chop {chop}", first, frame(BINARY, b"x"), chop=chop)
    yield Case("5 empty fragments", fragments(TEXT, b"", 1) + (first, second), ((TEXT, b""), whole))
    yield Case(
        "5 empty fragments only",
        (frame(TEXT, fin=False), frame(CONT, fin=False), frame(CONT)),
        ((TEXT, b""),),
    )


def utf8():
    for number, text in enumerate(GOOD_UTF8):
        message = (TEXT, text.encode())
        yield Case(f"6 valid {number}", (frame(*message),), (message,))
        yield Case(f"6 valid {number} in fragments", fragments(*message, 1), (message,))
        yield Case(f"6 valid {number} byte by byte", (frame(*message),), (message,), chop=1)
    for number, data in enumerate(BAD_UTF8):
        around = b"valid before " + data
        yield breach(f"6 invalid {number}", frame(TEXT, data), closes=(1007,))
        yield breach(f"6 invalid {number} after valid", frame(TEXT, around), closes=(1007,))
        yield breach(
            f"6 invalid {number} in fragments", *fragments(TEXT, around, 1), closes=(1007,)
        )
        yield Case(
            f"6 invalid {number} is fine as binary", (frame(BINARY, data),), ((BINARY, data),)
        )


def closes():
    hello, bye = (TEXT, b"Hello"), frame(CLOSE, b"\x03\xe8")
    for name, after in (
        ("a close", bye),
        ("a ping", frame(PING)),
        ("a message", frame(*hello)),
        ("a breach", frame(3)),
        ("garbage", b"\xff" * 40),
    ):
        yield Case(f"7 {name} after the close", (bye, after), (), (1000,))
    yield Case(
        "7 a close amid fragments",
        (frame(TEXT, b"a", fin=False), bye, frame(CONT, b"b")),
        (),
        (1000,),
    )
    big = (TEXT, b"BAsd7&jh23" * 26_214)
    sends = (frame(*big), frame(*hello), bye, frame(PING))
    # Who reads the close together with the messages may answer it first.
    yield breach("7 messages, then a close", *sends, answers=(big, hello), closes=(1000,))
    yield Case("7 a close of nothing", (frame(CLOSE),), (), (None, 1000))
    yield Case("7 a close of one byte", (frame(CLOSE, b"\x03"),), (), (1002,))
    for size in (5, 123):
        yield Case(f"7 a reason of {size}", (frame(CLOSE, b"\x03\xe8" + b"*" * size),), (), (1000,))
    yield Case("7 a reason of 124", (frame(CLOSE, b"\x03\xe8" + b"*" * 124),), (), (1002,))
    yield Case(
        "7 a reason that is no UTF-8",
        (frame(CLOSE, b"\x03\xe8\xce\xba\xed\xa0"),),
        (),
        (1002, 1007),
    )
    for code in GOOD_CODES:
        for reason in (b"", b"why"):
            close = frame(CLOSE, code.to_bytes(2, "big") + reason)
            yield Case(f"7 code {code}, reason {len(reason)}", (close,), (), (code,))
    for code in BAD_CODES:
        for reason in (b"", b"why"):
            close = frame(CLOSE, code.to_bytes(2, "big") + reason)
            yield Case(f"7 bad code {code}, reason {len(reason)}", (close,), (), (1002,))


def sizes():
    for kib in (64, 256, 1024, 4096):
        for opcode, byte in ((TEXT, b"*"), (BINARY, b"\xfe")):
            message = (opcode, byte * kib * 1024)
            yield Case(f"9 {kib} KiB, opcode {opcode}", (frame(*message),), (message,))
    message = (TEXT, b"*" * 1024 * 1024)
    for size in (64, 1024, 16 * 1024, 256 * 1024):
        yield Case(f"9 1 MiB in fragments of {size}", fragments(*message, size), (message,))
    for chop in (256, 1024, 2048):
        yield Case(f"9 1 MiB chopped by {chop}", (frame(*message),), (message,), chop=chop)
    for size in (0, 16, 64, 256, 1024, 4096):
        message = (BINARY, b"\xfe" * size)
        yield Case(f"9 a thousand of {size}", (frame(*message) * 1000,), (message,) * 1000)
    message = (TEXT, b"*" * 65536)
    yield Case("10 64 KiB in fragments of 1300", fragments(*message, 1300), (message,))


CASES = (
    *echoes(), *pings(), *reserved(), *fragmented(), *utf8(), *closes(), *sizes(),
)  # fmt: skip
