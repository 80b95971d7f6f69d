"""The table is the agent's mailbox; an announcement is only a knock on the door of its thread.

Any number of agents compete. Whoever takes a thread works on it alone, turn by turn, until there is nothing to do in
it, and acks its knock only then. An agent that dies gives up its threads with its database session, and its knocks go
to another. One that stops, or has worked on a thread for long, leaves what still waits to a new knock.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from m3 import metrics, topology
from m3.bus import Bus, Consumer, Delivery
from m3.door import Door
from m3.errors import BusError, StoreUnavailable
from m3.events import OutsideSource, encode
from m3.settings import Settings
from m3.store import Store
from m3.tasks import background
from services.agent.ear import Ear
from services.agent.model import Model
from services.agent.settling import Settler
from services.agent.threads import WAITS, Found, Threads
from services.agent.tokens import counter_of
from services.agent.turn import Turns

#: Seconds between attempts while the database or the broker is away.
RETRY_INTERVAL = 0.5
#: Seconds after its start until an agent first looks for what waits unheard of. By then one that comes to help others
#: is full of what the queue had, and does not knock for all of that again, which would look like twice the load.
FIRST_SWEEP = 0.5

log = structlog.get_logger(__name__)


@asynccontextmanager
async def agent(bus: Bus, store: Store, model: Model, settings: Settings, *, grace: float) -> AsyncIterator[None]:
    """Answer while inside the block. Leaving it finishes the turns that run and leaves all else to other agents; turns
    that take longer than ``grace`` seconds are dropped, and their messages stay pending for another."""
    # Twice as many as there are places, so that somebody of each lane waits when a place comes free.
    prefetch = 2 * settings.agent_concurrency
    count = await counter_of(model.name)
    metrics.TURN_PLACES.set(settings.agent_concurrency)
    async with Door.open("agent", bus, store) as door:
        settler = Settler(store, door, settings)
        turns = Turns(bus, store, settler, model, count, settings)
        async with (
            Ear.open(bus, turns) as ear,
            bus.consume(topology.AGENT_USER, prefetch=prefetch) as people,
            bus.consume(topology.AGENT_API, prefetch=prefetch) as programs,
            store.thread_locks() as locks,  # inside, so that a thread is free before its knock goes to another
        ):
            threads = Threads(store, locks, ear, turns, settler, count, settings)
            worker = _Worker(bus, store, threads, {"user": people, "api": programs})
            async with (
                background("agent", worker.run(), stop=worker.stop, grace=grace),
                background("agent sweep", worker.sweep(settings.sweep_interval)),
            ):
                yield


class _Worker:
    """Hears knocks, and has a place for each thread that is worked on."""

    def __init__(self, bus: Bus, store: Store, threads: Threads, lanes: Mapping[OutsideSource, Consumer]) -> None:
        self._bus = bus
        self._store = store
        self._threads = threads
        self._lanes = lanes
        self._prefetch = threads.settings.agent_concurrency

    def stop(self) -> None:
        """Begin no more turns, and have ``run`` end when those that run have ended."""
        log.info("agent stops after the turns that run")
        self._threads.stop()
        for knocks in self._lanes.values():
            knocks.stop()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._listen(lane, group), name=f"agent {lane} lane")

    async def _listen(self, lane: OutsideSource, group: asyncio.TaskGroup) -> None:
        """Attend to each thread that knocks, side by side, at most as many as the consumer's prefetch."""
        while deliveries := await self._lanes[lane].take(self._prefetch):
            for delivery in deliveries:
                group.create_task(self._answer_knock(lane, delivery), name=f"knock {delivery.key}")

    async def _answer_knock(self, lane: OutsideSource, delivery: Delivery) -> None:
        """Work on the thread, leave what still waits in it to a new knock, and ack this one."""
        thread_id = delivery.key.partition(".")[2]
        found = await self._threads.work_on(thread_id, lane)
        if found is Found.TAKEN and delivery.redelivered:
            # Whoever held it may have died just now, and the database notice it later than the broker.
            await asyncio.sleep(RETRY_INTERVAL)
            found = await self._threads.work_on(thread_id, lane)
        waits = next((one for one, waiting in WAITS.items() if found is waiting), None)
        if waits is None or await self._knock(waits, thread_id):
            await self._lanes[lane].ack([delivery])

    async def _knock(self, lane: OutsideSource, thread_id: str) -> bool:
        """Have the thread looked into again. False if that cannot be while we stop."""
        while True:
            try:
                await self._bus.publish(topology.knocked(lane, thread_id), encode([]))
                return True
            except BusError as error:
                log.warning("thread not handed on", thread_id=thread_id, reason=str(error))
            if self._threads.stopping:
                return False
            await asyncio.sleep(RETRY_INTERVAL)

    async def sweep(self, interval: float) -> None:
        """Knock for what waits with no knock on its way: from before the room was killed, or whose knock was lost.

        It only knocks, like everybody, so that whoever works on a thread holds a knock that goes on if it dies. A busy
        agent does not: what waits may well have its knock in the queue.
        """
        older_than = 0.0  # at the start whatever waits
        await asyncio.sleep(FIRST_SWEEP)
        while True:
            if not self._threads.places.full:
                try:
                    for lane, thread_id in await self._store.waiting_threads(older_than):
                        await self._bus.publish(topology.knocked(lane, thread_id), encode([]))
                except (StoreUnavailable, BusError) as error:
                    log.warning("sweep put off", reason=str(error))
            older_than = interval
            await asyncio.sleep(interval)
