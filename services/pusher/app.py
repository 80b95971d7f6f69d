"""``WS /ws/chat/{thread_id}``."""

import asyncio
from contextlib import suppress
from typing import NoReturn
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError

from m3 import __version__
from m3.bus import Bus
from m3.door import Door
from m3.errors import BusError, StoreUnavailable
from m3.events import MessageAccepted, ThreadId
from m3.settings import Settings
from m3.store import Store
from m3.tasks import background
from m3.web import BoundedBody, Refusal, answer_errors, health, problem_sentence
from services.pusher import close_codes, frames
from services.pusher.hub import Hub
from services.pusher.outbox import Outbox, TooSlow

#: Seconds that telling a socket why it is closed may take.
CLOSE_TIMEOUT = 5.0

_thread_ids: TypeAdapter[str] = TypeAdapter(ThreadId)


def pusher(hub: Hub, door: Door, bus: Bus, store: Store, settings: Settings) -> FastAPI:
    app = FastAPI(title="M3 pusher", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BoundedBody)
    answer_errors(app)
    app.include_router(health(bus, store))
    app.include_router(_sockets(hub, door, settings))
    return app


def _sockets(hub: Hub, door: Door, settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.websocket("/ws/chat/{thread_id:path}")
    async def chat(websocket: WebSocket, thread_id: str) -> None:
        try:
            _thread_ids.validate_python(thread_id)
        except ValidationError as error:
            sentence = f"thread_id: {error.errors(include_input=False)[0]['msg']}."
            await websocket.send_denial_response(Refusal(422, "invalid_request", sentence).response())
            return
        if _is_foreign(websocket):
            refusal = Refusal(403, "foreign_origin", "A page of another host may not open a socket here.")
            await websocket.send_denial_response(refusal.response())
            return
        await websocket.accept()
        outbox = Outbox()
        try:
            async with hub.joined(thread_id, outbox) as connections:
                outbox.put(frames.connected(thread_id, connections))
                async with background(f"socket of {thread_id}", outbox.write(websocket.send_text)):
                    await _Conversation(websocket, thread_id, outbox, door, settings.record_timeout).hear()
        # Reader and writer may both notice that the client went away, and then it is a group.
        except* (_Gone, WebSocketDisconnect):
            pass
        except* StoreUnavailable:
            await _close(websocket, close_codes.TRY_AGAIN_LATER, "The thread cannot be opened just now.")
        except* TooSlow:
            await _close(websocket, close_codes.SLOW, "Too slow; reconnect and read the history.")

    return router


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with suppress(TimeoutError, WebSocketDisconnect):  # it may be gone, or too stuck to be told
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await websocket.close(code, reason)


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


class _Conversation:
    """What one socket says."""

    def __init__(self, websocket: WebSocket, thread_id: str, outbox: Outbox, door: Door, record_timeout: float) -> None:
        self._websocket = websocket
        self._thread_id = thread_id
        self._outbox = outbox
        self._door = door
        self._record_timeout = record_timeout

    async def hear(self) -> NoReturn:
        """One frame after the other, so that a socket's messages are numbered in the order in which it sent them."""
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                raise _Gone
            text = received.get("text")
            if text is None:
                self._outbox.put(frames.error("invalid_message", "Frames must be text."))
            elif text == "ping":
                self._outbox.put(frames.pong())
            else:
                await self._take(text)

    async def _take(self, text: str) -> None:
        try:
            said = frames.SocketMessage.model_validate_json(text)
        except ValidationError as error:
            sentence = problem_sentence(error.errors(include_input=False))
            self._outbox.put(frames.error("invalid_message", sentence))
            return
        accepted = MessageAccepted(
            thread_id=self._thread_id,
            source=said.source,
            content=said.message,
            interface="websocket",
            origin=self._door.origin,
        )
        try:
            with self._door.watch(accepted.message_id) as watch:
                await self._door.hand_in(accepted)
                self._outbox.put(frames.recorded(await watch.recorded(self._record_timeout)))
        except BusError:
            sentence = "The message could not be handed on; try again."
            self._outbox.put(frames.error("broker_unavailable", sentence, accepted.message_id))
        except TimeoutError:
            sentence = "The message was not recorded in time; it may be recorded later."
            self._outbox.put(frames.error("not_recorded", sentence, accepted.message_id))
