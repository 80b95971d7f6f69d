"""What one socket says: messages, cancellations and pings."""

import asyncio
from contextlib import suppress
from typing import Literal, NoReturn

from fastapi import WebSocket
from pydantic import BaseModel, ValidationError
from uuid_utils.compat import uuid7

from m3.door import Door
from m3.errors import BusError, M3Error, NotRecorded, NotTaken, StoreUnavailable
from m3.events import ANYONE, MessageAccepted, Number, SenderName, ThreadId, keyed_id
from m3.settings import Settings
from m3.web import Refusal, problem_sentence, refusal_of
from services.pusher import frames
from services.pusher.outbox import Outbox

#: Messages of one socket that may wait to be taken; past it the socket is not read. Cancellations likewise.
INBOX = 64

_NOT_HANDED_IN = Refusal(503, "not_handed_in", "The message before it was not recorded; say both again.")


class Opening(BaseModel):
    """How a socket is opened: its path and query."""

    thread_id: ThreadId
    after: Number | None = None
    events: Literal["all"] | None = None
    client: SenderName = ANYONE


class Gone(Exception):
    """The client went away."""


class Conversation:
    """``hear`` reads what the socket says; ``take_all`` and ``pass_on_cancels`` run beside it."""

    def __init__(self, websocket: WebSocket, opening: Opening, outbox: Outbox, door: Door, settings: Settings) -> None:
        self._websocket = websocket
        self._opening = opening
        self._outbox = outbox
        self._door = door
        self._settings = settings
        self._said: asyncio.Queue[frames.SocketMessage] = asyncio.Queue(INBOX)
        self._cancels: asyncio.Queue[None] = asyncio.Queue(INBOX)

    async def hear(self) -> NoReturn:
        """Read on while a message is being recorded: the client's pongs come in between. Raises Gone."""
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                self._outbox.mute()
                with suppress(TimeoutError):  # what it said last is still taken
                    async with asyncio.timeout(self._settings.record_timeout):
                        await self._said.join()
                        await self._cancels.join()
                raise Gone
            text = received.get("text")
            if text is None:
                self._outbox.put(frames.error("invalid_message", "Frames must be text."))
            elif text == "ping":
                self._outbox.put(frames.pong())
            else:
                await self._hear_frame(text)

    async def _hear_frame(self, text: str) -> None:
        try:
            if frames.SocketFrame.model_validate_json(text).type == "cancel":
                await self._cancels.put(None)
            else:
                await self._said.put(frames.SocketMessage.model_validate_json(text))
        except ValidationError as error:
            sentence = problem_sentence(error.errors(include_input=False))
            self._outbox.put(frames.error("invalid_message", sentence, client_id=frames.client_id_of(text)))

    async def take_all(self) -> NoReturn:
        """One message after the other, so that a socket's messages are numbered in the order in which it sent them.
        Where one is not recorded, what waits behind it is refused at once, for the client to say in order again."""
        while True:
            said = await self._said.get()
            try:
                await self._take(said)
            except (BusError, StoreUnavailable, NotRecorded) as error:
                self._refuse(said, error)
                while not self._said.empty():
                    self._refuse(self._said.get_nowait(), _NOT_HANDED_IN)
                    self._said.task_done()
            except NotTaken as error:
                self._refuse(said, error)
            finally:
                self._said.task_done()

    async def pass_on_cancels(self) -> NoReturn:
        """Beside the messages: a turn that is to stop should not go on until they are recorded."""
        while True:
            await self._cancels.get()
            try:
                await self._door.ask_to_cancel(self._opening.thread_id)
                self._outbox.put(frames.cancelling(self._opening.thread_id))
            except BusError as error:
                refusal = refusal_of(error).body
                self._outbox.put(frames.error(refusal.code, refusal.message))
            finally:
                self._cancels.task_done()

    async def _take(self, said: frames.SocketMessage) -> None:
        accepted = MessageAccepted(
            message_id=keyed_id(self._opening.client, said.client_id) if said.client_id else uuid7(),
            thread_id=self._opening.thread_id,
            source=said.source,
            content=said.message,
            interface="websocket",
            origin=self._door.origin,
        )
        async with self._door.taken(accepted, self._settings) as taken:
            self._outbox.put(frames.recorded(taken.message, said.client_id))

    def _refuse(self, said: frames.SocketMessage, error: M3Error) -> None:
        refusal = refusal_of(error).body
        self._outbox.put(
            frames.error(refusal.code, refusal.message, message_id=refusal.message_id, client_id=said.client_id)
        )
