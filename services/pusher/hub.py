"""Which sockets listen to which thread, and what each thread's sockets are sent.

Nothing waits for a socket here. What is announced goes out at once; what piled up meanwhile goes out together.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from math import inf

import structlog

from m3 import metrics, topology
from m3.bus import Bus, Subscription
from m3.errors import Interrupted, StoreUnavailable, UndecodableEvents
from m3.events import ThreadEvent, TurnNews, decode
from m3.frames import text
from m3.retelling import Retellings
from m3.store import Store
from m3.tasks import background
from services.pusher import frames, presence
from services.pusher.attendance import Attendance
from services.pusher.audience import Audience
from services.pusher.built import Built
from services.pusher.close_codes import Close, Closed
from services.pusher.feed import Feed
from services.pusher.neighbours import attending, tell
from services.pusher.outbox import Outbox
from services.pusher.presence import Presence

#: Announcements taken from the bus at a time.
ANNOUNCEMENTS_AT_ONCE = 1_000
#: Bytes gathered for a socket until they are flushed, and others have their turn: far less than a socket's buffer,
#: which a burst must not fill.
FLUSH = 64 * 1024
#: Events read from the table at a time.
PAGE = 200
#: Threads whose gaps are filled side by side.
FILLS_AT_ONCE = 8
#: Sockets that read from the table what they missed, side by side.
READERS_AT_ONCE = 8
#: Seconds in which a thread must be opened for a socket, and looked into for one that catches up.
OPEN_TIMEOUT = 10.0
#: Seconds in which a socket that catches up must take what it is sent, a flush at a time.
DRAIN_TIMEOUT = 10.0
#: Seconds for which changes of who is here are gathered.
GATHERING = 0.05
#: Shortest time between looks for threads to unbind, in seconds.
MIN_LINGER = 0.1
#: Seconds between attempts while the database is away.
RETRY_INTERVAL = 0.5

log = structlog.get_logger(__name__)


class _Thread:
    """A thread that this pusher hears, or is about to."""

    def __init__(self, thread_id: str, retellings: Retellings) -> None:
        self.thread_id = thread_id
        self.feed = Feed()
        self.audience = Audience(on_gap=partial(retellings.want, thread_id))
        self.presence: Presence | None = None  # until somebody watches
        self.opening = asyncio.Lock()
        self.looking = asyncio.Lock()
        self.looked = -inf, 0  # when the last look into the table began, and the head that it found
        self.members = 0  # who listens, and who waits for it to open
        self.idle_since = 0.0


class Seat:
    """One socket's place in its thread."""

    def __init__(self, hub: "Hub", thread: _Thread, outbox: Outbox, name: str) -> None:
        self._hub = hub
        self._thread = thread
        self.outbox = outbox
        self._name = name
        self._taken = True

    @property
    def connections(self) -> int:
        """How many sockets the thread has, on all pushers."""
        return self._hub.attendance.connections(self._thread.thread_id, _now())

    @property
    def head(self) -> int:
        """The thread's last number that this pusher has heard of."""
        return self._thread.feed.seen

    def type(self, *, active: bool) -> None:
        """Whoever has the socket types, or stopped."""
        if active:
            self._hub.attendance.type(self._thread.thread_id, self._name, _now())
        else:
            self._hub.attendance.stop_typing(self._thread.thread_id, self._name)

    def listen(self) -> None:
        """Have what happens from now on put into the outbox, and who is here just now."""
        thread, audience = self._thread, self._thread.audience
        if not self._taken:  # the client went while it caught up
            return
        audience.join(self.outbox)
        if self.outbox.all_events:
            crowd = self._hub.attendance.crowd(thread.thread_id, _now())
            if len(audience.watchers) == 1:
                thread.presence = Presence(thread.thread_id, crowd)
            for frame in presence.opening(thread.thread_id, crowd):
                self.outbox.tell(text(frame))

    def leave(self) -> None:
        """Give the seat up, once."""
        if self._taken:
            self._taken = False
            self._thread.audience.leave(self.outbox)
            self._thread.members -= 1
            self._thread.idle_since = _now()
            self._hub.attendance.leave(self._thread.thread_id, self._name)

    async def catch_up(self, after: int) -> None:
        """Have what happened since that number put into the outbox, and listen when nothing more is missing.

        Raises StoreUnavailable, and Closed where the socket does not take it in time.
        """
        hub, thread, feed = self._hub, self._thread, self._thread.feed
        head = await hub.look(thread)
        if after > head:
            self.outbox.tell(frames.reset(thread.thread_id, head))
            after = head
        if after > feed.seen:  # since a moment ago
            raise Closed(Close.TAKEN_BACK)
        with thread.audience.replaying(feed.seen, partial(hub.read, thread.thread_id)) as replay:
            while page := await replay.page(after):
                await self._tell(page)
                after = page[-1].number
            self._put(replay.rest(after))
            self.listen()  # with no await since the last look at what there is

    async def _tell(self, page: Sequence[Built]) -> None:
        """At the pace at which the socket reads: it cannot be too slow for what is long past."""
        part: list[Built] = []
        size = 0
        for one in page:
            part.append(one)
            size += len(one.for_watchers)
            if size > FLUSH:
                self._put(part)
                await self._drain()
                part, size = [], 0
        self._put(part)
        await self._drain()

    def _put(self, part: Iterable[Built]) -> None:
        outbox = self.outbox.unbounded()
        told = [bytes_ for one in part if (bytes_ := one.bytes_for(all_events=outbox.all_events))]
        if told:
            metrics.DELIVERIES.inc(len(told))
            outbox.put(b"".join(told))

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await self.outbox.drain()
        except TimeoutError as error:
            raise Closed(Close.SLOW) from error


class Hub:
    def __init__(  # noqa: PLR0913  # what its threads live on
        self,
        store: Store,
        subscription: Subscription,
        retellings: Retellings,
        attendance: Attendance,
        *,
        linger: float,
        sockets_per_thread: int | None,
    ) -> None:
        self.store = store
        self._retellings = retellings
        self.attendance = attendance
        self._reading = asyncio.Semaphore(READERS_AT_ONCE)
        self._subscription = subscription
        self._linger = linger
        self._sockets_per_thread = sockets_per_thread
        self._threads: dict[str, _Thread] = {}
        self._behind: dict[_Thread, None] = {}
        self._gap = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, bus: Bus, store: Store, *, linger: float, sockets_per_thread: int | None = None
    ) -> AsyncIterator["Hub"]:
        """Hear announcements while inside the block.

        ``linger``: seconds that a thread without sockets stays bound. ``sockets_per_thread``: how many it may have, on
        all pushers; those that come at the same moment to several of them may be a few more.
        """
        async with attending(bus) as attendance, bus.subscribe("pusher") as subscription:
            retellings = Retellings(bus, subscription)
            hub = cls(store, subscription, retellings, attendance, linger=linger, sockets_per_thread=sockets_per_thread)
            async with (
                background("pusher announcements", hub._hear_announcements()),
                background("pusher gaps", hub._fill_gaps()),
                background("pusher retellings", retellings.run()),
                background("pusher presence", hub._tell_presence(bus)),
                background("pusher unbinding", hub._unbind_idle_threads()),
            ):
                with metrics.counted((metrics.THREADS, hub._threads.__len__)):
                    yield hub

    @asynccontextmanager
    async def joined(self, thread_id: str, outbox: Outbox, name: str) -> AsyncIterator[Seat]:
        """Have a seat in the thread under that name; nothing is put into the outbox before it listens.

        Raises StoreUnavailable when the thread cannot be opened, and Closed when it has no seat left.
        """
        limit = self._sockets_per_thread
        if limit is not None and self.attendance.occupied(thread_id, _now()) >= limit:
            raise Closed(Close.THREAD_FULL)
        thread = self._threads.setdefault(thread_id, _Thread(thread_id, self._retellings))
        thread.members += 1
        self.attendance.join(thread_id, name)
        seat = Seat(self, thread, outbox, name)
        try:
            async with _opened_in_time(), thread.opening:
                if not thread.feed.started:
                    await self._start(thread)
            yield seat
        finally:
            seat.leave()

    async def _start(self, thread: _Thread) -> None:
        """Bind first and read the head then, so that nothing falls between the two. What is announced is opened with
        the thread's key, which is fetched now: nobody waits for the table where announcements are heard."""
        await self._subscription.bind(topology.CHAT_OUT, topology.every_lane(thread.thread_id))
        await self.store.content.prepare(thread.thread_id)
        self._retellings.want(thread.thread_id)
        thread.feed.start(await self.store.head(thread.thread_id))
        self._check(thread)

    async def _hear_announcements(self) -> None:
        while True:
            try:
                bodies = await self._subscription.take(ANNOUNCEMENTS_AT_ONCE)
            except Interrupted:
                for thread in self._threads.values():
                    thread.feed.doubt()
                    self._check(thread)
                self._retellings.want(*self._threads)
            else:
                await self._push(bodies)

    async def _push(self, bodies: Sequence[bytes]) -> None:
        """What is there is pushed together, one write for each socket of a thread, up to FLUSH at a time."""
        heard: dict[_Thread, None] = {}
        gathered = 0
        for body in bodies:
            for thread, event in self._opened(self._understood(body)):
                heard[thread] = None
                gathered += _gather(thread, event)
            if gathered > FLUSH:
                _flush(heard)
                gathered = 0
                await asyncio.sleep(0)
        _flush(heard)
        for thread in heard:
            self._check(thread)  # only now, since what is missing may come in the next body

    def _understood(self, body: bytes) -> list[ThreadEvent | TurnNews]:
        """What is in it about the threads that this pusher hears."""
        try:
            events = decode(body)
        except UndecodableEvents as error:
            log.warning("announcement not understood", reason=str(error))
            return []
        told = [event for event in events if isinstance(event, ThreadEvent | TurnNews)]
        return [event for event in told if _thread_id(event) in self._threads]

    def _opened(self, events: Sequence[ThreadEvent | TurnNews]) -> list[tuple[_Thread, ThreadEvent | TurnNews]]:
        """The events with their threads. Where the key of one is not at hand, as of a thread that had none when it was
        opened, the table is asked, which brings the key too."""
        opened = self.store.content.opened_now(events)
        if opened is None:
            for event in events:
                thread = self._threads[_thread_id(event)]
                thread.feed.doubt()
                self._check(thread)
            return []
        return [(self._threads[_thread_id(event)], event) for event in opened]

    def _check(self, thread: _Thread) -> None:
        if thread.feed.behind:
            self._behind[thread] = None
            self._gap.set()

    async def _fill_gaps(self) -> None:
        while True:
            await self._gap.wait()
            self._gap.clear()
            while self._behind:
                some = list(islice(self._behind, FILLS_AT_ONCE))
                async with asyncio.TaskGroup() as group:
                    for thread in some:
                        group.create_task(self.fill(thread), name=f"fill {thread.thread_id}")
                for thread in some:
                    del self._behind[thread]
                    self._check(thread)  # behind the others, if it is not done

    async def fill(self, thread: _Thread) -> None:
        """Push what the table has and was not announced, a page at most."""
        feed = thread.feed
        try:
            head = await self.check_head(thread)
            asked = feed.ask()
            page = await self.store.events_after(thread.thread_id, asked, PAGE)
            new = (passed for event in page for passed in feed.fill([event]))  # as it is then, since others push too
            await _flushed(thread.audience, new, partial(asyncio.sleep, 0))
            if not page and feed.seen == asked < head:
                feed.start(head)  # somebody took rows out of the table
        except StoreUnavailable as error:
            log.warning("gap not filled yet", thread_id=thread.thread_id, reason=str(error))
            feed.doubt()
            await asyncio.sleep(RETRY_INTERVAL)
        except asyncio.CancelledError:
            feed.doubt()  # by a socket that went away; others still wait for the answer
            raise
        finally:
            self._check(thread)

    async def read(self, thread_id: str, after: int, until: int) -> Sequence[ThreadEvent]:
        """What happened in the thread between two numbers. Raises StoreUnavailable."""
        async with self._reading:
            return await self.store.events_after(thread_id, after, until - after, until=until)

    async def look(self, thread: _Thread) -> int:
        """The thread's head in the table, when all up to it went out. One look is for all who came before it began.
        Raises StoreUnavailable."""
        came = _now()
        async with _opened_in_time(), thread.looking:
            began, head = thread.looked
            if came >= began:
                began = _now()
                head = await self.check_head(thread)
                thread.looked = began, head
            while head > thread.feed.seen:  # this pusher has not heard of all yet
                await self.fill(thread)
        return head

    async def check_head(self, thread: _Thread) -> int:
        """The thread's head in the table. One that ends before what went out was taken back: its sockets are to come
        again. Raises StoreUnavailable."""
        seen = thread.feed.seen  # before the table is asked, since more may go out meanwhile
        head = await self.store.head(thread.thread_id)
        if head < seen:
            log.warning("thread taken back", thread_id=thread.thread_id, seen=seen, head=head)
            thread.feed.start(head)
            thread.audience.close(Close.TAKEN_BACK)
        return head

    async def _tell_presence(self, bus: Bus) -> None:
        """Tell the other pushers of our sockets, and our sockets that watch of everybody's."""
        changed: set[str] = set()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(_now() if changed else self.attendance.due):
                    await self.attendance.stirred.wait()
            await asyncio.sleep(GATHERING)
            self.attendance.stirred.clear()
            await tell(bus, self.attendance)
            changed |= self.attendance.changed(_now())
            enough = _now() + GATHERING  # the others must hear of this pusher, however many threads changed
            for thread_id in tuple(changed):
                if self._show_presence(thread_id):
                    changed.discard(thread_id)
                    await asyncio.sleep(0)
                if _now() > enough:
                    break

    def _show_presence(self, thread_id: str) -> bool:
        """To whoever watches the thread; returns whether that was done, or is to be done later."""
        thread, now = self._threads.get(thread_id), _now()
        if thread is None or thread.presence is None or not thread.audience.watchers:
            return True
        if not thread.presence.ready(now):
            return False
        shown = thread.presence.tell(self.attendance.crowd(thread_id, now), len(thread.audience.watchers), now)
        thread.audience.show(*map(text, shown))
        return True

    async def _unbind_idle_threads(self) -> None:
        while True:
            await asyncio.sleep(max(self._linger, MIN_LINGER))
            idle = [thread for thread in self._threads.values() if not thread.members]
            for thread in idle:
                if not thread.members and _now() - thread.idle_since >= self._linger:
                    del self._threads[thread.thread_id]
                    await self._subscription.unbind(topology.CHAT_OUT, topology.every_lane(thread.thread_id))


@asynccontextmanager
async def _opened_in_time() -> AsyncIterator[None]:
    """Whoever waits for a thread comes back later, rather than stand in line at a database that does not answer."""
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            yield
    except TimeoutError as error:
        raise StoreUnavailable("The thread was not opened in time.") from error


def _now() -> float:
    return asyncio.get_running_loop().time()


def _thread_id(event: ThreadEvent | TurnNews) -> str:
    return event.thread_id if isinstance(event, TurnNews) else event.message.thread_id


def _gather(thread: _Thread, event: ThreadEvent | TurnNews) -> int:
    """News of turns go to who listens just now: they have no number, and the table will have what comes of them."""
    passed = [event] if isinstance(event, TurnNews) else thread.feed.announce(event)
    return sum(thread.audience.gather(one) for one in passed)


def _flush(threads: Iterable[_Thread]) -> None:
    for thread in threads:
        thread.audience.flush()


async def _flushed(audience: Audience, events: Iterable[ThreadEvent], between: Callable[[], Awaitable[None]]) -> None:
    """Send the events, up to FLUSH at a time."""
    gathered = 0
    for event in events:
        gathered += audience.gather(event)
        if gathered > FLUSH:
            audience.flush()
            gathered = 0
            await between()
    audience.flush()
