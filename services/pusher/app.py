"""``WS /ws/chat/{thread_id}``."""

import asyncio
from contextlib import suppress

from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from m3 import __version__
from m3.bus import Bus
from m3.door import Door
from m3.errors import StoreUnavailable
from m3.settings import Settings
from m3.store import Store
from m3.tasks import background
from m3.web import BoundedBody, Refusal, answer_errors, health, problem_sentence
from m3.web.origins import is_foreign
from services.pusher import close_codes, frames
from services.pusher.close_codes import Close
from services.pusher.conversation import Conversation, Gone, Opening
from services.pusher.hub import Hub
from services.pusher.outbox import Closed, Outbox

#: Seconds that telling a socket why it is closed may take.
CLOSE_TIMEOUT = 5.0


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
        if is_foreign(websocket):
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
                conversation = Conversation(websocket, opening, outbox, door, settings)
                group.create_task(conversation.take_all(), name=f"messages of a socket of {thread_id}")
                group.create_task(conversation.pass_on_cancels(), name=f"cancellations of a socket of {thread_id}")
                await conversation.hear()
        except* Gone:
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
