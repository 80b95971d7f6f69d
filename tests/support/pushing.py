"""A pusher on a server, and news for it with no recorder in between."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from m3 import topology
from m3.access.access import Access
from m3.access.admissions import RECHECK
from m3.access.limits import Limits
from m3.bus import Bus, Subscription
from m3.door import Door
from m3.events import Message, MessageAccepted, MessageRecorded, RetellingAsked, TurnNews, decode, encode
from m3.settings import Settings
from m3.store import Store
from m3.web import bind, health, serve
from services.pusher import Entrance, Hub, pusher
from tests.support.until import DEADLINE


@asynccontextmanager
async def running_pusher(
    bus: Bus,
    store: Store,
    *,
    recheck: float = RECHECK,
    clock: Callable[[], float] = time.monotonic,
    **changes: object,
) -> AsyncIterator[tuple[str, Hub]]:
    """``recheck``: seconds between looks at who may still read; ``clock`` is that of what is remembered of people."""
    settings = Settings().model_copy(update=changes)
    async with (
        Hub.open(bus, store, linger=settings.linger, sockets_per_thread=settings.sockets_per_thread) as hub,
        Door.open("pusher", bus, store) as door,
        Access.open(settings, store, clock=clock, recheck=recheck) as access,
    ):
        entrance = Entrance(access, Limits(settings, store), settings)
        with bind("127.0.0.1", 0) as sock:
            app = pusher(hub, door, entrance, health(bus, store), settings)
            async with serve(app, sock, settings, grace=1) as address:
                yield address, hub


async def record(store: Store, *contents: str, thread_id: str = "t") -> list[Message]:
    """Into the table, with no announcement."""
    events = [
        MessageAccepted(thread_id=thread_id, source="user", content=content, interface="http_api", origin="nobody")
        for content in contents
    ]
    messages = (await store.record(events)).messages
    return [messages[event.message_id] for event in events]


async def announce(bus: Bus, *messages: Message) -> None:
    route = topology.announced("user", messages[0].thread_id)
    await bus.publish(route, encode([MessageRecorded(message=message) for message in messages]))


async def think(bus: Bus, *news: TurnNews) -> None:
    """Tell what an agent does just now."""
    await bus.publish(topology.thinking(news[0].thread_id), encode(news))


async def asked_by(agent: Subscription) -> str:
    """The queue of who asks for a turn."""
    async with asyncio.timeout(DEADLINE):
        (asked,) = decode((await agent.take(1))[0])
    assert isinstance(asked, RetellingAsked)
    return asked.origin
