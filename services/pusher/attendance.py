"""Who is in which thread, over all pushers: what this one tells the others, and what they told it. Free of buses.

A pusher tells states, never differences, and numbers what it tells: whoever comes new or misses a number asks, and
then everybody tells all that they have. One that was not heard of for a moment counts for nothing, and counts again
when it turns out to have been slow. So the numbers are right within 2 s of any change, and a moment old until then.

A thread is told with all its names, however few of them changed, so the more there was to tell, the longer what
changes after it is gathered.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from uuid import UUID

from m3.events import ANYONE, SocketsCounted, ThreadSockets

#: Seconds between the reports of a pusher where nothing changes.
BEAT = 0.5
#: Seconds after which a pusher that is not heard of counts for nothing: one that misses two beats still counts.
SILENCE = 1.7
#: Seconds for which its sockets keep their places in the thread all the same, since they may only have been slow.
HELD = 5.0
#: Shortest time between the questions of a pusher that misses something, in seconds: everybody answers with all.
ASKING = 1.0
#: Seconds for which is kept what it said, should it only have been slow.
KEPT = 60.0
#: Seconds for which somebody types who does not say so again.
TYPING = 6.0
#: Most names of a thread that a report lists; of who types, as many as anybody is shown.
ROSTER = 500
TYPISTS = 10
#: Bytes of one report, estimated: at most half of the 256 KiB that a body may have.
REPORT = 128 * 1024
#: Bytes a second, estimated, that a pusher tells of changes; and longest that a change waits for that, in seconds:
#: less than until who misses something asks again.
PACE = 256 * 1024
PATIENCE = 0.8


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who is in a thread. ``unlisted``: how many names more there are than are known here; one may count twice."""

    connections: int
    names: frozenset[str]
    unlisted: int
    typing: frozenset[str]


@dataclass(slots=True)
class _Own:
    """This pusher's sockets of a thread; only those with a name are named, and type."""

    connections: int = 0
    names: Counter[str] = field(default_factory=Counter)
    typing: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Other:
    """What another pusher told. ``expected``: the number of its next report; None where something was missed."""

    heard: float
    counts: bool = True
    expected: int | None = None
    threads: dict[str, ThreadSockets] = field(default_factory=dict)


class Attendance:
    """``pusher``: whose it is, a name that no other process ever had. ``now`` is in seconds, of any one clock.

    ``stirred`` is set when there is something to report, or to look for with ``changed``; whoever does that clears it.
    """

    def __init__(self, pusher: UUID) -> None:
        self.stirred = asyncio.Event()
        self._pusher = pusher
        self._own: dict[str, _Own] = {}
        self._others: dict[UUID, _Other] = {}
        self._expiries: dict[tuple[str, str], float] = {}  # until when a name types in a thread, in that order
        self._changed: set[str] = set()
        self._untold: set[str] = set()
        self._number = 0
        self._told = -inf
        self._next = -inf  # when threads may be told again
        self._asked = -inf
        self._anew = True
        self._doubts = True

    def join(self, thread_id: str, name: str) -> None:
        own = self._own.setdefault(thread_id, _Own())
        own.connections += 1
        if name != ANYONE:
            own.names[name] += 1
        self._change(thread_id)

    def leave(self, thread_id: str, name: str) -> None:
        own = self._own[thread_id]
        own.connections -= 1
        if name != ANYONE:
            own.names[name] -= 1
            if not own.names[name]:
                del own.names[name]
                self.stop_typing(thread_id, name)
        if not own.connections:
            del self._own[thread_id]
        self._change(thread_id)

    def type(self, thread_id: str, name: str, now: float) -> None:
        """A name types as long as any of its sockets that are here said so lately. Who gave none is only counted."""
        if name == ANYONE:
            return
        typed = self._expiries.pop((thread_id, name), None)
        self._expiries[thread_id, name] = now + TYPING
        if typed is None:
            self._own[thread_id].typing.add(name)
            self._change(thread_id)

    def stop_typing(self, thread_id: str, name: str) -> None:
        if self._expiries.pop((thread_id, name), None) is not None:
            self._own[thread_id].typing.discard(name)
            self._change(thread_id)

    def connections(self, thread_id: str, now: float) -> int:
        return self._connections(thread_id, now, SILENCE)

    def occupied(self, thread_id: str, now: float) -> int:
        """How many of the places that a thread has for sockets are taken: those of a pusher that fell silent are not
        free at once."""
        return self._connections(thread_id, now, HELD)

    def crowd(self, thread_id: str, now: float) -> Crowd:
        own = self._own.get(thread_id) or _Own()
        elsewhere = list(self._elsewhere(thread_id, now, SILENCE))
        return Crowd(
            own.connections + sum(told.connections for told in elsewhere),
            frozenset(own.names).union(*(told.names for told in elsewhere)),
            sum(told.unlisted for told in elsewhere),
            frozenset(own.typing).union(*(told.typing for told in elsewhere)),
        )

    @property
    def due(self) -> float:
        """When to report, or to look for changes, though nothing stirred."""
        expiries = islice(self._expiries.values(), 1)
        silences = (other.heard + SILENCE for other in self._others.values() if other.counts)
        untold = [self._next] if self._anew or self._untold else []
        return min([self._told + BEAT, *untold, *expiries, *silences])

    def changed(self, now: float) -> set[str]:
        """The threads whose crowd may be another than when this was asked last."""
        while self._expiries and (first := next(iter(self._expiries.items())))[1] <= now:
            self.stop_typing(*first[0])
        for pusher, other in tuple(self._others.items()):
            if other.counts != self._lives(other, now):
                other.counts = not other.counts
                self._changed |= other.threads.keys()
            if now - other.heard > KEPT:
                del self._others[pusher]
        changed, self._changed = self._changed, set()
        return changed

    def hear(self, report: SocketsCounted, now: float) -> None:
        if report.pusher == self._pusher:
            return
        other = self._others.setdefault(report.pusher, _Other(now))
        other.heard = now
        in_order = report.number == other.expected
        other.expected = report.number + 1 if in_order or report.anew else None
        if report.anew and not in_order:
            self._changed |= other.threads.keys()
            other.threads.clear()
        if other.expected is not None:
            for told in report.threads:
                if told != other.threads.pop(told.thread_id, None):
                    self._changed.add(told.thread_id)
                if told.connections:
                    other.threads[told.thread_id] = told
        self._anew |= report.asks
        if self._anew or self._changed or other.expected is None:
            self.stirred.set()

    def doubt(self) -> None:
        """Something may have been missed: ask."""
        self._doubts = True
        self.stirred.set()

    def reports(self, now: float) -> list[SocketsCounted]:
        """What to tell the others by now, which is then taken as told."""
        lost = any(other.expected is None and self._lives(other, now) for other in self._others.values())
        asks = self._doubts or (lost and now - self._asked >= ASKING)
        tells = bool(self._anew or self._untold) and now >= self._next
        if not (tells or asks or now - self._told >= BEAT):
            return []
        anew = tells and self._anew
        threads = self._tell(now) if tells else []
        start = self._number + 1
        reports = [
            SocketsCounted(pusher=self._pusher, number=number, threads=part, anew=anew and number == start, asks=asks)
            for number, part in enumerate(_parts(threads), start)
        ]
        self._number += len(reports)
        self._told = now
        self._asked = now if asks else self._asked
        self._doubts = False
        return reports

    def hurry(self) -> None:
        """What the next reports are to tell waits no longer: they are the last."""
        self._next = -inf

    def _tell(self, now: float) -> list[ThreadSockets]:
        """What the others are to be told of threads, which is then taken as told."""
        untold = self._untold | self._own.keys() if self._anew else self._untold  # also those just left
        threads = list(map(self._here, untold))
        self._next = now + min(sum(map(_length, threads)) / PACE, PATIENCE)
        self._anew = False
        self._untold.clear()
        return threads

    def _change(self, thread_id: str) -> None:
        self._changed.add(thread_id)
        self._untold.add(thread_id)
        self.stirred.set()

    def _here(self, thread_id: str) -> ThreadSockets:
        """To be told to the others."""
        own = self._own.get(thread_id) or _Own()
        return ThreadSockets(
            thread_id=thread_id,
            connections=own.connections,
            names=tuple(islice(own.names, ROSTER)),
            unlisted=max(0, len(own.names) - ROSTER),
            typing=tuple(sorted(own.typing)[:TYPISTS]),
        )

    def _connections(self, thread_id: str, now: float, silence: float) -> int:
        own = self._own.get(thread_id)
        elsewhere = sum(told.connections for told in self._elsewhere(thread_id, now, silence))
        return elsewhere + (own.connections if own else 0)

    def _elsewhere(self, thread_id: str, now: float, silence: float) -> Iterator[ThreadSockets]:
        """What the other pushers have of the thread that were heard of in so many seconds."""
        for other in self._others.values():
            if now - other.heard <= silence and (told := other.threads.get(thread_id)):
                yield told

    @staticmethod
    def _lives(other: _Other, now: float) -> bool:
        return now - other.heard <= SILENCE


def _parts(threads: Iterable[ThreadSockets]) -> Iterator[tuple[ThreadSockets, ...]]:
    """In parts that fit into a body each; at least one, which may be empty."""
    part: list[ThreadSockets] = []
    size = 0
    for thread in threads:
        length = _length(thread)
        if part and size + length > REPORT:
            yield tuple(part)
            part, size = [], 0
        part.append(thread)
        size += length
    yield tuple(part)


def _length(thread: ThreadSockets) -> int:
    """Of what tells of the thread, estimated, in bytes."""
    return 96 + len(thread.thread_id) + sum(len(name.encode()) + 3 for name in (*thread.names, *thread.typing))
