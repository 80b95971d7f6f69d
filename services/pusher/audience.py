"""Who of a thread's sockets is sent what: each frame is built once, and what waits goes out as one write per socket."""

from collections.abc import Iterable

from m3.events import ThreadEvent, TurnNews
from m3.web.raw_frames import text_frame
from services.pusher import frames
from services.pusher.close_codes import Close
from services.pusher.outbox import Outbox


class Audience:
    """The sockets that listen to one thread. ``listeners`` get what is said, ``watchers`` all that happens.

    Frames are gathered until ``flush``, which must come before anybody joins: a flush is for all who listen then.
    """

    def __init__(self) -> None:
        self.listeners: set[Outbox] = set()
        self.watchers: set[Outbox] = set()
        self._for_listeners: list[bytes] = []
        self._for_watchers: list[bytes] = []

    def __len__(self) -> int:
        return len(self.listeners) + len(self.watchers)

    def join(self, outbox: Outbox) -> None:
        (self.watchers if outbox.all_events else self.listeners).add(outbox)

    def leave(self, outbox: Outbox) -> None:
        self.listeners.discard(outbox)
        self.watchers.discard(outbox)

    def gather(self, event: ThreadEvent | TurnNews) -> int:
        """Have it sent with the next flush; nothing is built that nobody gets. Returns how many bytes that makes for a
        socket."""
        size = 0
        if self.watchers:
            extra = [frames.of_turn(event)] if isinstance(event, TurnNews) else frames.for_all_events(event)
            size += _add(map(text_frame, extra), self._for_watchers)
        if not isinstance(event, TurnNews) and len(self):
            size += _add(map(text_frame, frames.for_everyone(event)), self._for_listeners, self._for_watchers)
        return size

    def show(self, *built: str) -> None:
        """Send the frames at once to those who watch."""
        _send(list(map(text_frame, built)), self.watchers)

    def flush(self) -> None:
        _send(self._for_listeners, self.listeners)
        _send(self._for_watchers, self.watchers)

    def close(self, why: Close) -> None:
        for outbox in (*self.listeners, *self.watchers):
            outbox.close(why)


def _add(built: Iterable[bytes], *gathered: list[bytes]) -> int:
    size = 0
    for frame in built:
        size += len(frame)
        for one in gathered:
            one.append(frame)
    return size


def _send(gathered: list[bytes], outboxes: set[Outbox]) -> None:
    together = b"".join(gathered)
    gathered.clear()
    if together:
        for outbox in outboxes:
            outbox.put(together)
