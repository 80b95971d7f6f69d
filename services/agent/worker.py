"""The table is the agent's mailbox; an announcement is only a knock on the door of its thread.

Any number of agents compete. Whoever takes a thread works on it alone, message by message, until nothing in it is
pending; an agent that dies gives up its threads with its database session, and its knocks go to another.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from m3 import topology
from m3.bus import Bus, Consumer, Delivery
from m3.door import Door
from m3.errors import BusError, StoreUnavailable
from m3.events import Message, MessageAccepted, TurnFailed, encode, reply_id
from m3.settings import Settings
from m3.store import Store, ThreadLocks
from m3.tasks import background
from services.agent.conversation import conversation
from services.agent.model import Model, ModelFailed

#: Seconds between attempts while the database or the broker is away.
RETRY_INTERVAL = 0.5
#: Longest time to wait for an outcome to be recorded before it is handed in again, in seconds.
MAX_PATIENCE = 60.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def agent(bus: Bus, store: Store, model: Model, settings: Settings) -> AsyncIterator[None]:
    """Answer while inside the block. Leaving it drops the turns that run; their messages stay pending for another."""
    async with Door.open("agent", bus, store) as door, store.thread_locks() as locks:
        worker = _Worker(store, door, locks, model, settings)
        async with (
            bus.consume(topology.AGENT_USER, prefetch=settings.agent_concurrency) as people,
            bus.consume(topology.AGENT_API, prefetch=settings.agent_concurrency) as programs,
            background("agent user lane", worker.listen(people)),
            background("agent api lane", worker.listen(programs)),
            background("agent sweep", _sweep(bus, store, settings.sweep_interval)),
        ):
            yield


class _Worker:
    def __init__(self, store: Store, door: Door, locks: ThreadLocks, model: Model, settings: Settings) -> None:
        self._store = store
        self._door = door
        self._locks = locks
        self._model = model
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.agent_concurrency)

    async def listen(self, consumer: Consumer) -> None:
        """Attend to each thread that knocks, side by side, at most as many as the consumer's prefetch."""
        async with asyncio.TaskGroup() as knocks:
            while True:
                for delivery in await consumer.take(self._settings.agent_concurrency):
                    knocks.create_task(self._answer_knock(consumer, delivery), name=f"knock {delivery.key}")

    async def _answer_knock(self, consumer: Consumer, delivery: Delivery) -> None:
        thread_id = delivery.key.partition(".")[2]
        if not await self._drain(thread_id) and delivery.redelivered:
            # Whoever held the thread may have died just now, and the database notice it later than the broker.
            await asyncio.sleep(RETRY_INTERVAL)
            await self._drain(thread_id)
        await consumer.ack([delivery])

    async def _drain(self, thread_id: str) -> bool:
        """Answer all that is pending in the thread; False where another agent is at it."""
        while True:
            try:
                async with self._turns:
                    return await self._drain_if_free(thread_id)
            except StoreUnavailable as error:
                log.warning("thread put off", thread_id=thread_id, reason=str(error))
                await asyncio.sleep(RETRY_INTERVAL)

    async def _drain_if_free(self, thread_id: str) -> bool:
        while await self._locks.take(thread_id):
            try:
                while message := await self._store.next_pending(thread_id):
                    await self._turn(message)
            finally:
                await self._locks.release(thread_id)
            # A knock that came between the last look and the release found the thread taken.
            if await self._store.next_pending(thread_id) is None:
                return True
        return False

    async def _turn(self, message: Message) -> None:
        """Ask the model for one reply and see it recorded, or the reason why there is none."""
        said = await self._store.context(message, self._settings.context_messages)
        outcome: MessageAccepted | TurnFailed
        try:
            outcome = MessageAccepted(
                message_id=reply_id(message.message_id),
                thread_id=message.thread_id,
                source="assistant",
                content=await self._model.reply(conversation(self._settings.system_prompt, said, message)),
                interface=message.interface,
                origin=self._door.origin,
                in_reply_to=(message.message_id,),
            )
        except ModelFailed as error:
            log.warning(
                "turn failed", thread_id=message.thread_id, message_id=str(message.message_id), reason=str(error)
            )
            outcome = TurnFailed(
                thread_id=message.thread_id,
                message_ids=(message.message_id,),
                reason=str(error),
                origin=self._door.origin,
            )
        await self._settle(message, outcome)

    async def _settle(self, message: Message, outcome: MessageAccepted | TurnFailed) -> None:
        """A turn is dear, so its outcome is handed in until it is recorded; its id makes that harmless.

        Each time it waits twice as long, or a recorder that is away would find its queue full of copies.
        """
        patience = self._settings.record_timeout
        with self._door.watch(message.message_id) as watch:
            while True:
                try:
                    await self._door.hand_in(outcome)
                    await watch.settled(patience)
                    return
                except TimeoutError:
                    log.warning("outcome not recorded yet", message_id=str(message.message_id), waited=patience)
                    patience = min(2 * patience, MAX_PATIENCE)
                except BusError as error:
                    log.warning("outcome not handed in yet", message_id=str(message.message_id), reason=str(error))
                    await asyncio.sleep(RETRY_INTERVAL)


async def _sweep(bus: Bus, store: Store, interval: float) -> None:
    """Knock for what waits with no knock on its way: from before the room was killed, or whose knock was lost.

    It only knocks, like everybody, so that whoever works on a thread holds a knock that goes on if it dies.
    """
    older_than = 0.0  # at the start whatever waits
    while True:
        try:
            for thread_id in await store.waiting_threads(older_than):
                await bus.publish(topology.knocked(thread_id), encode([]))
        except (StoreUnavailable, BusError) as error:
            log.warning("sweep put off", reason=str(error))
        older_than = interval
        await asyncio.sleep(interval)
