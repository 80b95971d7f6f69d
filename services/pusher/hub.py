"""Which sockets listen to which thread, and what each thread's sockets are sent."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import groupby, islice

import structlog

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import Interrupted, StoreUnavailable, UndecodableEvents
from m3.events import MessageRecorded, MessageSettled, ThreadEvent, TurnNews, decode
from m3.store import Store
from m3.tasks import background
from services.pusher import frames
from services.pusher.close_codes import TAKEN_BACK, THREAD_FULL
from services.pusher.feed import Feed
from services.pusher.outbox import Closed, Outbox

#: Announcements taken from the bus at a time.
ANNOUNCEMENTS_AT_ONCE = 1_000
#: Bytes pushed until the sockets' writers have their turn.
TURN = 64 * 1024
#: Events read from the table at a time.
PAGE = 50
#: Threads whose gaps are filled side by side.
FILLS_AT_ONCE = 8
#: Sockets that read from the table what they missed, side by side.
READERS_AT_ONCE = 8
#: Shortest time between looks for threads to unbind, in seconds.
MIN_LINGER = 0.1
#: Seconds between attempts while the database is away.
RETRY_INTERVAL = 0.5

log = structlog.get_logger(__name__)


class _Thread:
    """A thread that this pusher hears, or is about to."""

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        self.feed = Feed()
        self.opening = asyncio.Lock()
        self.members = 0  # who listens, and who waits for it to open
        self.outboxes: set[Outbox] = set()
        self.idle_since = 0.0

    def push(self, events: Sequence[ThreadEvent]) -> None:
        watching = self._watching()
        for event in events:
            _put(frames.for_all_events(event), watching)
            _put(frames.for_everyone(event), self.outboxes)

    def show(self, news: TurnNews) -> None:
        """At once, and to who listens just now: it has no number, and the table will have what comes of it."""
        if watching := self._watching():
            _put([frames.of_turn(news)], watching)

    def _watching(self) -> list[Outbox]:
        return [outbox for outbox in self.outboxes if outbox.all_events]


def _put(built: Iterable[str], outboxes: Collection[Outbox]) -> None:
    """``built``: frames, which may be built as they are taken. None is for nobody."""
    if outboxes:
        for frame in built:
            for outbox in outboxes:
                outbox.put(frame)


class Seat:
    """One socket's place in its thread."""

    def __init__(self, hub: "Hub", thread: _Thread, outbox: Outbox) -> None:
        self._hub = hub
        self._thread = thread
        self._outbox = outbox

    @property
    def connections(self) -> int:
        """How many sockets of the thread this pusher has."""
        return self._thread.members

    async def listen(self, after: int | None) -> None:
        """Have what happens from now on put into the outbox; with ``after`` first what happened since that number.

        Returns when nothing more is missing. Raises StoreUnavailable.
        """
        if after is not None:
            await self._catch_up(after)
        self._thread.outboxes.add(self._outbox)  # with no await since the last look at what went out

    async def _catch_up(self, after: int) -> None:
        hub, thread, feed = self._hub, self._thread, self._thread.feed
        head = await hub.check_head(thread)
        if after > head:
            self._outbox.put(frames.reset(thread.thread_id, head))
            after = head
        while head > feed.seen:  # this pusher has not heard of all yet
            await hub.fill(thread)
        while after < (until := feed.seen):
            async with hub.reading:
                page = await hub.store.events_after(thread.thread_id, after, PAGE, until=until)
            for event in page:
                await self._tell(event)
            after = page[-1].number if len(page) == PAGE else until

    async def _tell(self, event: ThreadEvent) -> None:
        """At the pace at which the socket reads: it cannot be too slow for what is long past."""
        extra = frames.for_all_events(event) if self._outbox.all_events else ()
        for frame in (*extra, *frames.for_everyone(event)):
            await self._outbox.empty()
            self._outbox.put(frame)


class Hub:
    def __init__(
        self, store: Store, subscription: Subscription, *, linger: float, sockets_per_thread: int | None
    ) -> None:
        self.store = store
        self.reading = asyncio.Semaphore(READERS_AT_ONCE)
        self._subscription = subscription
        self._linger = linger
        self._sockets_per_thread = sockets_per_thread
        self._threads: dict[str, _Thread] = {}
        self._behind: dict[_Thread, None] = {}
        self._gap = asyncio.Event()
        self._pushed = 0  # since the writers had their turn

    @classmethod
    @asynccontextmanager
    async def open(
        cls, bus: Bus, store: Store, *, linger: float, sockets_per_thread: int | None = None
    ) -> AsyncIterator["Hub"]:
        """Hear announcements while inside the block.

        ``linger``: seconds that a thread without sockets stays bound. ``sockets_per_thread``: how many it may have.
        """
        async with bus.subscribe("pusher") as subscription:
            hub = cls(store, subscription, linger=linger, sockets_per_thread=sockets_per_thread)
            async with (
                background("pusher announcements", hub._hear_announcements()),
                background("pusher gaps", hub._fill_gaps()),
                background("pusher unbinding", hub._unbind_idle_threads()),
            ):
                yield hub

    @asynccontextmanager
    async def joined(self, thread_id: str, outbox: Outbox) -> AsyncIterator[Seat]:
        """Have a seat in the thread, which is heard from here on; nothing is put into the outbox before it listens.

        Raises StoreUnavailable when the thread cannot be opened, and Closed when it has no seat left.
        """
        thread = self._threads.setdefault(thread_id, _Thread(thread_id))
        if thread.members == self._sockets_per_thread:
            raise Closed(THREAD_FULL)
        thread.members += 1
        try:
            async with thread.opening:
                if not thread.feed.started:
                    await self._start(thread)
            yield Seat(self, thread, outbox)
        finally:
            thread.outboxes.discard(outbox)
            thread.members -= 1
            thread.idle_since = asyncio.get_running_loop().time()

    async def _start(self, thread: _Thread) -> None:
        """Bind first and read the head then, so that nothing falls between the two."""
        await self._subscription.bind(topology.CHAT_OUT, topology.every_lane(thread.thread_id))
        thread.feed.start(await self.store.head(thread.thread_id))
        self._check(thread)

    async def _hear_announcements(self) -> None:
        while True:
            try:
                for body in await self._subscription.take(ANNOUNCEMENTS_AT_ONCE):
                    self._hear(body)
                    await self._share_time(len(body))
            except Interrupted:
                for thread in self._threads.values():
                    thread.feed.doubt()
                    self._check(thread)

    async def _share_time(self, pushed: int) -> None:
        """Let the sockets' writers have their turn now and then, or a burst would fill the outboxes of those that keep
        up. ``pushed``: bytes or characters."""
        self._pushed += pushed
        if self._pushed > TURN:
            self._pushed = 0
            await asyncio.sleep(0)

    def _hear(self, body: bytes) -> None:
        try:
            events = decode(body)
        except UndecodableEvents as error:
            log.warning("announcement not understood", reason=str(error))
            return
        for event in events:
            if isinstance(event, TurnNews) and (thread := self._threads.get(event.thread_id)):
                thread.show(event)
        told = [event for event in events if isinstance(event, MessageRecorded | MessageSettled)]
        for thread_id, of_thread in groupby(told, key=lambda event: event.message.thread_id):
            if thread := self._threads.get(thread_id):
                thread.push(thread.feed.announce(list(of_thread)))
                self._check(thread)

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
            for event in page:
                thread.push(feed.fill([event]))
                await self._share_time(len(event.message.content))
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

    async def check_head(self, thread: _Thread) -> int:
        """The thread's head in the table. One that ends before what went out was taken back: its sockets are to come
        again. Raises StoreUnavailable."""
        seen = thread.feed.seen  # before the table is asked, since more may go out meanwhile
        head = await self.store.head(thread.thread_id)
        if head < seen:
            log.warning("thread taken back", thread_id=thread.thread_id, seen=seen, head=head)
            thread.feed.start(head)
            for outbox in thread.outboxes:
                outbox.close(TAKEN_BACK)
        return head

    async def _unbind_idle_threads(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(self._linger, MIN_LINGER))
            idle = [thread for thread in self._threads.values() if not thread.members]
            for thread in idle:
                if not thread.members and now() - thread.idle_since >= self._linger:
                    del self._threads[thread.thread_id]
                    await self._subscription.unbind(topology.CHAT_OUT, topology.every_lane(thread.thread_id))
