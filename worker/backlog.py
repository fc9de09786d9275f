"""Backlog: whose unread messages make too many bytes, so that their connection must be cut.

Pure. libzmq bounds a queue by messages alone: ten thousand of 1 MiB would be ten gigabytes. What
waits for a peer that has not read is at most what was published since it was last seen to read.
"""

LOOKS = 8  # within the bound: it must be found stuck so often in a row


class Backlog:
    """
    Peers that were stuck whenever looked at.

    Args:
        bytes_max: How much may be published meanwhile.

    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._looked_at = 0
        self._since: dict[int, int] = {}

    def due(self, published: int) -> bool:
        """Return whether it is time to look, ``published`` being all bytes so far."""
        return published - self._looked_at >= self._bytes_max // LOOKS

    def looked(self, published: int, stuck: set[int]) -> set[int]:
        """Take in who is stuck; return those to cut."""
        self._looked_at = published
        self._since = {peer: self._since.get(peer, published) for peer in stuck}
        over = {peer for peer, since in self._since.items() if published - since >= self._bytes_max}
        for peer in over:
            del self._since[peer]
        return over
