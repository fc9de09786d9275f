"""Silence: decides when an exchange that answers pings is nevertheless not doing its work.

Pure. Three clocks beside the pong's: any frame, the exchange's own heartbeat, and data. The shell
knows when each was last heard and says so; nothing is fed per message. A session that is too
quiet is dead or stale, as its ``LivenessSpec`` says; off unless configured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from worker.announcement import Cause
from worker.heartbeat_facts import Looked
from worker.spec import LivenessSpec, ServerHeartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """When something was last heard in this session, CLOCK_MONOTONIC ns; 0: not yet."""

    frame_ns: int = 0
    data_ns: int = 0
    heartbeat_ns: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What the silence means: ``dead`` of a cause, or stale, or neither. ``age_ns`` says how old.

    ``look``: none of it yet. What ends the silence may wait in the socket: read it, then tell
    ``looked``, and judge again. Death tells what it ``looked`` like, and may be our own doing.
    """

    dead: Cause | None = None
    stale: bool = False
    age_ns: int = 0
    look: bool = False
    looked: Looked | None = None


class Silence:
    """
    The clocks of one session.

    Args:
        liveness: How long which silence may last.
        heartbeat: The exchange's own heartbeat, if it has one.
        up_ns: When the session got up, CLOCK_MONOTONIC nanoseconds.

    Attributes:
        liveness: May be replaced; what was heard is judged by it from then on.

    """

    def __init__(
        self, liveness: LivenessSpec, heartbeat: ServerHeartbeat | None, up_ns: int
    ) -> None:
        self.liveness, self._heartbeat, self._up_ns = liveness, heartbeat, up_ns
        self._heard = Heard()
        self._looking = False
        self._looked: Looked | None = None
        self.stale = False

    def judge(self, now_ns: int, heard: Heard) -> Verdict:
        """Take what was heard until ``now_ns`` (CLOCK_MONOTONIC), return what it means."""
        self._heard = heard
        if self._looking:
            return Verdict(stale=self.stale)
        looked, self._looked = self._looked, None
        verdict = self._verdict(now_ns)
        is_news = verdict.dead is not None or (verdict.stale and not self.stale)
        if is_news and looked is None:
            self._looking = True
            return Verdict(stale=self.stale, look=True, age_ns=verdict.age_ns)
        self.stale = verdict.stale
        if verdict.dead is None or looked is None:
            return verdict
        cause = Cause.BUSY if looked.blames_us(verdict.age_ns) else verdict.dead
        return replace(verdict, dead=cause, looked=looked)

    def looked(self, looked: Looked) -> None:
        """Take that what had waited in the socket is read; it is judged at once."""
        if self._looking:
            self._looking, self._looked = False, looked

    def data_seen(self, now_ns: int) -> None:
        """Take that data came, which need not wait for the next judgement."""
        self._heard = replace(self._heard, frame_ns=now_ns, data_ns=now_ns)
        self.stale = False

    @property
    def deadline_ns(self) -> int | None:
        """When ``judge`` is due again if nothing is heard meanwhile; ``None`` for never."""
        if self._looking:
            return None
        if self._looked is not None:
            return 0
        due = [due_ns for cause, due_ns, _since in self._deadlines() if cause or not self.stale]
        return min(due, default=None)

    def _verdict(self, now_ns: int) -> Verdict:
        for cause, deadline_ns, since_ns in self._deadlines():
            if now_ns >= deadline_ns and cause is not None:
                return Verdict(dead=cause, age_ns=now_ns - since_ns)
        data_ns = max(self._heard.data_ns, self._up_ns)
        limit_ns = self.liveness.data_silence_ns
        stale = bool(limit_ns) and now_ns >= data_ns + limit_ns
        return Verdict(stale=stale, age_ns=now_ns - data_ns)

    def _deadlines(self) -> list[tuple[Cause | None, int, int]]:
        """Return cause (``None``: stale), deadline and start of every clock that runs."""
        liveness, heard, up_ns = self.liveness, self._heard, self._up_ns
        frame_ns, data_ns = max(heard.frame_ns, up_ns), max(heard.data_ns, up_ns)
        clocks: list[tuple[Cause | None, int, int]] = []
        if liveness.max_silence_ns:
            clocks.append((Cause.SILENCE, frame_ns + liveness.max_silence_ns, frame_ns))
        if liveness.first_data_timeout_ns and heard.data_ns < up_ns:
            clocks.append((Cause.NO_FIRST_DATA, up_ns + liveness.first_data_timeout_ns, up_ns))
        if self._heartbeat is not None:
            beat_ns = max(heard.heartbeat_ns, up_ns)
            if self._heartbeat.idle_only:
                beat_ns = max(beat_ns, data_ns)
            clocks.append((Cause.HEARTBEAT_GAP, beat_ns + self._heartbeat.max_gap_ns, beat_ns))
        if liveness.data_silence_ns:
            clocks.append((None, data_ns + liveness.data_silence_ns, data_ns))
        return clocks


class TopicSilence:
    """Which topics of a connection have fallen silent, and which speak again."""

    def __init__(self, limit_ns: int) -> None:
        self._limit_ns = limit_ns
        self._stale: set[str] = set()

    def scan(
        self, now_ns: int, last_ns: Mapping[str, int], changes_max: int
    ) -> list[tuple[str, bool, int]]:
        """
        Return changes since the last scan: key, whether stale now, age of its data in ns.

        Args:
            now_ns: CLOCK_MONOTONIC.
            last_ns: When each key last had data, same clock.
            changes_max: So many and no more; the rest is left to the next scan.

        """
        changes: list[tuple[str, bool, int]] = []
        for key, heard_ns in last_ns.items():
            age_ns = now_ns - heard_ns
            stale = age_ns >= self._limit_ns
            if stale != (key in self._stale):
                self._stale.symmetric_difference_update((key,))
                changes.append((key, stale, age_ns))
                if len(changes) >= changes_max:
                    break
        return changes
