"""The order of one thread, free of sockets and buses: what goes out now, and when the table must be asked."""

from collections.abc import Sequence

from m3.events import Message


class Feed:
    """Lets each number of a thread through once, in order, from a starting point on.

    Announcements may come late, twice or not at all. One that leaves a gap is put aside: it is in the table, where
    the gap is filled from, and comes from there in its turn.
    """

    def __init__(self) -> None:
        self._seen: int | None = None
        self._heard_of = 0

    def start(self, head: int) -> None:
        """Everything after the number ``head`` is to go out."""
        self._seen = head

    @property
    def started(self) -> bool:
        return self._seen is not None

    @property
    def seen(self) -> int:
        """The last number that went out."""
        return self._seen or 0

    @property
    def behind(self) -> bool:
        """Whether the table has what did not come by announcement."""
        return self._seen is not None and self._heard_of > self._seen

    def doubt(self) -> None:
        """Something may have been missed: be behind until the table was asked."""
        self._heard_of = max(self._heard_of, self.seen + 1)

    def announce(self, messages: Sequence[Message]) -> list[Message]:
        """What of the announced messages goes out now."""
        for message in messages:
            self._heard_of = max(self._heard_of, message.seq)
        return self._pass(messages) if self._seen is not None else []

    def fill(self, messages: Sequence[Message]) -> list[Message]:
        """What of the table's next messages goes out now; if nothing does, the table has no more."""
        passed = self._pass(messages)
        if not passed:
            self._heard_of = self.seen
        return passed

    def _pass(self, messages: Sequence[Message]) -> list[Message]:
        passed = []
        for message in messages:
            if message.seq == self.seen + 1:
                self._seen = message.seq
                passed.append(message)
        return passed
