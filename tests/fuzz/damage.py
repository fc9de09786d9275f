"""What befalls bytes: flipped, overwritten, moved, cut."""

import os

WORDS = (0, 1, 2, 7, 8, 9, 255, 256, 4096, 1 << 31, 1 << 32, 1 << 40, 1 << 62, 1 << 63)


def odd_word(rng):
    """Eight bytes that a reader may take for a number: at and around what bounds it."""
    return ((rng.choice(WORDS) + rng.randint(-2, 2)) % (1 << 64)).to_bytes(8, "little")


def damaged(rng, data, spots=()):
    """
    Return a damaged copy.

    Args:
        rng: Decides.
        data: Bytes.
        spots: Ranges (first, last) of offsets where damage hurts most.

    """
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if not data:
            break
        first, last = rng.choice(spots) if spots and rng.random() < 0.8 else (0, len(data))
        at = min(rng.randrange(first, last), len(data) - 1)
        match rng.randrange(7):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2 | 3:
                at -= at % 8
                data[at : at + 8] = odd_word(rng)[: len(data) - at]
            case 4:
                length = min(rng.choice((4, 40, 400)), len(data) - at)
                data[at : at + length] = rng.randbytes(length)
            case 5:
                length = min(rng.choice((8, 64, 512)), len(data) - at)
                there = rng.randrange(len(data) - length + 1)
                data[at : at + length] = data[there : there + length]
            case 6:
                word = int.from_bytes(data[at - at % 8 : at - at % 8 + 8], "little")
                near = (word + rng.choice((-8, -1, 1, 8))) % (1 << 64)
                at -= at % 8
                data[at : at + 8] = near.to_bytes(8, "little")[: len(data) - at]
    return bytes(data)


def cut(rng, length):
    """Return a length to cut a file to: pages, their edges, anything, nothing."""
    return rng.choice((0, 1, 4095, 4096, 8192, length - 1, rng.randrange(length)))


class DamagedFile:
    """
    A file in shared memory that is damaged anew for each case, before and while it is read.

    Args:
        path: Where readers look for it.
        pristine: What it holds when it is whole.
        spots: As for ``damaged``.

    """

    def __init__(self, path, pristine, spots=()):
        self.path, self._pristine, self._spots = path, pristine, spots

    def write(self, data):
        """Put a new file in its place: the mapping of an earlier case keeps its own."""
        fresh = self.path.with_name(".fresh")
        fresh.write_bytes(data)
        fresh.rename(self.path)

    def damage(self, rng):
        """Damage it, or cut it, or leave it whole."""
        kind = rng.random()
        if kind < 0.1:
            self.write(self._pristine)
        elif kind < 0.25:
            self.write(self._pristine[: cut(rng, len(self._pristine))])
        else:
            self.write(damaged(rng, self._pristine, self._spots))

    def disturb(self, rng):
        """Damage or cut what is mapped already."""
        if rng.random() < 0.3:
            os.truncate(self.path, min(cut(rng, len(self._pristine)), self.path.stat().st_size))
            return
        with self.path.open("r+b") as file:
            data = file.read()
            fresh = damaged(rng, data, self._spots)
            for at in range(0, len(data), 4096):
                if data[at : at + 4096] != fresh[at : at + 4096]:
                    file.seek(at)
                    file.write(fresh[at : at + 4096])
