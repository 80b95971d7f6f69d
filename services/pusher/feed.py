"""The order of one thread, free of sockets and buses: what goes out now, and when the table must be asked."""

from collections.abc import Sequence

from m3.events import Message


class Feed:
    """Lets each number of a thread through once, in order, from a starting point on.

    Announcements may come late, twice or not at all. One that leaves a gap is put aside: it is in the table, where
    the gap is filled from, and comes from there in its turn.
    """

    def __init__(self) -> None:
        self._seen: int | None = None  # the last number that went out
        self._heard_of = 0  # the highest number announced
        self._doubted = False

    @property
    def started(self) -> bool:
        return self._seen is not None

    @property
    def behind(self) -> bool:
        """Whether the table may have what did not come by announcement."""
        return self.started and self._doubted

    def start(self, head: int) -> None:
        """Everything after the number ``head`` is to go out."""
        self._seen = head

    def doubt(self) -> None:
        """Something may have been missed: be behind until the table was asked."""
        self._doubted = True

    def announce(self, messages: Sequence[Message]) -> list[Message]:
        """What of the announced messages goes out now."""
        passed = []
        for message in messages:
            self._heard_of = max(self._heard_of, message.seq)
            if self._seen is not None and message.seq == self._seen + 1:
                self._seen = message.seq
                passed.append(message)
        if self._seen is None or self._heard_of > self._seen:
            self.doubt()
        return passed

    def ask(self) -> int:
        """The number after which to ask the table; what is heard while it answers counts as a new doubt."""
        self._doubted = False
        return self._seen or 0

    def fill(self, messages: Sequence[Message]) -> list[Message]:
        """What of the table's answer goes out now: all that is new, since the table is the truth and in order. Where
        something is, the table may have more."""
        seen = self._seen or 0
        passed = [message for message in messages if message.seq > seen]
        if passed:
            self._seen = passed[-1].seq
            self.doubt()
        return passed
