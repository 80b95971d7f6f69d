"""Who of a thread's sockets is sent what: each frame is built once, and what waits goes out as one write per socket."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import DEBUG
from typing import get_args

import structlog

from m3 import metrics, topology, tracing
from m3.events import Lane, Message, MessageRecorded, ThreadEvent, TurnNews
from m3.retelling import RunningTurn
from m3.web.raw_frames import text_frame
from services.pusher import frames
from services.pusher.built import built
from services.pusher.close_codes import Close
from services.pusher.outbox import Outbox
from services.pusher.replay import Read, Replay

_push_lags = {lane: metrics.PUSH_LAG.labels(lane) for lane in get_args(Lane)}

log = structlog.get_logger(__name__)


class Audience:
    """The sockets that listen to one thread. ``listeners`` get what is said, ``watchers`` all that happens.

    ``on_gap`` is called where some of the turn that runs was missed.

    Frames are gathered until ``flush``, which must come before anybody joins: a flush is for all who listen then.
    """

    def __init__(self, on_gap: Callable[[], None]) -> None:
        self.listeners: set[Outbox] = set()
        self.watchers: set[Outbox] = set()
        self._turn = RunningTurn(on_gap)
        self._so_far: list[bytes] | None = None  # the frames of it, once somebody came who was sent them
        self._replay: Replay | None = None
        self._for_listeners: list[bytes] = []
        self._for_watchers: list[bytes] = []
        self._said: list[Message] = []  # that is among them

    def __len__(self) -> int:
        return len(self.listeners) + len(self.watchers)

    def join(self, outbox: Outbox) -> None:
        """Have it sent what follows, and where it watches, first what was said in the turn that runs."""
        if not outbox.all_events:
            self.listeners.add(outbox)
            return
        self.watchers.add(outbox)
        if self._so_far is None:
            self._so_far = list(map(text_frame, map(frames.of_turn, self._turn.so_far())))
        if self._so_far and outbox.put_if_roomy(b"".join(self._so_far)):
            metrics.DELIVERIES.inc(len(self._so_far))

    def leave(self, outbox: Outbox) -> None:
        self.listeners.discard(outbox)
        self.watchers.discard(outbox)

    @contextmanager
    def replaying(self, seen: int, read: Read) -> Iterator[Replay]:
        """For who has yet to catch up with the last number that went out: what goes out meanwhile is kept."""
        replay = self._replay = self._replay or Replay(seen, read)
        replay.readers += 1
        try:
            yield replay
        finally:
            replay.readers -= 1
            if not replay.readers and self._replay is replay:
                self._replay = None

    def gather(self, event: ThreadEvent | TurnNews) -> int:
        """Have it sent with the next flush; nothing is built that nobody gets. Returns how many bytes that makes for a
        socket."""
        self._so_far = None
        if isinstance(event, TurnNews):
            return self._gather_news(self._turn.hear(event))
        self._turn.see(event)
        watched = bool(self.watchers or self._replay)
        if not (watched or self.listeners):
            return 0
        one = built(event, watched=watched)
        self._for_listeners.append(one.for_listeners)
        self._for_watchers.append(one.for_watchers)
        if isinstance(event, MessageRecorded):
            self._said.append(event.message)
        if self._replay:
            self._replay.add(one)
        return max(len(one.for_listeners), len(one.for_watchers))

    def _gather_news(self, told: Sequence[TurnNews]) -> int:
        if not self.watchers:
            return 0
        built = [text_frame(frames.of_turn(news)) for news in told]
        self._for_watchers += built
        return sum(map(len, built))

    def show(self, *texts: str) -> None:
        """Send the frames at once to those who watch."""
        _send(list(map(text_frame, texts)), self.watchers)

    def flush(self) -> None:
        _send(self._for_listeners, self.listeners)
        _send(self._for_watchers, self.watchers)
        for message in self._said:
            _push_lags[message.source].observe(metrics.age(message.timestamp))
        if self._said and tracing.followed(log):
            self._follow()
        self._said.clear()

    def _follow(self) -> None:
        """Tell of each message that it went out: how long that took since it was said."""
        for message in self._said:
            tracing.passed("push", message, topology.announced(message.source, message.thread_id), message.timestamp)
        if log.is_enabled_for(DEBUG):
            for message in self._said:
                log.debug("message pushed", **tracing.ids(message), seq=message.seq, sockets=len(self))

    def close(self, why: Close) -> None:
        """Have all closed, also those that catch up: what they were told is not to be told to others."""
        self._turn.forget()
        self._so_far = None
        for outbox in (*self.listeners, *self.watchers):
            outbox.close(why)
        if self._replay:
            self._replay.close(why)
            self._replay = None


def _send(gathered: list[bytes], outboxes: set[Outbox]) -> None:
    together, told = b"".join(gathered), sum(map(bool, gathered))
    gathered.clear()
    if together:
        metrics.DELIVERIES.inc(told * len(outboxes))
        for outbox in outboxes:
            outbox.put(together)
