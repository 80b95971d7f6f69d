"""A gateway on a server, on whatever bus and store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from m3.bus import Bus
from m3.door import Door
from m3.settings import Settings
from m3.store import Store
from m3.web import bind, serve
from services.gateway import gateway


@asynccontextmanager
async def serving_gateway(bus: Bus, store: Store, **changes: object) -> AsyncIterator[str]:
    settings = Settings().model_copy(update=changes)
    async with Door.open("gateway", bus, store) as door:
        app = gateway(door, bus, store, settings)
        with bind("127.0.0.1", 0) as sock:
            async with serve(app, sock, settings, grace=settings.grace, hurry=door.stop_waiting) as address:
                yield address
