"""Overlap: two sessions bring the same messages; each is to be delivered once, in order.

Pure. Matched as a multiset: an arrival on one side cancels at most one of the other side, never one
of its own, so that a genuine repeat within a session is delivered as often as the exchange said it
there. Of a message, ``max(times on one side, times on the other)`` copies are delivered.

What a stream said before the other joined must cancel nothing of later. Two arrivals are the same
message only if they are at most ``window_ns`` apart. One stream may be ahead by that much, so a
text that repeats within two windows could be taken for the one before; what the first stream said
is kept for four, so two of such a text are there when the second stream begins. They do not tell
where the streams meet; a message that comes once does, and then they are matched by what stands
before and behind it. Where there is none they are doubled rather than lost.

A side that joins a stream may be ahead of the other one: what it brings is held back until the
first message that both have, then it is delivered in its place. From then on the first arrival of a
message is the one that is delivered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

Item = tuple[bytes, bool, int, int]  # payload, is text, CLOCK_MONOTONIC and CLOCK_REALTIME ns
NONE: tuple[Item, ...] = ()
ENTRY_BYTES = 250  # a key in a dict with its list, beside the key itself; measured with 3.11
SMOOTHING = 64  # arrivals that the mean lag remembers
FOREVER_NS = 1 << 62
KEPT_WINDOWS = 4
HOLD_NS = 1_000_000_000  # then the two have nothing in common, or not in that order


@dataclass(slots=True)
class Side:
    """
    One of the two sessions.

    Attributes:
        present: Whether it has a session, after ``join`` and before ``leave``.
        waiting: What came here first, by key: when; oldest first.
        wins: Messages of the other side that had come here before.
        lag_ns: By how much the latest of its own that came second was late; ``lag_mean_ns``: the
            mean of the last 64 or so.
        first_ns: Since when both bring the same; ``last_ns``: when its latest message came that the
            other side has too, 0 for none since one of them joined.

    """

    present: bool = False
    waiting: dict[bytes, list[int]] = field(default_factory=dict)
    wins: int = 0
    lag_ns: int = 0
    lag_mean_ns: int = 0
    first_ns: int = FOREVER_NS
    last_ns: int = 0


class Overlap:
    """
    The memory of two sessions.

    Args:
        bytes_max: Of what it may hold: keys that wait for the other side, messages held back.
        window_ns: For so long a message of one side is the same as one of the other.
        hold_ns: For so long messages are held back at most.

    Attributes:
        sides: The two.
        duplicates: Messages left out, since the other side had brought them.
        unmatched: Messages delivered that only one side brought while both did bring some.
        overflows: Messages forgotten before their time: their twins were, or will be, delivered.

    """

    def __init__(self, bytes_max: int, window_ns: int, hold_ns: int = HOLD_NS) -> None:
        self._bytes_max, self._window_ns, self._hold_ns = bytes_max, window_ns, hold_ns
        self.sides = (Side(), Side())
        self.duplicates = self.unmatched = self.overflows = 0
        self._bytes = 0
        self._held: list[tuple[bytes, Item]] = []  # with their keys
        self._repeating: set[bytes] = set()  # keys that do not tell where the streams meet
        self._joining: int | None = None  # the side whose messages are held back
        self._joined, self._joined_ns = 0, 0  # the side that joined last, and when
        self._both_ns = FOREVER_NS  # when that brought its first message

    def join(self, number: int, now_ns: int, *, hold: bool) -> None:
        """
        Expect messages of a side from now on.

        Args:
            number: 0 or 1.
            now_ns: CLOCK_MONOTONIC; no message of the side came before it.
            hold: Whether the other side carries the stream that this one joins.

        """
        side, other = self.sides[number], self.sides[1 - number]
        side.present = True
        side.first_ns, other.first_ns = now_ns, FOREVER_NS
        side.last_ns = other.last_ns = 0
        self._joined, self._joined_ns, self._both_ns = number, now_ns, FOREVER_NS
        if hold:
            self._joining = number

    def stood(self, pause_ns: int) -> None:
        """
        Take that nothing was read for so long: all that came before counts as so much younger.

        What one side brought before a pause may have its twin in the other's socket.
        """
        self._joined_ns += pause_ns
        self._both_ns = _later(self._both_ns, pause_ns)
        for side in self.sides:
            side.first_ns = _later(side.first_ns, pause_ns)
            side.last_ns += pause_ns if side.last_ns else 0
            for times in side.waiting.values():
                times[:] = [moment + pause_ns for moment in times]

    def leave(self, number: int) -> Sequence[Item]:
        """Take that a side's session has ended; return what is to be delivered now."""
        other = self.sides[1 - number]
        self.sides[number].present = False
        for key, times in other.waiting.items():
            self._free(key, len(times))
            self.unmatched += sum(1 for moment in times if self._counts(1 - number, moment))
        other.waiting.clear()
        return self.release()

    def release(self) -> Sequence[Item]:
        """Hold nothing back any more; return what was, to be delivered now."""
        held = self._let_go()
        for waiting in (self.sides[0].waiting, self.sides[1].waiting):
            for key in self._repeating & waiting.keys():
                self._free(key, len(waiting.pop(key)))
        self._repeating.clear()
        return [item for _key, item in held]

    def _let_go(self) -> list[tuple[bytes, Item]]:
        self._joining = None
        held, self._held = self._held, []
        self._bytes -= sum(len(item[0]) for _key, item in held)
        return held

    def _meet(self, met: bytes, until_ns: int) -> Sequence[Item]:
        """
        Return what was held back: the streams have met.

        Args:
            met: The message that both have.
            until_ns: When it came from the side that had carried the stream.

        """
        joined, carrier = self.sides[self._joined], self.sides[1 - self._joined].waiting
        deliver: list[Item] = []
        is_before = True
        for key, item in self._let_go():
            is_before = is_before and key != met
            if key in self._repeating:
                times = carrier.get(key)
                if is_before and times and times[0] <= until_ns:
                    times.pop(0)
                    self._free(key, 1)
                    self.duplicates += 1
                    continue
                self._await(joined, key, item[2])
            deliver.append(item)
        for key in self._repeating & carrier.keys():
            later = [moment for moment in carrier[key] if moment > until_ns]
            self._free(key, len(carrier[key]) - len(later))
            carrier[key] = later
            if not later:
                del carrier[key]
        self._repeating.clear()
        return deliver

    def arrived(self, number: int, key: bytes, item: Item) -> Sequence[Item]:
        """
        Take a message that came on a side; return what is to be delivered now, in order.

        Args:
            number: 0 or 1.
            key: What the same message has in common on both sides.
            item: The message.

        """
        if self._both_ns == FOREVER_NS and number == self._joined:
            self._begin_both(item[2])
        is_telling = key not in self._repeating
        times = self.sides[1 - number].waiting.get(key) if is_telling else None
        if times is not None and (moment := self._match(number, key, times, item[2])):
            if self._joining is None or (self._joining != number and moment < self._joined_ns):
                return NONE
            return self._meet(key, moment if self._joining == number else item[2])
        if is_telling or self._joining != number:
            self._await(self.sides[number], key, item[2])
        if self._joining == number:
            self._held.append((key, item))
            self._bytes += len(item[0])
            return self._trim()
        if self._bytes > self._bytes_max:
            return (*self._trim(), item)
        return (item,)

    def _await(self, side: Side, key: bytes, now_ns: int) -> None:
        side.waiting.setdefault(key, []).append(now_ns)
        self._bytes += len(key) + ENTRY_BYTES

    def _begin_both(self, now_ns: int) -> None:
        """The side that joined brings its first message: see what is known to repeat."""
        self._both_ns = now_ns
        waiting = self.sides[1 - self._joined].waiting
        self._repeating = {key for key, times in waiting.items() if len(times) > 1}
        if self._joining is None:
            self.release()

    def _match(self, number: int, key: bytes, times: list[int], now_ns: int) -> int:
        """Cancel the oldest of the other side that it may be; return when that came, 0 if none."""
        late, early = self.sides[number], self.sides[1 - number]
        moment = 0
        while times and not moment:
            moment = times.pop(0)
            self._free(key, 1)
            if now_ns - moment > self._window_ns:
                self.unmatched += self._counts(1 - number, moment)
                moment = 0
        if not times:
            del early.waiting[key]
        if not moment:
            return 0
        self.duplicates += 1
        early.wins += 1
        late.lag_ns = now_ns - moment
        late.lag_mean_ns += (late.lag_ns - late.lag_mean_ns) // SMOOTHING
        early.first_ns, early.last_ns = min(early.first_ns, moment), max(early.last_ns, moment)
        late.first_ns, late.last_ns = min(late.first_ns, now_ns), now_ns
        return moment

    def expire(self, now_ns: int) -> Sequence[Item]:
        """
        Forget what waits for longer than it is kept, hold nothing back for longer than allowed.

        Call it on a timer with CLOCK_MONOTONIC; returns what is to be delivered now.
        """
        before_ns = now_ns - KEPT_WINDOWS * self._window_ns
        for number, side in enumerate(self.sides):
            while side.waiting and next(iter(side.waiting.values()))[0] < before_ns:
                self._forget_oldest(number)
        return self.release() if now_ns - self._both_ns >= self._hold_ns else NONE

    def _trim(self) -> Sequence[Item]:
        """Stay within the memory allowed; return what is to be delivered for it."""
        released: Sequence[Item] = NONE
        if self._bytes > self._bytes_max and self._held:
            self.overflows += 1
            released = self.release()
        while self._bytes > self._bytes_max:
            longer = max((0, 1), key=lambda number: len(self.sides[number].waiting))
            if not self.sides[longer].waiting:
                break
            self._forget_oldest(longer)
            self.overflows += 1
        return released

    def _forget_oldest(self, number: int) -> None:
        waiting = self.sides[number].waiting
        key = next(iter(waiting))
        times = waiting.pop(key)
        self.unmatched += self._counts(number, times.pop(0))
        if times:
            waiting[key] = times
        self._free(key, 1)

    def _free(self, key: bytes, count: int) -> None:
        self._bytes -= count * (len(key) + ENTRY_BYTES)

    def _counts(self, number: int, moment: int) -> bool:
        """
        Return whether a message that stayed without a twin lies where both sides brought some.

        What a stream brought before the other joined, or after it left, has no twin by nature.
        """
        side = self.sides[number]
        if side.last_ns:
            return side.first_ns <= moment < side.last_ns
        return moment >= self._both_ns


def _later(moment_ns: int, by_ns: int) -> int:
    return moment_ns if moment_ns == FOREVER_NS else moment_ns + by_ns
