"""What was said in a thread, how the agent deals with it, and stopping its turn."""

import asyncio

import structlog
from fastapi import APIRouter, Depends

from m3 import topology
from m3.bus import Bus
from m3.door import Door
from m3.errors import BusError
from m3.events import OutsideSource, encode
from m3.settings import Settings
from m3.store import END, Store
from m3.tenants import thread_id_of
from m3.web import documented
from services.gateway.asking import Key
from services.gateway.guards import FOREIGN, INVALID, NO_BROKER, NO_DATABASE, of_a_body, own, plain
from services.gateway.schemas import (
    HISTORY_LIMIT,
    After,
    Before,
    CancelAccepted,
    History,
    Limit,
    SettingsOfThread,
    SettingsRequest,
)

log = structlog.get_logger(__name__)


def threads(door: Door, bus: Bus, store: Store, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["threads"])

    @router.get(
        "/api/threads/{thread_id}/history",
        summary="The messages of a thread",
        response_model_exclude={"messages": {"__all__": {"traceparent"}}},
        responses=documented(INVALID, NO_DATABASE),
    )
    async def history(key: Key, limit: Limit = 100, before: Before = END, after: After | None = None) -> History:
        """Oldest first; the newest ones, or with `after` those that follow. A thread in which nothing was said yet is
        empty."""
        most = min(limit, HISTORY_LIMIT)
        if after is None:
            messages = await store.latest(key, most, before=before)
        else:
            messages = await store.following(key, after, most, before=before)
        return History(thread_id=thread_id_of(key), messages=messages)

    @router.post(
        "/api/threads/{thread_id}/cancel",
        summary="Stop the agent's turn in a thread",
        status_code=202,
        dependencies=[Depends(own)],
        responses=documented(FOREIGN, INVALID, NO_BROKER),
    )
    async def cancel(key: Key) -> CancelAccepted:
        """What the agent has said by then becomes its reply. Where no turn runs nothing happens."""
        await door.ask_to_cancel(key)
        return CancelAccepted(thread_id=thread_id_of(key))

    @router.get(
        "/api/threads/{thread_id}/settings",
        summary="What is set for a thread",
        responses=documented(INVALID, NO_DATABASE),
    )
    async def read_settings(key: Key) -> SettingsOfThread:
        """What is null is as the room has it."""
        return SettingsOfThread(thread_id=thread_id_of(key), settings=await store.thread_settings(key))

    @router.put(
        "/api/threads/{thread_id}/settings",
        summary="Set how the agent deals with a thread",
        dependencies=[Depends(plain)],
        responses=documented(*of_a_body(settings.body_limit), INVALID, NO_DATABASE),
    )
    async def change_settings(key: Key, wanted: SettingsRequest) -> SettingsOfThread:
        """Replaces all of them. What is null or not there becomes as the room has it."""
        await store.change_settings(key, wanted)
        await asyncio.gather(_knock(bus, "user", key), _knock(bus, "api", key))
        return SettingsOfThread(thread_id=thread_id_of(key), settings=wanted)

    return router


async def _knock(bus: Bus, lane: OutsideSource, key: str) -> None:
    """Have an agent look again. One that is not reached finds what waits by its sweep."""
    try:
        await bus.publish(topology.knocked(lane, key), encode([]))
    except BusError as error:
        log.warning("agent not told of new settings", thread_id=key, lane=lane, reason=str(error))
