"""``WS /ws/chat/{thread_id}``, and the pusher's health.

Sockets pass FastAPI by: of its layers each open one would keep a part in memory for as long as it lives.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from fastapi import FastAPI, WebSocket
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from m3 import __version__, metrics
from m3.addresses import counted_as
from m3.bus import Bus
from m3.door import Door
from m3.errors import StoreUnavailable
from m3.settings import Settings
from m3.store import Store
from m3.web import BoundedBody, CountedRequests, Refusal, answer_errors, health, problem_sentence
from m3.web.origins import is_foreign
from m3.web.raw_frames import frame_writer
from services.pusher import frames
from services.pusher.close_codes import ENDS, Close, Closed, end_by
from services.pusher.conversation import Conversation, Gone, Opening
from services.pusher.hub import Hub
from services.pusher.outbox import Outbox

PATH = re.compile("/ws/chat/(.*)")

E = TypeVar("E", bound=Exception)

_closes = {end: metrics.SOCKET_CLOSES.labels(end) for end in ENDS}


def pusher(hub: Hub, door: Door, bus: Bus, store: Store, settings: Settings) -> ASGIApp:
    http = FastAPI(title="M3 pusher", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    http.add_middleware(BoundedBody, limit=settings.body_limit)
    answer_errors(http)
    http.add_middleware(CountedRequests)
    http.include_router(health(bus, store))
    sockets = _Sockets(hub, door, settings)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (sockets if scope["type"] == "websocket" else http)(scope, receive, send)

    return app


class _Sockets:
    def __init__(self, hub: Hub, door: Door, settings: Settings) -> None:
        self._hub = hub
        self._door = door
        self._settings = settings
        self._addresses: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opening = await _accepted(scope, receive, send)
        if opening is None:
            return
        outbox = Outbox(frame_writer(scope), self._settings.socket_buffer, all_events=opening.events == "all")
        end = "error"
        metrics.SOCKETS.inc()
        try:
            with self._counted(scope["client"]):
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

    async def _converse(self, receive: Receive, opening: Opening, outbox: Outbox) -> None:
        async with self._hub.joined(opening.thread_id, outbox, opening.client) as seat, asyncio.TaskGroup() as tasks:
            outbox.tell(frames.connected(opening.thread_id, seat.connections))
            if opening.after is None:
                seat.listen()
            else:
                tasks.create_task(seat.catch_up(opening.after), name=f"catching up in {opening.thread_id}")
            await Conversation(opening, seat, self._door, self._settings, tasks).hear(receive)

    @contextmanager
    def _counted(self, client: tuple[str, int] | None) -> Iterator[None]:
        """Raises Closed where the address has no socket left."""
        address = counted_as(client[0] if client else "")
        if self._addresses[address] == self._settings.sockets_per_address:
            raise Closed(Close.ADDRESS_FULL)
        self._addresses[address] += 1
        try:
            yield
        finally:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]


async def _accepted(scope: Scope, receive: Receive, send: Send) -> Opening | None:
    """How the socket is opened, or None where it was refused."""
    websocket = WebSocket(scope, receive, send)
    try:
        opening = _opening(websocket)
    except Refusal as refusal:
        await websocket.send_denial_response(refusal.response())
        return None
    await websocket.accept()
    return opening


def _opening(websocket: WebSocket) -> Opening:
    """Raises Refusal."""
    path = PATH.fullmatch(websocket.scope["path"])
    if path is None:
        raise Refusal(404, "not_found", "Not Found.")
    try:
        opening = Opening.model_validate({**websocket.query_params, "thread_id": path[1]})
    except ValidationError as error:
        raise Refusal(422, "invalid_request", problem_sentence(error.errors(include_input=False))) from None
    if is_foreign(websocket):
        raise Refusal(403, "foreign_origin", "A page of another host may not open a socket here.")
    return opening


def _one_of(raised: BaseException, kind: type[E]) -> E:
    """The first of a group of this kind."""
    while isinstance(raised, BaseExceptionGroup):
        raised = raised.exceptions[0]
    assert isinstance(raised, kind)
    return raised
