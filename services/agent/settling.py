"""Sees what came of messages into the table: a reply, or the reason why there is none."""

import asyncio
from contextlib import suppress

import structlog

from m3.door import Door, Watch
from m3.errors import BusError, StoreUnavailable
from m3.events import MessageAccepted, ThreadSummarised, TurnInterrupted, Unanswered
from m3.settings import Settings
from m3.store import Store

#: Seconds between attempts while the broker is away.
RETRY_INTERVAL = 0.5
#: Longest time to wait for an outcome to be recorded before it is handed in again, in seconds.
MAX_PATIENCE = 60.0
#: Seconds after which an outcome that is not recorded, though broker and database answer, is given up.
SETTLE_TIMEOUT = 300.0

log = structlog.get_logger(__name__)


class Settler:
    """Hands outcomes in at the one door."""

    def __init__(self, store: Store, door: Door, settings: Settings) -> None:
        self._store = store
        self._door = door
        self._record_timeout = settings.record_timeout
        self._waits: set[asyncio.Timeout] = set()
        self._stopping = False

    @property
    def origin(self) -> str:
        """Where this process is told what was recorded."""
        return self._door.origin

    def stop(self) -> None:
        """From now on wait for the record of an outcome only so long as it usually takes: a recorder may have stopped
        before us."""
        self._stopping = True
        enough = asyncio.get_running_loop().time() + self._record_timeout
        for wait in self._waits:
            wait.reschedule(min(enough, wait.when() or enough))

    async def settle(self, outcome: MessageAccepted | Unanswered) -> bool:
        """Whether the outcome was recorded. A turn is dear, so it is handed in repeatedly, which its id makes harmless.

        Each time it waits twice as long, or a recorder that is away would find its queue full of copies. Time in which
        the broker or the database is away does not count. Of several messages the first stands for all: they are
        settled together.
        """
        first = (outcome.in_reply_to if isinstance(outcome, MessageAccepted) else outcome.message_ids)[0]
        patience, waited = self._record_timeout, 0.0
        with self._door.watch(first) as watch:
            while waited < SETTLE_TIMEOUT:
                try:
                    await self._door.hand_in(outcome)
                    await self._recorded(watch, self._record_timeout if self._stopping else patience)
                    return True
                except TimeoutError:
                    if self._stopping:  # the broker has it, and that must do
                        return True
                    log.warning("outcome not recorded yet", thread_id=outcome.thread_id, waited=patience)
                    with suppress(StoreUnavailable):
                        await self._store.ping()
                        waited += patience
                    patience = min(2 * patience, MAX_PATIENCE)
                except (BusError, StoreUnavailable) as error:
                    log.warning("outcome not handed in yet", thread_id=outcome.thread_id, reason=str(error))
                    await asyncio.sleep(RETRY_INTERVAL)
        return False

    async def _recorded(self, watch: Watch, within: float) -> None:
        async with asyncio.timeout(within) as wait:
            self._waits.add(wait)
            try:
                await watch.settled(within)
            finally:
                self._waits.discard(wait)

    async def mention(self, fact: ThreadSummarised | TurnInterrupted) -> None:
        """Hand in, once, what nobody waits for: a summary that is lost is made again."""
        with suppress(BusError, StoreUnavailable):
            await self._door.hand_in(fact)
