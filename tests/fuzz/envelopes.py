"""Targets: the envelope decoded, and what subscribers send to a worker."""

from fuzz.damage import damaged, odd_word
from fuzz.target import Target, named
from supervisor.heads import head_of
from supervisor.repairs import message_of
from worker.envelope import HEADER, Envelope, EnvelopeError, decode, encode
from worker.subscriptions import PREFIX_BYTES_MAX, PREFIXES_MAX, Subscriptions

TOPICS = ("data.a", "data.a.BTC", "state.a", "event.a.up", "data.ab", "x", "d" * 255)
STATE = b'{"connection":"a","state":"up","pid":7,"epoch":1,"seq":9,"session":1,"journal":true}'


def frame(rng, kind=None):
    """A frame as a worker or a supervisor publishes it."""
    kind = rng.choice((1, 1, 1, 2, 3, 4, 5, 6, 255)) if kind is None else kind
    payload = STATE if kind in (2, 3, 4) else rng.randbytes(rng.choice((0, 1, 30, 300)))
    number = rng.choice((rng.randrange(1000), (1 << 64) - 1, 1 << 63))
    now_ns = rng.randrange(1 << 62)
    return encode(
        Envelope(rng.choice(TOPICS), kind, rng.randrange(8), 1, number, 1, now_ns, now_ns, payload)
    )


def bad_frame(rng):
    """Anything: no NUL, a header cut short, another version, an unknown kind, damage, noise."""
    whole = frame(rng)
    end = whole.index(b"\0")
    match rng.randrange(7):
        case 0:
            return whole.replace(b"\0", b"\1")
        case 1:
            return whole[: rng.randrange(end + 1 + HEADER.size)]
        case 2:
            return whole[: end + 1] + odd_word(rng)[:2] + whole[end + 3 :]
        case 3:
            return whole[: end + 3] + bytes([rng.randrange(256)]) + whole[end + 4 :]
        case 4:
            return rng.randbytes(rng.choice((0, 1, 40, 41, 300)))
        case 5:
            return rng.choice((b"", b"\xff\xfe", b"t" * 300)) + whole[end:]
    return damaged(rng, whole, ((0, end + 1 + HEADER.size),))


class Envelopes(Target):
    """Decoded to what encodes to the same bytes, or refused by name."""

    def run(self, rng):
        given = rng.choice((frame, bad_frame))(rng)
        head = head_of(given, given.find(b"\0") + 1)
        message = message_of("a", given)
        assert head is None or message is None
        try:
            envelope = decode(given)
        except EnvelopeError as error:
            outcome = named(error)
        else:
            assert encode(envelope) == given
            outcome = "decoded"
        assert message is None or (outcome == "decoded" and given.endswith(message.payload))
        return outcome


class SubscriptionFrames(Target):
    """Counted exactly while they are few and short; never thought gone while one is left."""

    def run(self, rng):
        subscriptions, held, uncounted = Subscriptions("a"), {}, set()
        flood = rng.random() < 0.02
        sent = flood_of(rng) if flood else some_of(rng)
        for frame in sent:
            subscriptions.take(frame)
            verb, prefix = frame[:1], frame[1:]
            if verb == b"\1" and len(prefix) <= PREFIX_BYTES_MAX:
                if prefix in held or len(held) < PREFIXES_MAX:
                    held[prefix] = held.get(prefix, 0) + 1
                else:
                    uncounted.add(prefix)
            elif verb == b"\0" and prefix in held:
                held[prefix] -= 1
                if not held[prefix]:
                    del held[prefix]
        assert subscriptions.total == sum(held.values())
        assert subscriptions.refused <= len(sent)
        wanted = [prefix for prefix in (*held, *uncounted) if can_match(prefix)]
        assert subscriptions.wants_data or not wanted, wanted
        return "flood" if flood else "counted"


def some_of(rng):
    """Frames of a few peers, not all of them sane."""
    prefixes = [topic.encode() for topic in TOPICS] + [b"", b"data", b"data.a\0", b"data.a.X\0"]
    prefixes += [rng.randbytes(rng.choice((1, 8, 256, 257, 4000))) for _ in range(4)]
    verbs = (b"\1", b"\1", b"\0", b"\2", b"")
    return [rng.choice(verbs) + rng.choice(prefixes) for _ in range(60)]


def flood_of(rng):
    """More different prefixes than are counted."""
    frames = [b"\1s%d" % number for number in range(PREFIXES_MAX + 50)]
    for _ in range(5):
        frames.insert(rng.randrange(len(frames)), b"\1data.a" + rng.choice((b"", b"\0", b".X")))
    return frames


def can_match(prefix):
    """Return whether a subscription to ``prefix`` can match a data topic of ``a``."""
    return any(t.startswith(prefix) or prefix.startswith(t) for t in (b"data.a\0", b"data.a."))
