"""One turn: the model is asked for the reply to one message, and what came of it is seen into the table."""

import asyncio
from contextlib import suppress

import structlog

from m3.door import Door, Watch
from m3.errors import BusError, StoreUnavailable
from m3.events import Message, MessageAccepted, TurnFailed, reply_id
from m3.settings import Settings
from m3.store import Store
from services.agent.conversation import conversation
from services.agent.model import Model, ModelFailed

#: Seconds between attempts while the broker is away.
RETRY_INTERVAL = 0.5
#: Longest time to wait for an outcome to be recorded before it is handed in again, in seconds.
MAX_PATIENCE = 60.0
#: Seconds after which an outcome that is not recorded, though broker and database answer, is given up.
SETTLE_TIMEOUT = 300.0

log = structlog.get_logger(__name__)


class Turns:
    def __init__(self, store: Store, door: Door, model: Model, settings: Settings) -> None:
        self.at_once = settings.agent_concurrency
        self._store = store
        self._door = door
        self._model = model
        self._settings = settings
        self._stopping = False

    def stop(self) -> None:
        """Let turns end, after a while, that only wait for their outcome to be recorded: a recorder may have stopped
        before us."""
        self._stopping = True
        asyncio.get_running_loop().call_later(self._settings.record_timeout, self._door.stop_waiting)

    async def take(self, message: Message) -> None:
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
            outcome = self._failure(message, str(error))
        with self._door.watch(message.message_id) as watch:
            if await self._settle(watch, outcome):
                return
            # Or the model would be asked again and again for what the recorder will not take.
            if not await self._settle(watch, self._failure(message, "The reply could not be recorded.")):
                log.error("turn without an outcome", thread_id=message.thread_id, message_id=str(message.message_id))

    def _failure(self, message: Message, reason: str) -> TurnFailed:
        log.warning("turn failed", thread_id=message.thread_id, message_id=str(message.message_id), reason=reason)
        return TurnFailed(
            thread_id=message.thread_id, message_ids=(message.message_id,), reason=reason, origin=self._door.origin
        )

    async def _settle(self, watch: Watch, outcome: MessageAccepted | TurnFailed) -> bool:
        """Whether the outcome was recorded. A turn is dear, so it is handed in repeatedly, which its id makes harmless.

        Each time it waits twice as long, or a recorder that is away would find its queue full of copies. Time in which
        the broker or the database is away does not count.
        """
        patience, waited = self._settings.record_timeout, 0.0
        while waited < SETTLE_TIMEOUT:
            try:
                await self._door.hand_in(outcome)
                await watch.settled(patience)
                return True
            except TimeoutError:
                if self._stopping:  # the broker has it, and that must do
                    return True
                log.warning("outcome not recorded yet", thread_id=outcome.thread_id, waited=patience)
                with suppress(StoreUnavailable):
                    await self._store.ping()
                    waited += patience
                patience = min(2 * patience, MAX_PATIENCE)
            except BusError as error:
                log.warning("outcome not handed in yet", thread_id=outcome.thread_id, reason=str(error))
                await asyncio.sleep(RETRY_INTERVAL)
        return False
