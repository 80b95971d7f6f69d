"""``WS /ws/chat/{thread_id}``."""

import asyncio
from contextlib import suppress
from typing import Literal, NoReturn
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError
from uuid_utils.compat import uuid7

from m3 import __version__
from m3.bus import Bus
from m3.door import Door
from m3.errors import BusError, M3Error, NotRecorded, NotTaken, StoreUnavailable
from m3.events import ANYONE, MessageAccepted, Number, SenderName, ThreadId, keyed_id
from m3.settings import Settings
from m3.store import Store
from m3.tasks import background
from m3.web import BoundedBody, Refusal, answer_errors, health, problem_sentence, refusal_of
from services.pusher import close_codes, frames
from services.pusher.close_codes import Close
from services.pusher.hub import Hub
from services.pusher.outbox import Closed, Outbox

#: Seconds that telling a socket why it is closed may take.
CLOSE_TIMEOUT = 5.0
#: Messages of one socket that may wait to be taken; past it the socket is not read.
INBOX = 64


class Opening(BaseModel):
    """How a socket is opened: its path and query."""

    thread_id: ThreadId
    after: Number | None = None
    events: Literal["all"] | None = None
    client: SenderName = ANYONE


def pusher(hub: Hub, door: Door, bus: Bus, store: Store, settings: Settings) -> FastAPI:
    app = FastAPI(title="M3 pusher", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BoundedBody, limit=settings.body_limit)
    answer_errors(app)
    app.include_router(health(bus, store))
    app.include_router(_sockets(hub, door, settings))
    return app


def _sockets(hub: Hub, door: Door, settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.websocket("/ws/chat/{thread_id:path}")
    async def chat(websocket: WebSocket, thread_id: str) -> None:
        try:
            opening = Opening.model_validate({**websocket.query_params, "thread_id": thread_id})
        except ValidationError as error:
            sentence = problem_sentence(error.errors(include_input=False))
            await websocket.send_denial_response(Refusal(422, "invalid_request", sentence).response())
            return
        if _is_foreign(websocket):
            refusal = Refusal(403, "foreign_origin", "A page of another host may not open a socket here.")
            await websocket.send_denial_response(refusal.response())
            return
        await websocket.accept()
        outbox = Outbox(settings.socket_buffer, all_events=opening.events == "all")

        async def send(frame: str) -> None:
            try:
                await websocket.send_text(frame)
            except WebSocketDisconnect:  # what it said before it went is still to be heard
                outbox.mute()

        try:
            async with (
                hub.joined(opening.thread_id, outbox) as seat,
                background(f"socket of {thread_id}", outbox.write(send)),
                asyncio.TaskGroup() as group,
            ):
                outbox.put(frames.connected(thread_id, seat.connections))
                group.create_task(seat.listen(opening.after), name=f"catching up in {thread_id}")
                conversation = _Conversation(websocket, opening, outbox, door, settings)
                group.create_task(conversation.take_all(), name=f"messages of a socket of {thread_id}")
                await conversation.hear()
        except* _Gone:
            pass
        except* StoreUnavailable:
            await _close(websocket, close_codes.TRY_AGAIN_LATER)
        except* Closed as group:
            await _close(websocket, _why(group))

    return router


def _why(closed: BaseException) -> Close:
    while isinstance(closed, BaseExceptionGroup):
        closed = closed.exceptions[0]
    assert isinstance(closed, Closed)
    return closed.why


async def _close(websocket: WebSocket, why: Close) -> None:
    with suppress(TimeoutError, WebSocketDisconnect):  # it may be gone, or too stuck to be told
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await websocket.close(why.code, why.reason)


def _is_foreign(websocket: WebSocket) -> bool:
    """Whether a page of another host opens the socket. Browsers say so, and without this any page that somebody visits
    could speak in a room on their own machine. The port may differ."""
    origin = websocket.headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).hostname != websocket.url.hostname
    except ValueError:  # of an origin or host that is no address
        return True


class _Gone(Exception):
    """The client went away."""


_NOT_HANDED_IN = Refusal(503, "not_handed_in", "The message before it was not recorded; say both again.")


class _Conversation:
    """What one socket says."""

    def __init__(self, websocket: WebSocket, opening: Opening, outbox: Outbox, door: Door, settings: Settings) -> None:
        self._websocket = websocket
        self._opening = opening
        self._outbox = outbox
        self._door = door
        self._settings = settings
        self._said: asyncio.Queue[frames.SocketMessage] = asyncio.Queue(INBOX)

    async def hear(self) -> NoReturn:
        """Read on while a message is being recorded: the client's pongs come in between."""
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                self._outbox.mute()
                with suppress(TimeoutError):  # what it said last is still taken
                    async with asyncio.timeout(self._settings.record_timeout):
                        await self._said.join()
                raise _Gone
            text = received.get("text")
            if text is None:
                self._outbox.put(frames.error("invalid_message", "Frames must be text."))
            elif text == "ping":
                self._outbox.put(frames.pong())
            else:
                await self._hear_message(text)

    async def _hear_message(self, text: str) -> None:
        try:
            said = frames.SocketMessage.model_validate_json(text)
        except ValidationError as error:
            sentence = problem_sentence(error.errors(include_input=False))
            self._outbox.put(frames.error("invalid_message", sentence))
        else:
            await self._said.put(said)

    async def take_all(self) -> NoReturn:
        """One message after the other, so that a socket's messages are numbered in the order in which it sent them.
        Where one is not recorded, what waits behind it is refused at once, for the client to say in order again."""
        while True:
            said = await self._said.get()
            try:
                await self._take(said)
            except (BusError, NotRecorded) as error:
                self._refuse(said, error)
                while not self._said.empty():
                    self._refuse(self._said.get_nowait(), _NOT_HANDED_IN)
                    self._said.task_done()
            except NotTaken as error:
                self._refuse(said, error)
            finally:
                self._said.task_done()

    async def _take(self, said: frames.SocketMessage) -> None:
        accepted = MessageAccepted(
            message_id=keyed_id(self._opening.client, said.client_id) if said.client_id else uuid7(),
            thread_id=self._opening.thread_id,
            source=said.source,
            content=said.message,
            interface="websocket",
            origin=self._door.origin,
        )
        limit, within = self._settings.message_limit, self._settings.record_timeout
        async with self._door.taken(accepted, limit=limit, within=within) as (message, _):
            self._outbox.put(frames.recorded(message, said.client_id))

    def _refuse(self, said: frames.SocketMessage, error: M3Error) -> None:
        refusal = refusal_of(error).body
        self._outbox.put(
            frames.error(refusal.code, refusal.message, message_id=refusal.message_id, client_id=said.client_id)
        )
