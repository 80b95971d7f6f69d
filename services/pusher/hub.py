"""Which sockets listen to which thread, and what each thread's sockets are sent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby, islice

import structlog

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import Interrupted, StoreUnavailable, UndecodableEvents
from m3.events import Message, MessageRecorded, decode
from m3.store import Store
from m3.tasks import background
from services.pusher.feed import Feed
from services.pusher.frames import new_message
from services.pusher.outbox import Outbox

#: Announcements taken from the bus at a time.
ANNOUNCEMENTS_AT_ONCE = 1_000
#: Messages read from the table at a time to fill a gap; even of the longest, a page fits a socket's outbox.
PAGE = 50
#: Threads whose gaps are filled side by side.
FILLS_AT_ONCE = 8
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

    def push(self, messages: Sequence[Message]) -> None:
        for message in messages:
            frame = new_message(message)
            for outbox in self.outboxes:
                outbox.put(frame)


class Hub:
    def __init__(self, store: Store, subscription: Subscription, linger: float) -> None:
        self._store = store
        self._subscription = subscription
        self._linger = linger
        self._threads: dict[str, _Thread] = {}
        self._behind: dict[_Thread, None] = {}
        self._gap = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus, store: Store, *, linger: float) -> AsyncIterator["Hub"]:
        """Hear announcements while inside the block. ``linger``: seconds that a thread without sockets stays bound."""
        async with bus.subscribe("pusher") as subscription:
            hub = cls(store, subscription, linger)
            async with (
                background("pusher announcements", hub._hear_announcements()),
                background("pusher gaps", hub._fill_gaps()),
                background("pusher unbinding", hub._unbind_idle_threads()),
            ):
                yield hub

    @asynccontextmanager
    async def joined(self, thread_id: str, outbox: Outbox) -> AsyncIterator[int]:
        """Put the thread's messages from now on into the outbox; yields how many listen on this pusher.

        Raises StoreUnavailable when the thread cannot be opened. What the block puts into the outbox before its first
        ``await`` comes before any message.
        """
        thread = self._threads.setdefault(thread_id, _Thread(thread_id))
        thread.members += 1
        try:
            async with thread.opening:
                if not thread.feed.started:
                    await self._start(thread)
            thread.outboxes.add(outbox)
            yield len(thread.outboxes)
        finally:
            thread.outboxes.discard(outbox)
            thread.members -= 1
            thread.idle_since = asyncio.get_running_loop().time()

    async def _start(self, thread: _Thread) -> None:
        """Bind first and read the head then, so that nothing falls between the two."""
        await self._subscription.bind(topology.CHAT_OUT, topology.every_lane(thread.thread_id))
        thread.feed.start(await self._store.head(thread.thread_id))
        self._check(thread)

    async def _hear_announcements(self) -> None:
        while True:
            try:
                for body in await self._subscription.take(ANNOUNCEMENTS_AT_ONCE):
                    self._hear(body)
            except Interrupted:
                for thread in self._threads.values():
                    thread.feed.doubt()
                    self._check(thread)

    def _hear(self, body: bytes) -> None:
        try:
            events = decode(body)
        except UndecodableEvents as error:
            log.warning("announcement not understood", reason=str(error))
            return
        messages = [event.message for event in events if isinstance(event, MessageRecorded)]
        for thread_id, of_thread in groupby(messages, key=lambda message: message.thread_id):
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
                        group.create_task(self._fill(thread), name=f"fill {thread.thread_id}")
                for thread in some:
                    del self._behind[thread]
                    self._check(thread)  # behind the others, if it is not done

    async def _fill(self, thread: _Thread) -> None:
        try:
            messages = await self._store.after(thread.thread_id, thread.feed.ask(), PAGE)
        except StoreUnavailable as error:
            log.warning("gap not filled yet", thread_id=thread.thread_id, reason=str(error))
            thread.feed.doubt()
            await asyncio.sleep(RETRY_INTERVAL)
        else:
            thread.push(thread.feed.fill(messages))

    async def _unbind_idle_threads(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(self._linger, MIN_LINGER))
            idle = [thread for thread in self._threads.values() if not thread.members]
            for thread in idle:
                if not thread.members and now() - thread.idle_since >= self._linger:
                    del self._threads[thread.thread_id]
                    await self._subscription.unbind(topology.CHAT_OUT, topology.every_lane(thread.thread_id))
