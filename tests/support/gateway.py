"""A gateway on a server, on whatever bus and store, and an agent's part played by hand."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import httpx2

from m3 import topology
from m3.access.access import Access
from m3.access.admissions import RECHECK
from m3.access.limits import Limits
from m3.access.office import Office
from m3.bus import Bus
from m3.door import Door
from m3.events import (
    Incoming,
    Message,
    MessageAccepted,
    MessagesPassedOver,
    PassedOverFate,
    TurnFailed,
    encode,
    reply_id,
)
from m3.settings import Settings
from m3.store import Store
from m3.web import bind, serve
from services.gateway import ReadingAlong, gateway
from tests.support.client import client
from tests.support.until import until


@asynccontextmanager
async def serving_gateway(bus: Bus, store: Store, recheck: float = RECHECK, /, **changes: object) -> AsyncIterator[str]:
    """``recheck``: seconds between looks at who may still read."""
    settings = Settings().model_copy(update={"linger": 0} | changes)
    async with (
        Door.open("gateway", bus, store) as door,
        ReadingAlong.open(bus, store, linger=settings.linger) as reading_along,
        Access.open(settings, store, recheck=recheck) as access,
    ):
        with ExitStack() as stack:
            office = stack.enter_context(Office.open(settings, access)) if access.required else None
            app = gateway(door, reading_along, access, office, Limits(settings, store), bus, store, settings)
            sock = stack.enter_context(bind("127.0.0.1", 0))
            async with serve(app, sock, settings, grace=settings.grace, hurry=door.stop_waiting) as address:
                yield address


@asynccontextmanager
async def running_gateway(
    bus: Bus, store: Store, recheck: float = RECHECK, /, **changes: object
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of one."""
    async with serving_gateway(bus, store, recheck, **changes) as address, client(address) as http:
        yield http


async def hand_in(bus: Bus, *events: Incoming) -> None:
    await bus.publish(topology.accepted(), encode(events))


async def next_message(store: Store, thread_id: str = "default", number: int = 1) -> Message:
    """The message of that number, once it is recorded."""

    async def is_there() -> bool:
        return await store.head(thread_id) >= number

    await until(is_there)
    (message,) = await store.following(thread_id, number - 1, 1)
    return message


def reply_to(*messages: Message, content: str = "reply", cancelled: bool = False) -> MessageAccepted:
    return MessageAccepted(
        message_id=reply_id(messages[0].message_id),
        thread_id=messages[0].thread_id,
        source="assistant",
        content=content,
        interface="http_api",
        origin="nobody",
        in_reply_to=tuple(message.message_id for message in messages),
        cancelled=cancelled,
    )


def failure_of(*messages: Message) -> TurnFailed:
    ids = tuple(message.message_id for message in messages)
    return TurnFailed(thread_id=messages[0].thread_id, message_ids=ids, reason="No model.", origin="nobody")


def passed_over(message: Message, fate: PassedOverFate, repeats: Message | None = None) -> MessagesPassedOver:
    return MessagesPassedOver(
        thread_id=message.thread_id,
        message_ids=(message.message_id,),
        fate=fate,
        reason="Why.",
        origin="nobody",
        reply_id=reply_id(repeats.message_id) if repeats else None,
    )
