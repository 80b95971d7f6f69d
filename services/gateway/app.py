"""The HTTP door, put together from its routes."""

from fastapi import FastAPI

from m3 import __version__
from m3.access.access import Access
from m3.access.limits import Limits
from m3.access.office import Office
from m3.bus import Bus
from m3.door import Door
from m3.settings import Settings
from m3.store import Store
from m3.web import BoundedBody, CountedRequests, answer_errors, health
from services.gateway.accounts import accounts
from services.gateway.asking import ask_who
from services.gateway.batches import PATH as BATCH_PATH
from services.gateway.batches import batches
from services.gateway.chat import chat
from services.gateway.described import describe_credentials
from services.gateway.docs import serve_docs
from services.gateway.front import PAGE, front
from services.gateway.invites import invites
from services.gateway.listing import listing
from services.gateway.me import me
from services.gateway.members import members
from services.gateway.messages import messages
from services.gateway.reading_along import ReadingAlong
from services.gateway.room import room
from services.gateway.search import search
from services.gateway.signing_in import signing_in
from services.gateway.threads import threads


def gateway(  # noqa: PLR0913, PLR0917  # one of each that its routes share
    door: Door,
    reading_along: ReadingAlong,
    access: Access,
    office: Office | None,
    limits: Limits,
    bus: Bus,
    store: Store,
    settings: Settings,
) -> FastAPI:
    """``office``: of a room that asks who somebody is, and of no other.

    Raises StartError where no rule says who may use a route.
    """
    app = FastAPI(title="M3 room", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BoundedBody, limit=settings.body_limit, limits={BATCH_PATH: settings.batch_limit})
    answer_errors(app)
    app.add_middleware(CountedRequests)
    routers = [
        chat(door, reading_along, access, store, settings),  # first, since routes are tried one after the other
        health(bus, store),
        front(PAGE),
        room(settings),
        batches(door, access, limits, settings),
        listing(access),
        threads(door, bus, store, settings),
        search(store),
        messages(door, access, store, settings),
        me(access),
    ]
    if office is not None:
        routers += [
            signing_in(access, office, limits, settings),
            accounts(office, store, settings),
            members(office, settings),
            invites(office, settings),
        ]
        describe_credentials(app)
    for router in routers:  # and not include_router, which would find each route twice, and hide it from ask_who
        app.router.routes += router.routes
    serve_docs(app)
    ask_who(app, access, limits)
    return app
