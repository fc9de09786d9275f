"""Heads: what the last number of a connection is, from its state frames and from shared memory."""

import struct
from pathlib import Path

import msgspec

from shm.errors import SegmentError
from shm.layout import Word
from shm.view import StatsView
from supervisor.lineage import Head
from worker.envelope import HEADER, VERSION, Kind

STATES = (Kind.LIVENESS, Kind.HELLO, Kind.STATE)
CONNECTED = ("subscribing", "up", "stale")  # of worker.session.State: data can come


class StateBody(msgspec.Struct):
    """The JSON of a state frame, as far as it matters here."""

    state: str = ""
    pid: int = 0
    session: int = 0


_states = msgspec.json.Decoder(StateBody)


def head_of(frame: bytes, at: int) -> Head | None:
    """
    Return what a state frame says, ``None`` if it is none.

    Args:
        frame: The whole.
        at: Where its header begins.

    """
    try:
        version, kind, _flags, epoch, seq, state_seq, _wall_ns, at_ns = HEADER.unpack_from(
            frame, at
        )
    except struct.error:
        return None
    if version != VERSION or kind not in STATES:
        return None
    try:
        body = _states.decode(frame[at + HEADER.size :])
    except (ValueError, RecursionError):  # MsgspecError is a ValueError
        return None
    return Head(
        seq=seq,
        at_ns=at_ns,
        epoch=epoch,
        pid=body.pid,
        session=body.session,
        connected=body.state in CONNECTED,
        hello=kind == Kind.HELLO,
        state_seq=state_seq,
    )


class WorkerWords:
    """
    The head number in a worker's segment, for when it is not heard.

    It stays mapped: a fleet that ends removes the file.
    """

    def __init__(self, shm_dir: Path, connection: str) -> None:
        self._shm_dir, self._connection = shm_dir, connection
        self._view: StatsView | None = None

    def remap(self) -> None:
        """Map the segment of the latest incarnation, if there is one."""
        if self._view is not None and not self._view.replaced():
            return
        try:
            fresh = StatsView.open(self._shm_dir, self._connection)
        except (FileNotFoundError, SegmentError):
            return  # as good as what we have
        self.close()
        self._view = fresh

    def head(self, pid: int) -> int | None:
        """
        Return the number of the last message that a worker has sent, ``None`` if nobody can tell.

        Args:
            pid: The worker that was heard last. Any other will speak for itself, over the wire. 0:
                none was ever heard, then that of a dead one is told.

        """
        view = self._view
        if view is None or view.truncated():
            return None
        if view.pid != pid if pid else view.locked():
            return None
        return view.words[Word.SEQ]

    def close(self) -> None:
        """Unmap."""
        if self._view is not None:
            self._view.close()
            self._view = None
