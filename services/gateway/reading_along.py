"""What the agent does in threads whose callers read along. News only: what is lost of it is in the reply."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import product
from uuid import UUID

import structlog

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import Interrupted, StoreUnavailable, UndecodableEvents
from m3.events import ReplyGrew, TurnNews, TurnStarted, decode, reply_id
from m3.retelling import Retellings, RunningTurn
from m3.sealing import Content
from m3.store import Store
from m3.tasks import background

#: News taken from the bus at a time.
NEWS_AT_ONCE = 1_000
#: News that may wait for one caller.
WAITING = 1_000
#: Shortest time between looks for threads to unbind, in seconds.
MIN_LINGER = 0.1
#: Seconds to wait until the broker brings a thread's news. After them a caller goes on, and may miss the first of it.
BIND_TIMEOUT = 0.4

log = structlog.get_logger(__name__)


class Reader:
    """The news of one message's turns, for one caller."""

    def __init__(self, message_id: UUID) -> None:
        self._message_id = message_id
        self._reply_id = reply_id(message_id)  # unless a turn answers it together with others
        self._waiting: deque[TurnNews] = deque()
        self._changed = asyncio.Event()
        self._ended = False

    def hear(self, news: TurnNews) -> None:
        """Never waits: where the caller does not keep up the oldest pieces of the reply are dropped."""
        if isinstance(news, TurnStarted) and self._message_id in news.in_reply_to:
            self._reply_id = news.reply_id
        elif news.reply_id != self._reply_id or isinstance(news, TurnStarted):
            return
        if len(self._waiting) == WAITING:
            pieces = (place for place, waiting in enumerate(self._waiting) if isinstance(waiting, ReplyGrew))
            del self._waiting[next(pieces, 0)]
        self._waiting.append(news)
        self._changed.set()

    def end(self) -> None:
        """Have no more after what waits."""
        self._ended = True
        self._changed.set()

    async def next(self) -> TurnNews | None:
        """Wait for news; None at the end."""
        while not self._waiting:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class _Thread:
    def __init__(self, on_gap: Callable[[], None]) -> None:
        self.readers: set[Reader] = set()
        self.turn = RunningTurn(on_gap)
        self.binding = asyncio.Lock()
        self.bound = False
        self.ready = False  # with the thread's key, and its turn asked for
        self.idle_since = 0.0


class ReadingAlong:
    def __init__(self, bus: Bus, subscription: Subscription, content: Content, linger: float) -> None:
        self._subscription = subscription
        self._retellings = Retellings(bus, subscription)
        self._content = content
        self._linger = linger
        self._threads: dict[str, _Thread] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus, store: Store, *, linger: float) -> AsyncIterator["ReadingAlong"]:
        """Hear of turns while inside the block. ``linger``: seconds that a thread stays bound that nobody reads along,
        since whoever does will do so again."""
        async with bus.subscribe("gateway.turns") as subscription:
            reading = cls(bus, subscription, store.content, linger)
            async with (
                background("gateway turns", reading._hear_turns()),
                background("gateway retellings", reading._retellings.run()),
                background("gateway unbinding", reading._unbind_unread()),
            ):
                yield reading

    @asynccontextmanager
    async def reader(self, thread_id: str, message_id: UUID) -> AsyncIterator[Reader]:
        """Hear of the message's turns while inside the block, of one that runs from its start; to be entered before the
        message is handed in."""
        thread = self._threads.setdefault(thread_id, _Thread(partial(self._retellings.want, thread_id)))
        reader = Reader(message_id)
        for news in thread.turn.so_far():
            reader.hear(news)
        thread.readers.add(reader)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(BIND_TIMEOUT):
                    await self._bind(thread_id, thread)
            yield reader
        finally:
            thread.readers.discard(reader)
            thread.idle_since = asyncio.get_running_loop().time()

    async def _bind(self, thread_id: str, thread: _Thread) -> None:
        async with thread.binding:
            if not thread.bound:
                thread.bound = True
                await self._subscription.bind(topology.CHAT_OUT, topology.thinking(thread_id).key)
            if not thread.ready:
                with suppress(StoreUnavailable):
                    await self._content.prepare(thread_id)
                    thread.ready = True
                self._retellings.want(thread_id)

    async def _unbind_unread(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(self._linger, MIN_LINGER))
            for thread_id, thread in list(self._threads.items()):
                if not thread.readers and now() - thread.idle_since >= self._linger:
                    await self._unbind(thread_id, thread)

    async def _unbind(self, thread_id: str, thread: _Thread) -> None:
        async with thread.binding:  # whoever comes now waits, and binds it anew
            if not thread.readers and thread.bound:
                thread.bound = thread.ready = False
                await self._subscription.unbind(topology.CHAT_OUT, topology.thinking(thread_id).key)
        if not thread.readers:
            del self._threads[thread_id]

    async def _hear_turns(self) -> None:
        while True:
            try:
                bodies = await self._subscription.take(NEWS_AT_ONCE)
            except Interrupted:
                self._retellings.want(*self._threads)
                continue
            for body in bodies:
                self._hear(body)
                await asyncio.sleep(0)  # for readers to go on, and others: it may be a whole reply

    def _hear(self, body: bytes) -> None:
        try:
            told = [event for event in decode(body) if isinstance(event, TurnNews)]
        except UndecodableEvents as error:
            log.warning("news of a turn not understood", reason=str(error))
            return
        events = self._content.opened_now([event for event in told if event.thread_id in self._threads])
        for event in events or ():  # without the key, the reply will tell
            if thread := self._threads.get(event.thread_id):
                for news, reader in product(thread.turn.hear(event), thread.readers):
                    reader.hear(news)
