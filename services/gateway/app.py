"""The HTTP door, put together from its routes."""

from fastapi import FastAPI

from m3 import __version__
from m3.bus import Bus
from m3.door import Door
from m3.settings import Settings
from m3.store import Store
from m3.web import BoundedBody, CountedRequests, answer_errors, health
from services.gateway.batches import PATH as BATCH_PATH
from services.gateway.batches import batches
from services.gateway.chat import chat
from services.gateway.docs import serve_docs
from services.gateway.messages import messages
from services.gateway.reading_along import ReadingAlong
from services.gateway.threads import threads


def gateway(door: Door, reading_along: ReadingAlong, bus: Bus, store: Store, settings: Settings) -> FastAPI:
    app = FastAPI(title="M3 room", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BoundedBody, limit=settings.body_limit, limits={BATCH_PATH: settings.batch_limit})
    answer_errors(app)
    app.add_middleware(CountedRequests)
    app.include_router(chat(door, reading_along, store, settings))  # first, since routes are tried one after the other
    app.include_router(health(bus, store))
    app.include_router(batches(door, settings))
    app.include_router(threads(door, bus, store, settings))
    app.include_router(messages(door, store, settings))
    serve_docs(app)
    return app
