"""Who waits for a reply, in a request or on an event stream, and is shut out meanwhile. No agent runs: tests play its
part."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from m3.bus import Bus
from m3.events import Message, ReplyGrew, TurnStarted, reply_id
from m3.store import Store, migrate, open_store
from services.recorder import recorder
from tests.support.client import streaming
from tests.support.counting import Since
from tests.support.database import private_database
from tests.support.gateway import hand_in, next_message, reply_to, running_gateway
from tests.support.issuing import AUDIENCE, outside_issuer
from tests.support.pushing import think
from tests.support.town import Town, asking, bearer_header
from tests.support.until import until

#: Seconds between looks at who may still read, where a test waits for one.
SOON = 0.05
#: What the agent says of what was said in the thread.
PRIVATE = "what only those in the thread may read"


@dataclass(frozen=True)
class Revocation:
    """``whose`` right it ends, and what they are told."""

    sql: str
    whose: str
    status: int
    code: str


_MEIS = "IN (SELECT account_id FROM accounts WHERE name = 'mei')"
REVOCATIONS = {
    "a membership": Revocation(f"DELETE FROM members WHERE principal_id {_MEIS}", "mei", 404, "not_found"),
    "an account": Revocation("UPDATE accounts SET revoked_at = now() WHERE name = 'mei'", "mei", 401, "not_signed_in"),
    "a sign-in": Revocation(
        f"UPDATE sign_ins SET revoked_at = now() WHERE account_id {_MEIS}", "mei", 401, "not_signed_in"
    ),
    "a key": Revocation("UPDATE producer_keys SET revoked_at = now()", "feed", 401, "not_signed_in"),
    "a program's reading": Revocation(
        "UPDATE members SET role = 'feeder' WHERE role = 'member'", "feed", 403, "forbidden"
    ),
}
every_revocation = pytest.mark.parametrize("revocation", REVOCATIONS.values(), ids=REVOCATIONS)


@asynccontextmanager
async def asking_gateway(
    bus: Bus, store: Store, recheck: float = SOON, **others: object
) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway that asks who somebody is, with a recorder behind it."""
    changes = asking(**others).model_dump(exclude_unset=True)
    async with recorder(bus, store, grace=1), running_gateway(bus, store, recheck, **changes) as http:
        yield http


@pytest.fixture
async def somebody(town: Town) -> dict[str, dict[str, str]]:
    """The headers of two people and a program, who all read and speak in the thread `show`."""
    credentials = {"ann": await town.person("ann"), "mei": await town.person("mei"), "feed": await town.program("feed")}
    await town.thread("show", ann="owner", mei="owner", feed="member")
    return {name: bearer_header(credential) for name, credential in credentials.items()}


def news(message: Message) -> dict[str, Any]:
    return {
        "thread_id": message.thread_id,
        "turn_id": message.message_id,
        "reply_id": reply_id(message.message_id),
    }


def started(*messages: Message) -> TurnStarted:
    answers = tuple(message.message_id for message in messages)
    return TurnStarted.model_validate(news(messages[0]) | {"in_reply_to": answers})


def grew(message: Message, index: int, text: str) -> ReplyGrew:
    return ReplyGrew.model_validate(news(message) | {"index": index, "text": text})


@every_revocation
async def test_a_stream_of_who_may_not_read_any_more_ends_and_no_other_does(
    memory_bus: Bus,
    store: Store,
    town: Town,
    somebody: dict[str, dict[str, str]],
    revocation: Revocation,
) -> None:
    async with (
        asking_gateway(memory_bus, store) as http,
        streaming(http, "hello", somebody[revocation.whose], thread_id="show") as stream,
        streaming(http, "hello too", somebody["ann"], thread_id="show") as stays,
    ):
        messages = {message.author: message for message in [await next_message(store, "show", n) for n in (1, 2)]}
        message = messages[revocation.whose]
        await think(memory_bus, started(message, messages["ann"]), grew(message, 0, "Well, "))
        assert [(await stream.next() or ("",))[0] for _ in range(3)] == ["recorded", "turn", "delta"]
        await town.sql.execute(revocation.sql)
        name, told = await stream.next() or ("", {})
        assert (name, told["code"], told["message_id"]) == ("error", revocation.code, str(message.message_id))
        await think(memory_bus, grew(message, 1, PRIVATE))
        await hand_in(memory_bus, reply_to(message, messages["ann"], content=PRIVATE))
        assert await stream.rest() == []
        assert PRIVATE in str((await stays.rest())[-1])


@every_revocation
async def test_a_waiting_request_of_who_may_not_read_any_more_is_refused_and_its_message_answered_all_the_same(
    memory_bus: Bus,
    store: Store,
    town: Town,
    somebody: dict[str, dict[str, str]],
    revocation: Revocation,
) -> None:
    async with asking_gateway(memory_bus, store) as http:
        said = {"message": "hello", "thread_id": "show"}  # with no source, which is its sender's
        waits = asyncio.create_task(http.post("/api/chat", json=said, headers=somebody[revocation.whose]))
        stays = asyncio.create_task(http.post("/api/chat", json=said, headers=somebody["ann"]))
        messages = {message.author: message for message in [await next_message(store, "show", n) for n in (1, 2)]}
        message = messages[revocation.whose]
        await town.sql.execute(revocation.sql)
        answer = await waits
        told = answer.json()
        assert (answer.status_code, told["code"]) == (revocation.status, revocation.code)
        assert told["message_id"] == str(message.message_id)
        assert ("WWW-Authenticate" in answer.headers) == (answer.status_code == 401)
        await hand_in(memory_bus, reply_to(*messages.values(), content=PRIVATE))
        assert (await stays).json()["response"] == PRIVATE
        answered = await store.message(message.message_id)
        assert answered is not None
        assert answered.fate == "answered"


async def test_who_may_only_read_by_now_is_told_the_reply(
    memory_bus: Bus, store: Store, town: Town, somebody: dict[str, dict[str, str]]
) -> None:
    async with (
        asking_gateway(memory_bus, store) as http,
        streaming(http, "hello", somebody["mei"], thread_id="show") as stays,
        streaming(http, "hello", somebody["feed"], thread_id="show") as looked_at,
    ):
        messages = [await next_message(store, "show", number) for number in (1, 2)]
        await town.sql.execute("UPDATE members SET role = CASE role WHEN 'owner' THEN 'reader' ELSE 'feeder' END")
        assert names(await looked_at.rest()) == ["recorded", "error"]
        await hand_in(memory_bus, reply_to(*messages))
        assert names(await stays.rest()) == ["recorded", "new_message"]


def names(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [name for name, _ in events]


async def test_a_stream_ends_with_the_token_of_an_outside_issuer(memory_bus: Bus, store: Store, town: Town) -> None:
    async with outside_issuer() as issuer:
        outside = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
        async with asking_gateway(memory_bus, store, 3600, **outside) as http:
            await town.thread("show", "open")
            headers = bearer_header(issuer.token("first", exp=int(time.time()) + 2))
            async with streaming(http, "hello", headers, thread_id="show") as stream:
                told = await stream.rest()
                assert names(told) == ["recorded", "error"]
                assert (told[-1][1]["code"], told[-1][1]["message"]) == ("not_signed_in", "Sign in again.")


async def test_while_the_database_is_away_who_waits_stays_and_is_looked_at_when_it_is_back(memory_bus: Bus) -> None:
    async with private_database() as database:
        await migrate(database.url)
        async with open_store(database.url, pool_size=2, command_timeout=0.5) as store, AsyncExitStack() as stack:
            town = await stack.enter_async_context(Town.of(database.url))
            mei = bearer_header(await town.person("mei"))
            await town.thread("show", mei="member")
            http = await stack.enter_async_context(asking_gateway(memory_bus, store))
            stream = await stack.enter_async_context(streaming(http, "hello", mei, thread_id="show"))
            message = await next_message(store, "show")
            since = Since()
            database.freeze(frozen=True)
            await until(lambda: since.counted("m3_database_failures_total") >= 2)
            await think(memory_bus, started(message), grew(message, 0, "Well, "))
            assert [(await stream.next() or ("",))[0] for _ in range(3)] == ["recorded", "turn", "delta"]
            database.freeze(frozen=False)
            await town.sql.execute("DELETE FROM members")
            assert [(name, told["code"]) for name, told in await stream.rest()] == [("error", "not_found")]
