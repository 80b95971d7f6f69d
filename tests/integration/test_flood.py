"""Programs that say more than the agent can answer: at both doors, with no agent at all."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from m3.bus import Bus, open_bus
from m3.store import Store
from m3.threads import ThreadSettings
from services.recorder import recorder
from tests.support.client import socket, streaming
from tests.support.gateway import hand_in, next_message, reply_to, running_gateway
from tests.support.pushing import running_pusher

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


async def program(http: httpx2.AsyncClient, message: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    return await http.post("/api/chat", json={"message": message, "source": "api"}, headers=headers)


async def test_a_thread_in_which_too_much_of_programs_waits_takes_no_more_until_there_is_room(
    bus: Bus, store: Store
) -> None:
    async with recorder(bus, store, grace=1), running_gateway(bus, store, api_bound=2) as http:
        for number in range(2):
            assert (await program(http, str(number), ASYNC)).status_code == 202
        refused = await program(http, "2", ASYNC)
        assert (refused.status_code, refused.json()["code"]) == (429, "thread_flooded")
        assert refused.headers["Retry-After"].isdigit()
        async with streaming(http, "2", source="api") as stream:
            assert stream.response.status_code == 429
        assert await store.head("default") == 2
        await hand_in(bus, reply_to(await next_message(store)))
        await next_message(store, number=3)
        assert (await program(http, "2", ASYNC)).status_code == 202


async def test_a_known_key_stands_for_its_message_in_a_flooded_thread_too(bus: Bus, store: Store) -> None:
    known, unknown = {"Idempotency-Key": "known"}, {"Idempotency-Key": "unknown"}
    async with recorder(bus, store, grace=1), running_gateway(bus, store, api_bound=1) as http:
        first = await program(http, "hello", known | ASYNC)
        again = await program(http, "hello", known | ASYNC)
        assert (again.status_code, again.json()["message_id"]) == (202, first.json()["message_id"])
        for message, key, status, code in (
            ("another", known, 422, "key_reused"),
            ("hello", unknown, 429, "thread_flooded"),
        ):
            refused = await program(http, message, key)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
        waiting = asyncio.create_task(program(http, "hello", known))
        async with streaming(http, "hello", known, source="api") as stream:
            await hand_in(bus, reply_to(await next_message(store)))
            assert [name for name, _ in await stream.rest()] == ["recorded", "new_message"]
        assert (await waiting).json()["response"] == "reply"
        assert await store.head("default") == 2


async def test_people_are_heard_in_a_flooded_thread_and_programs_in_others(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store, api_bound=1) as http:
        await program(http, "all that it takes", ASYNC)
        for said in ({"source": "user"}, {"source": "api", "thread_id": "elsewhere"}):
            answer = await http.post("/api/chat", json={"message": "hello", **said}, headers=ASYNC)
            assert answer.status_code == 202


async def test_a_socket_is_refused_as_well_and_goes_on(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_pusher(memory, store, api_bound=1) as (address, _),
        socket(address, "t") as talker,
    ):
        await talker.say("one", "api")
        await talker.send(json.dumps({"type": "message", "message": "two", "source": "api", "client_id": "2"}))
        refused = await talker.next("error")
        assert (refused["code"], refused["client_id"]) == ("thread_flooded", "2")
        assert (await talker.say("three"))["seq"] == 2


async def test_a_message_said_again_on_a_socket_is_confirmed_in_a_flooded_thread_too(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_pusher(memory, store, api_bound=1) as (address, _),
        socket(address, "t") as talker,
    ):
        one = await talker.say("one", "api", client_id="1")
        assert await talker.say("one", "api", client_id="1") == one


async def test_a_program_behind_a_whole_batch_is_told_its_place_and_does_not_wait(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store, batch_messages=2) as http:
        waiting = [asyncio.create_task(program(http, "first"))]
        await next_message(store, number=1)
        waiting.append(asyncio.create_task(program(http, "second")))
        await next_message(store, number=2)
        for place in (2, 3):
            answer = await program(http, "far behind")
            assert (answer.status_code, answer.json()["fate"], answer.json()["place"]) == (202, "pending", place)
            assert answer.headers["Location"] == f"/api/messages/{answer.json()['message_id']}"
        async with streaming(http, "far behind", source="api") as stream:
            (_, recorded), (name, body) = await stream.rest()
            assert (name, body["place"], body["message_id"]) == ("pending", 4, recorded["message_id"])
        both = [await next_message(store, number=number) for number in (1, 2)]
        await hand_in(memory, reply_to(*both))
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]


@pytest.mark.parametrize(("own", "waits"), [(1, False), (3, True)])
async def test_how_many_one_reply_answers_may_be_the_threads_own(
    memory: Bus, store: Store, own: int, *, waits: bool
) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store, batch_messages=2, reply_timeout=0.05) as http,
    ):
        await store.change_settings("default", ThreadSettings(batch_messages=own))
        await program(http, "before", ASYNC)
        assert (await program(http, "hello")).json()["place"] == (None if waits else 1)


async def test_who_does_not_wait_is_told_its_place_if_it_is_a_program(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:

        async def place(source: str) -> Any:
            answer = await http.post("/api/chat", json={"message": "hello", "source": source}, headers=ASYNC)
            return answer.json()["place"]

        assert [await place(source) for source in ("api", "user", "api")] == [0, None, 1]
