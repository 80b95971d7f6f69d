"""The order of one thread, free of sockets and buses: what goes out now, and when the table must be asked."""

from collections.abc import Sequence

from m3.events import ThreadEvent

#: Most events that wait for those before them; more than one batch of the recorder brings.
ASIDE = 1_000


class Feed:
    """Lets each number of a thread through once, in order, from a starting point on.

    Announcements may come late, twice or not at all. One that leaves a gap is put aside until what is missing came, or
    the table is asked, which has it all. One that was seen before may be doubled, or the table may have been taken
    back, as by a restored backup: the table is asked too.
    """

    def __init__(self) -> None:
        self._seen: int | None = None
        self._aside: dict[int, ThreadEvent] = {}
        self._heard_of = 0  # the highest number announced
        self._doubted = False

    @property
    def started(self) -> bool:
        return self._seen is not None

    @property
    def seen(self) -> int:
        """The last number that went out."""
        return self._seen or 0

    @property
    def behind(self) -> bool:
        """Whether the table may have what did not come by announcement."""
        return self.started and (self._doubted or bool(self._aside))

    def start(self, head: int) -> None:
        """Everything after the number ``head`` is to go out."""
        self._seen = head
        self._doubted |= bool(self._aside)
        self._aside.clear()
        self._heard_of = 0

    def doubt(self) -> None:
        """Something may have been missed: be behind until the table was asked."""
        self._doubted = True

    def announce(self, event: ThreadEvent) -> list[ThreadEvent]:
        """What goes out now that the event was announced."""
        self._heard_of = max(self._heard_of, event.number)
        if event.number <= self.seen or (len(self._aside) >= ASIDE and event.number > self.seen + 1):
            self.doubt()
            return []
        self._aside[event.number] = event
        passed = self._next()
        if not self._aside and self._heard_of > self.seen:
            self.doubt()
        return passed

    def ask(self) -> int:
        """The number after which to ask the table; what is heard while it answers counts as a new doubt."""
        self._doubted = False
        self._aside.clear()
        return self.seen

    def fill(self, events: Sequence[ThreadEvent]) -> list[ThreadEvent]:
        """What of the table's answer goes out now: all that is new, since the table is the truth and in order. Where
        something is, the table may have more."""
        passed = [event for event in events if event.number > self.seen]
        if passed:
            self._seen = passed[-1].number
            self.doubt()
        return passed

    def _next(self) -> list[ThreadEvent]:
        passed: list[ThreadEvent] = []
        while self._seen is not None and (event := self._aside.pop(self._seen + 1, None)):
            self._seen += 1
            passed.append(event)
        return passed
