"""The one place where services are wired to a bus, a store and each other's lifetimes.

Leaving a block is the only shutdown code: what was opened last stops first, so doors close before the recorder does.
Each ``run_…`` yields a sentence for the person who started it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from m3 import tracing, upkeep
from m3.access.access import Access, tokens_of
from m3.access.accounts import FIRST_OPERATOR, Accounts, at_the_machine
from m3.access.invites import Invites
from m3.access.limits import Limits
from m3.access.memberships import Memberships
from m3.access.office import Office
from m3.access.passwords import Passwords
from m3.access.tokens import keys_in
from m3.bus import Bus, open_bus
from m3.commands import Command, Desk
from m3.door import Door
from m3.errors import Denied, StartError, StoreUnavailable, Unchanged
from m3.sealing import Masters
from m3.settings import LOOPBACK, Settings
from m3.store import Store, migrate, open_store
from m3.store.directory import Directory
from m3.store.embedded import embedded_postgres, reached_postgres
from m3.tracing import FLUSH_TIMEOUT
from m3.web import answer_errors, bind, health, serve
from services.demo_model import demo_model
from services.gateway import ReadingAlong, gateway
from services.pusher import Entrance, Hub, pusher
from services.recorder import recorder

if TYPE_CHECKING:
    from services.doctor import Report

#: Seconds that it takes at most to leave a broker and a database that do not answer.
LEAVING = 4.0
#: Seconds between attempts to reach the database at the start.
RETRY_INTERVAL = 1.0
#: Seconds that `m3 migrate` waits for a database that is away.
MIGRATE_PATIENCE = 60.0

#: Something to say in a new room.
EXAMPLE = '{"message": "你好", "thread_id": "default", "source": "user"}'
#: What whoever has an account signs in with.
SIGN_IN = '{"name": "…", "password": "…"}'

T = TypeVar("T")

log = structlog.get_logger(__name__)


@asynccontextmanager
async def run_room(settings: Settings) -> AsyncIterator[str]:
    """All services in this process, on one port."""
    if settings.auth_required and settings.token_keys is None:
        settings = settings.model_copy(update={"token_keys": SecretStr(keys_in(settings.data_dir))})
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(_doorway(settings))  # first, since a port in use should cost no database start
        bus, store = await stack.enter_async_context(_backbone(settings, "room"))
        # What stops one after the other shares the grace: first the doors, then the agent and the recorder.
        share = _patience(settings) / 3
        await stack.enter_async_context(recorder(bus, store, grace=share))
        await stack.enter_async_context(_agent(bus, store, settings, grace=share))
        access = await stack.enter_async_context(Access.open(settings, store))
        sockets = await stack.enter_async_context(_pusher(bus, store, access, settings))
        http, hurry = await stack.enter_async_context(_gateway(bus, store, access, settings))

        async def one_port(scope: Scope, receive: Receive, send: Send) -> None:
            await (sockets if scope["type"] == "websocket" else http)(scope, receive, send)

        address = await stack.enter_async_context(serve(one_port, sock, settings, grace=share, hurry=hurry))
        yield _welcome(address, settings)


@asynccontextmanager
async def run_gateway(settings: Settings) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(_doorway(settings))
        bus, store = await stack.enter_async_context(_shared_backbone(settings, "gateway"))
        access = await stack.enter_async_context(Access.open(settings, store))
        app, hurry = await stack.enter_async_context(_gateway(bus, store, access, settings))
        serving = serve(app, sock, settings, grace=_patience(settings), hurry=hurry)
        address = await stack.enter_async_context(serving)
        yield f"The gateway listens on {address}"


@asynccontextmanager
async def run_pusher(settings: Settings) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(_doorway(settings))
        bus, store = await stack.enter_async_context(_shared_backbone(settings, "pusher"))
        access = await stack.enter_async_context(Access.open(settings, store))
        app = await stack.enter_async_context(_pusher(bus, store, access, settings))
        address = await stack.enter_async_context(serve(app, sock, settings, grace=_patience(settings)))
        yield f"The pusher listens on {address}"


@asynccontextmanager
async def run_recorder(settings: Settings) -> AsyncIterator[str]:
    async with (
        _shared_backbone(settings, "recorder") as (bus, store),
        _status(bus, store, settings) as where,
        recorder(bus, store, grace=_patience(settings)),
    ):
        yield f"The recorder runs{where}"


@asynccontextmanager
async def run_agent(settings: Settings) -> AsyncIterator[str]:
    grace = settings.turn_timeout + _patience(settings)  # a turn that runs is finished
    async with (
        _shared_backbone(settings, "agent") as (bus, store),
        _status(bus, store, settings) as where,
        _agent(bus, store, settings, grace=grace),
    ):
        yield f"The agent runs{where}"


@asynccontextmanager
async def run_demo_model(settings: Settings) -> AsyncIterator[str]:
    with bind(settings.host, settings.port) as sock:
        async with serve(demo_model(), sock, settings, grace=settings.grace) as address:
            yield f"The demo model listens on {address}/v1"


async def migrate_database(settings: Settings) -> str:
    """Bring the tables to this version; returns a sentence about it. Raises StartError."""
    if settings.database_url is None:
        raise StartError("Set DATABASE_URL=postgresql://…; `m3 up` sees to the tables of its own database by itself.")
    try:
        done = await _when_up(partial(migrate, settings.database_url.get_secret_value()), MIGRATE_PATIENCE)
    except StoreUnavailable:
        raise StartError("The database does not answer; `m3 doctor` says more of it.") from None
    return f"The database was brought up to date: {', '.join(done)}." if done else "The database is up to date."


async def at_the_desk(settings: Settings, tenant: str | None, command: Command) -> str:
    """Have a command done on behalf of the tenant, or the first one; returns what it tells. Raises StartError."""
    tenants = settings.tenant_names
    if tenant is not None and tenant not in tenants:
        raise StartError(f"There is no tenant {tenant}: TENANTS names {', '.join(tenants)}.")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_store_at_hand(settings))
        passwords, directory = stack.enter_context(Passwords.open()), Directory(store)
        desk = Desk(
            at_the_machine(tenant or tenants[0]),
            Accounts(directory, passwords),
            Memberships(directory),
            Invites(directory),
        )
        try:
            return await command(desk)
        except (Denied, Unchanged) as error:
            raise StartError(str(error)) from None


async def see_to_content(settings: Settings, work: upkeep.Work) -> bool:
    """Have something done about what is sealed, which says what it does; returns whether all is well. Raises
    StartError."""
    async with _store_at_hand(settings) as store:
        return await work(store, print)


@asynccontextmanager
async def _store_at_hand(settings: Settings) -> AsyncIterator[Store]:
    """For a command: the store of the settings, or of the room in this folder, whether that runs or not. Raises
    StartError, also of a block that the database fails."""
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            url = await stack.enter_async_context(reached_postgres(settings.data_dir))
        else:
            url = settings.database_url.get_secret_value()
        try:
            await _when_up(partial(migrate, url), MIGRATE_PATIENCE)
            yield await stack.enter_async_context(open_store(url, pool_size=2, masters=Masters.of(settings)))
        except StoreUnavailable:
            raise StartError("The database does not answer; `m3 doctor` says more of it.") from None


async def examine(settings: Settings, *, edge_url: str | None, hold: float) -> "Report":
    """Look at everything that a room with these settings stands on."""
    from services.agent import first_text, known_models, open_model  # here, as in _agent, and before anything is timed
    from services.doctor import Questions, examine

    @asynccontextmanager
    async def questions() -> AsyncIterator[Questions]:
        assert settings.llm_base_url is not None  # or nothing is asked
        asking = open_model(
            settings.llm_base_url,
            name=settings.llm_model,
            api_key=settings.llm_api_key,
            turn_timeout=settings.turn_timeout,
            attempts=2,  # the second without what a server may refuse at the first
            open_end=settings.llm_open_end,
        )
        async with asking as model:
            yield Questions(partial(known_models, model), partial(first_text, model))

    return await examine(settings, questions=questions, edge_url=edge_url, hold=hold)


@asynccontextmanager
async def _backbone(settings: Settings, service: str) -> AsyncIterator[tuple[Bus, Store]]:
    """The bus, and the store with its tables up to date; an embedded PostgreSQL where no URL is given. Around them, so
    that it ends last, what exports the spans of the service."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(tracing.exported(settings, service))
        broker_url, timeout = settings.broker_url.get_secret_value(), settings.publish_timeout
        bus = await stack.enter_async_context(
            open_bus(broker_url, publish_timeout=timeout, heartbeat=settings.heartbeat)
        )
        if settings.database_url is None:
            url = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        else:
            url = settings.database_url.get_secret_value()
        await _when_up(partial(migrate, url))
        store = await stack.enter_async_context(
            open_store(
                url,
                pool_size=settings.database_pool,
                command_timeout=settings.database_timeout,
                acquire_timeout=settings.acquire_timeout,
                masters=Masters.of(settings),
                searchable=settings.search,
            )
        )
        if service != "recorder":  # which never opens anything, and needs no keys
            await _when_up(partial(upkeep.check, store))
        yield bus, store


@asynccontextmanager
async def _shared_backbone(settings: Settings, service: str) -> AsyncIterator[tuple[Bus, Store]]:
    """As _backbone, for a service that runs alone and so can reach the others only through servers."""
    if settings.broker_url.get_secret_value().startswith("memory:"):
        raise StartError("A service of its own needs BROKER_URL=amqp://…; `m3 up` runs all of them in one process.")
    if settings.database_url is None:
        raise StartError("A service of its own needs DATABASE_URL=postgresql://…; `m3 up` brings a database along.")
    async with _backbone(settings, service) as backbone:
        yield backbone


@asynccontextmanager
async def _status(bus: Bus, store: Store, settings: Settings) -> AsyncIterator[str]:
    """Health and metrics of a service that has no door of its own, where METRICS_PORT is set; yields where."""
    if settings.metrics_port is None:
        yield ""
        return
    app = FastAPI(title="M3 status", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)
    app.include_router(health(bus, store))
    with bind(settings.host, settings.metrics_port) as sock:
        async with serve(app, sock, settings, grace=1) as address:
            yield f", its metrics at {address}/metrics"


def _patience(settings: Settings) -> float:
    """Seconds of the grace in which work may end; the rest is for leaving servers that do not answer."""
    leaving = LEAVING + (FLUSH_TIMEOUT if settings.otel_exporter_otlp_endpoint else 0)
    return max(settings.grace - leaving, settings.grace / 2)


def _doorway(settings: Settings) -> socket.socket:
    tokens_of(settings)  # whose mistakes are told before the database is waited for
    if not settings.auth_required and settings.host not in LOOPBACK:
        if not settings.auth_open_anywhere:
            raise StartError(
                f"With AUTH=open whoever reaches {settings.host} may read and write. "
                "Set AUTH=required, or AUTH_OPEN_ANYWHERE=true if that is what you want."
            )
        log.warning("nobody is asked who they are: whoever reaches this address may read and write", host=settings.host)
    return bind(settings.host, settings.port)


async def _when_up(do: Callable[[], Awaitable[T]], patience: float = inf) -> T:
    """What it returns once the database is up. Raises StoreUnavailable where that is away for so many seconds."""
    now = asyncio.get_running_loop().time
    end = now() + patience
    while True:
        try:
            return await do()
        except StoreUnavailable as error:
            if now() >= end:
                raise
            log.warning("waiting for the database", reason=str(error.__cause__ or error))
            await asyncio.sleep(RETRY_INTERVAL)


@asynccontextmanager
async def _gateway(
    bus: Bus, store: Store, access: Access, settings: Settings
) -> AsyncIterator[tuple[ASGIApp, Callable[[], None]]]:
    """The app, and what lets its waiting requests go."""
    limits = Limits(settings, store)
    async with (
        AsyncExitStack() as stack,
        Door.open("gateway", bus, store) as door,
        ReadingAlong.open(bus, store, linger=settings.linger) as reading_along,
    ):
        office = stack.enter_context(Office.open(settings, access)) if access.required else None
        if office is not None:
            await _let_the_first_in(office, settings)
        yield gateway(door, reading_along, access, office, limits, bus, store, settings), door.stop_waiting


async def _let_the_first_in(office: Office, settings: Settings) -> None:
    """At the first start there is nobody who could let others in. The password is told to whoever started the room, and
    at once, since nobody is told it again whatever comes next."""
    password = await _when_up(partial(office.accounts.begin, settings.tenant_names))
    if password is not None:
        who = f"{FIRST_OPERATOR} of the tenant {settings.tenant_names[0]}"
        print(
            f"Sign in first as {who}, with this one-time password, which is shown once: {password}\n"
            "and with a new_password of your own.",
            flush=True,
        )


@asynccontextmanager
async def _pusher(bus: Bus, store: Store, access: Access, settings: Settings) -> AsyncIterator[ASGIApp]:
    opening = Hub.open(bus, store, linger=settings.linger, sockets_per_thread=settings.sockets_per_thread)
    async with opening as hub, Door.open("pusher", bus, store) as door:
        entrance = Entrance(access, Limits(settings, store), settings)
        yield pusher(hub, door, entrance, health(bus, store), settings)


@asynccontextmanager
async def _agent(bus: Bus, store: Store, settings: Settings, *, grace: float) -> AsyncIterator[None]:
    from services.agent import agent, open_model  # here, since importing openai takes most of a second

    async with AsyncExitStack() as stack:
        base_url = settings.llm_base_url
        if base_url is None:
            sock = stack.enter_context(bind("127.0.0.1", 0))
            base_url = await stack.enter_async_context(serve(demo_model(), sock, settings, grace=1)) + "/v1"
        model = await stack.enter_async_context(
            open_model(
                base_url,
                name=settings.llm_model,
                api_key=settings.llm_api_key,
                turn_timeout=settings.turn_timeout,
                attempts=settings.llm_attempts,
                open_end=settings.llm_open_end,
                sealed=settings.content_keys is not None,
            )
        )
        await stack.enter_async_context(agent(bus, store, model, settings, grace=grace))
        yield


def _welcome(address: str, settings: Settings) -> str:
    what, path, body = ("Sign in:", "login", SIGN_IN) if settings.auth_required else ("Try it:", "chat", EXAMPLE)
    lines = [
        f"The room is {'at' if settings.auth_required else 'open:'} {address}",
        f"{what:<18}curl -X POST {address}/api/{path} -H 'Content-Type: application/json' -d '{body}'",
        f"Its API:          {address}/docs",
    ]
    if settings.llm_base_url is None:
        lines.append("Its agent:        the built-in demo model; set LLM_BASE_URL and LLM_MODEL for a real one")
    return "\n".join(lines)
