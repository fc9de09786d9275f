"""Dialogue: what is said to the exchange in one session, and which answers are still awaited.

Pure. A welcome is waited for first, where there is one; then logins and subscriptions leave at the
pace of the outbox; then every subscription may have to be answered. Later changes of the
subscription go the same way.
"""

from worker.outbox import Outbox
from worker.spec import SubscribeSpec
from worker.subscription import Change, change, opening_messages


class Dialogue:
    """
    One open session's.

    Args:
        wanted: What to subscribe, and how it is answered.
        outbox: Where what is said waits for its turn; it must be empty.
        logins: Messages to say before anything is subscribed.

    Attributes:
        awaiting_ready: Whether the exchange has still to open with its welcome.

    """

    def __init__(self, wanted: SubscribeSpec, outbox: Outbox, logins: tuple[bytes, ...]) -> None:
        self._wanted, self._outbox = wanted, outbox
        self._outbox.add(*logins)
        self.awaiting_ready = wanted.ready is not None
        self._said = 0  # subscriptions, for their ${seq}
        self._unanswered = 0
        self._answers_due_ns: int | None = None

    @property
    def awaiting_acks(self) -> bool:
        """Whether an answer to a subscription would mean anything."""
        return self._unanswered > 0

    @property
    def is_over(self) -> bool:
        """Whether all is said and answered."""
        return not (self.awaiting_ready or self._outbox or self._unanswered)

    @property
    def deadline_ns(self) -> int | None:
        """When to ``speak``, or to ask ``is_overdue``; CLOCK_MONOTONIC, ``None`` for never."""
        if self.awaiting_ready:
            return None
        due = (self._outbox.deadline_ns, self._answers_due_ns)
        return min((moment for moment in due if moment is not None), default=None)

    def begin(self) -> None:
        """Subscribe: the welcome has come, or there is none."""
        self.awaiting_ready = False
        self._say(opening_messages(self._wanted))

    def speak(self, now_ns: int) -> tuple[bytes, ...]:
        """Return what may be said now. The time for answers runs once all is said."""
        if self.awaiting_ready:
            return ()
        texts = self._outbox.take(now_ns)
        ack = self._wanted.ack
        if ack is not None and not self._outbox and self._unanswered:
            self._answers_due_ns = self._answers_due_ns or now_ns + ack.timeout_ns
        return texts

    def take_answer(self) -> bool:
        """Take the answer to one subscription; return whether one was awaited."""
        if not self._unanswered:
            return False
        self._unanswered -= 1
        if not self._unanswered and not self._outbox:
            self._answers_due_ns = None
        return True

    def is_overdue(self, now_ns: int) -> bool:
        """Return whether answers should have come by now."""
        return self._answers_due_ns is not None and now_ns >= self._answers_due_ns

    def give_up(self) -> None:
        """Wait for no answer any more."""
        self._unanswered, self._answers_due_ns = 0, None

    def change(self, wanted: SubscribeSpec) -> Change | None:
        """Have another subscription; return how, ``None`` if that takes a new session."""
        found = change(self._wanted, wanted, self._said + 1)
        if found is not None:
            self._wanted = wanted
            self._say(found.messages)
        return found

    def _say(self, messages: tuple[bytes, ...]) -> None:
        self._said += len(messages)
        if self._wanted.ack is not None:
            self._unanswered += len(messages)
        self._outbox.add(*messages)
