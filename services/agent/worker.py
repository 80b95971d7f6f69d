"""The table is the agent's mailbox; an announcement is only a knock on the door of its thread.

Any number of agents compete. Whoever takes a thread works on it alone, message by message, until nothing in it is
pending, and acks its knock only then. An agent that dies gives up its threads with its database session, and its knocks
go to another. One that stops, or has worked on a thread for long, leaves what is still pending to a new knock.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum, auto

import structlog

from m3 import topology
from m3.bus import Bus, Consumer, Delivery
from m3.door import Door
from m3.errors import BusError, StoreUnavailable
from m3.events import OutsideSource, encode
from m3.settings import Settings
from m3.store import Store, ThreadLocks
from m3.tasks import background
from services.agent.model import Model
from services.agent.turn import Turns

#: Seconds between attempts while the database or the broker is away.
RETRY_INTERVAL = 0.5
#: Seconds after which a thread that does not fall quiet goes to the end of the queue, at the end of its turn: threads
#: with much to answer would otherwise keep all others waiting. (And RabbitMQ ends the channel of a consumer that holds
#: a delivery for half an hour.)
MAX_HOLD = 2.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def agent(bus: Bus, store: Store, model: Model, settings: Settings, *, grace: float) -> AsyncIterator[None]:
    """Answer while inside the block. Leaving it finishes the turns that run and leaves all else to other agents; turns
    that take longer than ``grace`` seconds are dropped, and their messages stay pending for another."""
    prefetch = settings.agent_concurrency
    async with (
        Door.open("agent", bus, store) as door,
        bus.consume(topology.AGENT_USER, prefetch=prefetch) as people,
        bus.consume(topology.AGENT_API, prefetch=prefetch) as programs,
        store.thread_locks() as locks,  # inside, so that a thread is free before its knock goes to another
    ):
        worker = _Worker(bus, store, locks, Turns(store, door, model, settings), {"user": people, "api": programs})
        async with (
            background("agent", worker.run(), stop=worker.stop, grace=grace),
            background("agent sweep", worker.sweep(settings.sweep_interval)),
        ):
            yield


class _Thread(Enum):
    """How a knock found a thread, or left it."""

    QUIET = auto()  # nothing in it is pending
    TAKEN = auto()  # another knock's: that one sees to all that is pending
    WAITING = auto()  # something in it is pending, or may be


class _Worker:
    def __init__(
        self, bus: Bus, store: Store, locks: ThreadLocks, turns: Turns, lanes: Mapping[OutsideSource, Consumer]
    ) -> None:
        self._bus = bus
        self._store = store
        self._locks = locks
        self._turns = turns
        self._lanes = lanes
        self._places = asyncio.Semaphore(turns.at_once)
        self._stopping = False

    def stop(self) -> None:
        """Begin no more turns, and have ``run`` end when those that run have ended."""
        log.info("agent stops after the turns that run")
        self._stopping = True
        self._turns.stop()
        self._places.release()  # one more: whoever waits for a place comes through, one by one, and finds us stopping
        for knocks in self._lanes.values():
            knocks.stop()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._listen(lane, group), name=f"agent {lane} lane")

    async def _listen(self, lane: OutsideSource, group: asyncio.TaskGroup) -> None:
        """Attend to each thread that knocks, side by side, at most as many as the consumer's prefetch."""
        while deliveries := await self._lanes[lane].take(self._turns.at_once):
            for delivery in deliveries:
                group.create_task(self._answer_knock(lane, delivery), name=f"knock {delivery.key}")

    async def _answer_knock(self, lane: OutsideSource, delivery: Delivery) -> None:
        """Work on the thread, leave what still waits in it to a new knock, and ack this one."""
        thread_id = delivery.key.partition(".")[2]
        thread = await self._work_on(thread_id)
        if thread is _Thread.TAKEN and delivery.redelivered:
            # Whoever held it may have died just now, and the database notice it later than the broker.
            await asyncio.sleep(RETRY_INTERVAL)
            thread = await self._work_on(thread_id)
        if thread is not _Thread.WAITING or await self._knock(lane, thread_id):
            await self._lanes[lane].ack([delivery])

    async def _work_on(self, thread_id: str) -> _Thread:
        """Answer what is pending in the thread, message by message, until it is quiet or we must let it go."""
        now = asyncio.get_running_loop().time
        thread = _Thread.WAITING
        async with self._places:
            enough = now() + MAX_HOLD
            while thread is _Thread.WAITING and not self._stopping and now() < enough:
                try:
                    thread = await self._answer_next(thread_id)
                except StoreUnavailable as error:
                    log.warning("thread put off", thread_id=thread_id, reason=str(error))
                    await asyncio.sleep(RETRY_INTERVAL)
        return thread

    async def _answer_next(self, thread_id: str) -> _Thread:
        """Answer the oldest pending message, unless another is at the thread."""
        if not await self._locks.take(thread_id):
            return _Thread.TAKEN
        try:
            if message := await self._store.next_pending(thread_id):
                await self._turns.take(message)
        except StoreUnavailable:
            await self._locks.release(thread_id)
            raise
        # Where we are cancelled the locks end with their session, and no time is lost on a silent database.
        await self._locks.release(thread_id)
        # Looked for only now: a knock that came before the release found the thread taken.
        return _Thread.WAITING if await self._store.next_pending(thread_id) else _Thread.QUIET

    async def _knock(self, lane: OutsideSource, thread_id: str) -> bool:
        """Have the thread looked into again. False if that cannot be while we stop."""
        while True:
            try:
                await self._bus.publish(topology.knocked(lane, thread_id), encode([]))
                return True
            except BusError as error:
                log.warning("thread not handed on", thread_id=thread_id, reason=str(error))
            if self._stopping:
                return False
            await asyncio.sleep(RETRY_INTERVAL)

    async def sweep(self, interval: float) -> None:
        """Knock for what waits with no knock on its way: from before the room was killed, or whose knock was lost.

        It only knocks, like everybody, so that whoever works on a thread holds a knock that goes on if it dies. A busy
        agent does not: what waits may well have its knock in the queue.
        """
        older_than = 0.0  # at the start whatever waits
        while True:
            if not self._places.locked():
                try:
                    for thread_id in await self._store.waiting_threads(older_than):
                        await self._bus.publish(topology.knocked("user", thread_id), encode([]))
                except (StoreUnavailable, BusError) as error:
                    log.warning("sweep put off", reason=str(error))
            older_than = interval
            await asyncio.sleep(interval)
