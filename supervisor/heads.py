"""Heads: what the last number of a connection is, from its state frames and from shared memory."""

import struct
from pathlib import Path

import msgspec

from shm.errors import SegmentError
from shm.layout import Word
from shm.view import StatsView
from supervisor.lineage import Head
from worker.envelope import HEADER, STRETCH_SHIFT, VERSION, Kind
from worker.session_state import CONNECTED

STATES = (Kind.LIVENESS, Kind.HELLO, Kind.STATE)


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
        version, kind, flags, epoch, seq, state_seq, _wall_ns, at_ns = HEADER.unpack_from(frame, at)
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
        stretch=flags >> STRETCH_SHIFT,
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

    def head(self, pid: int, epoch: int) -> int | None:
        """
        Return the number of the last message that a worker has sent, ``None`` if nobody can tell.

        A living worker that was not heard yet will speak for itself, over the wire. A dead one that
        lived too briefly to be heard will not: its number is told.

        Args:
            pid: The worker that was heard last; 0 if none was.
            epoch: The last incarnation known. Numbers go on in later ones only: another run of the
                fleet begins with the first.

        """
        view = self._view
        if view is None or view.truncated():
            return None
        goes_on = view.pid == pid or ((not pid or view.epoch > epoch) and not view.locked())
        return view.words[Word.SEQ] if goes_on else None

    def dead(self) -> bool:
        """Return whether the worker of the latest incarnation seen has died."""
        view = self._view
        return view is not None and not view.locked()

    def close(self) -> None:
        """Unmap."""
        if self._view is not None:
            self._view.close()
            self._view = None
