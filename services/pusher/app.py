"""``WS /ws/chat/{thread_id}``, and the pusher's health.

Sockets pass FastAPI by: of its layers each open one would keep a part in memory for as long as it lives.
"""

import asyncio
from typing import TypeVar

from fastapi import APIRouter, FastAPI, WebSocket
from starlette.types import ASGIApp, Receive, Scope, Send

from m3 import __version__, metrics
from m3.door import Door
from m3.errors import M3Error, StoreUnavailable
from m3.settings import Settings
from m3.web import BoundedBody, CountedRequests, answer_errors, refusal_of
from m3.web.raw_frames import frame_writer
from services.pusher import frames
from services.pusher.close_codes import ENDS, Close, Closed, end_by
from services.pusher.conversation import Conversation, Gone
from services.pusher.entrance import Entrance, Opening
from services.pusher.hub import Hub
from services.pusher.outbox import Outbox

E = TypeVar("E", bound=Exception)

_closes = {end: metrics.SOCKET_CLOSES.labels(end) for end in ENDS}


def pusher(hub: Hub, door: Door, entrance: Entrance, health: APIRouter, settings: Settings) -> ASGIApp:
    http = FastAPI(title="M3 pusher", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    http.add_middleware(BoundedBody, limit=settings.body_limit)
    answer_errors(http)
    http.add_middleware(CountedRequests)
    http.include_router(health)
    sockets = _Sockets(hub, door, entrance, settings)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (sockets if scope["type"] == "websocket" else http)(scope, receive, send)

    return app


class _Sockets:
    def __init__(self, hub: Hub, door: Door, entrance: Entrance, settings: Settings) -> None:
        self._hub = hub
        self._door = door
        self._entrance = entrance
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opening = await self._accepted(scope, receive, send)
        if opening is None:
            return
        outbox = Outbox(frame_writer(scope), self._settings.socket_buffer, all_events=opening.all_events)
        end = "error"
        metrics.SOCKETS.inc()
        try:
            with self._entrance.inside(opening, outbox):
                await self._converse(receive, opening, outbox)
        except* Gone as group:
            end = end_by(_one_of(group, Gone).code)
        except* StoreUnavailable:
            outbox.close(Close.TRY_AGAIN_LATER)
        except* Closed as group:
            outbox.close(_one_of(group, Closed).why)
        finally:
            metrics.SOCKETS.dec()
            _closes[outbox.closed.name.lower() if outbox.closed else end].inc()

    async def _accepted(self, scope: Scope, receive: Receive, send: Send) -> Opening | None:
        """How the socket is opened, or None where it was refused."""
        websocket = WebSocket(scope, receive, send)
        try:
            opening = await self._entrance.opening(websocket)
        except M3Error as error:
            await websocket.send_denial_response(refusal_of(error).response())
            return None
        await websocket.accept()
        return opening

    async def _converse(self, receive: Receive, opening: Opening, outbox: Outbox) -> None:
        async with self._hub.joined(opening.key, outbox, opening.name) as seat, asyncio.TaskGroup() as tasks:
            outbox.tell(frames.connected(opening.key, seat.connections, seat.head))
            if opening.after is None:
                seat.listen()
            else:
                tasks.create_task(seat.catch_up(opening.after), name=f"catching up in {opening.key}")
            await Conversation(opening, seat, self._door, self._settings, tasks).hear(receive)


def _one_of(raised: BaseException, kind: type[E]) -> E:
    """The first of a group of this kind."""
    while isinstance(raised, BaseExceptionGroup):
        raised = raised.exceptions[0]
    assert isinstance(raised, kind)
    return raised
