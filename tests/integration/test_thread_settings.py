"""Setting how the agent deals with a thread, and stopping its turn."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from m3 import topology
from m3.bus import Bus, open_bus
from m3.bus.memory import MemoryBus
from m3.errors import BusUnavailable
from m3.events import AnyEvent, CancelAsked, decode
from m3.store import Store, open_store
from m3.threads import MAX_PROMPT, ThreadSettings
from m3.topology import Route
from tests.support.client import socket
from tests.support.gateway import running_gateway
from tests.support.pushing import running_pusher
from tests.support.until import DEADLINE

ROOM = dict.fromkeys(ThreadSettings.model_fields)
WHERE = "/api/threads/t/settings"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


class Away(MemoryBus):
    """A broker that takes nothing."""

    async def publish(self, route: Route, body: bytes) -> None:
        raise BusUnavailable("away")


async def test_a_thread_is_as_the_room_has_it_until_it_is_set_and_each_time_as_a_whole(
    memory: Bus, store: Store
) -> None:
    async with running_gateway(memory, store) as http:
        assert (await http.get(WHERE)).json() == {"thread_id": "t", "settings": ROOM}
        for wanted in (
            {"system_prompt": "说汉语。👋", "user_policy": "coalesce", "api_ttl": 0.5, "api_cap": 7},
            {"pause": "wait", "merge_window": 0, "batch_messages": None},
            {"api_cap": 12.0},
            {},
        ):
            answer = await http.put(WHERE, json=wanted)
            assert (answer.status_code, answer.json()) == (200, {"thread_id": "t", "settings": ROOM | wanted})
            assert (await http.get(WHERE)).json() == answer.json()
            assert await store.thread_settings("t") == ThreadSettings.model_validate(wanted)
        assert (await http.get("/api/threads/elsewhere/settings")).json()["settings"] == ROOM


async def test_agents_of_both_lanes_look_again_after_a_change(bus: Bus, store: Store) -> None:
    async with running_gateway(bus, store) as http:
        assert (await http.put(WHERE, json={"pause": "ignore"})).status_code == 200
        for queue, key in ((topology.AGENT_USER, "user.t"), (topology.AGENT_API, "api.t")):
            async with bus.consume(queue, prefetch=1) as agent, asyncio.timeout(DEADLINE):
                (knock,) = await agent.take(1)
                assert (knock.key, decode(knock.body)) == (key, [])


async def test_settings_are_kept_while_the_broker_is_away(store: Store) -> None:
    async with running_gateway(Away(), store) as http:
        assert (await http.put(WHERE, json={"pause": "wait"})).status_code == 200
        assert (await http.get(WHERE)).json()["settings"]["pause"] == "wait"


@pytest.mark.parametrize(
    "body",
    [
        '{"systm_prompt": "x"}',
        '{"\\ud800": "x"}',
        '{"\\u0000": "x"}',
        '{"system_prompt": "\\u0000"}',
        '{"system_prompt": "a\\ud800"}',
        '{"system_prompt": " "}',
        '{"system_prompt": "' + "x" * (MAX_PROMPT + 1) + '"}',
        '{"user_policy": "both"}',
        '{"pause": true}',
        '{"api_ttl": 0}',
        '{"api_ttl": "5"}',
        '{"api_ttl": NaN}',
        '{"merge_window": 1e999}',
        '{"api_cap": 0}',
        '{"batch_messages": 1.5}',
        "[]",
        "null",
    ],
)
async def test_what_cannot_be_set_is_refused_and_changes_nothing(memory: Bus, store: Store, body: str) -> None:
    await store.change_settings("t", ThreadSettings(pause="wait"))
    async with running_gateway(memory, store) as http:
        refused = await http.put(WHERE, content=body, headers=JSON)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        assert await store.thread_settings("t") == ThreadSettings(pause="wait")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        ("{}".encode("utf-16"), "application/json", 400),
        (b"\xff", "application/json", 400),
    ],
)
async def test_settings_are_json(memory: Bus, store: Store, body: bytes, kind: str, status: int) -> None:
    async with running_gateway(memory, store) as http:
        refused = await http.put(WHERE, content=body, headers={"Content-Type": kind})
        code = "malformed_body" if status == 400 else "unsupported_media_type"
        assert (refused.status_code, refused.json()["code"]) == (status, code)


async def test_another_method_is_told_which_ones_there_are(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store) as http:
        refused = await http.delete(WHERE)
        assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
        assert refused.headers["Allow"] == "GET, PUT"


async def test_settings_of_what_is_no_thread_are_refused(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store) as http:
        for answer in (
            await http.get("/api/threads/a.b/settings"),
            await http.put("/api/threads/a.b/settings", json={}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_without_the_database_settings_are_not_to_be_had(memory: Bus) -> None:
    async with (
        open_store("postgresql://127.0.0.1:1/room", pool_size=2) as away,
        running_gateway(memory, away) as http,
    ):
        for answer in (await http.get(WHERE), await http.put(WHERE, json={})):
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


async def cancel(http: httpx2.AsyncClient, **headers: str) -> httpx2.Response:
    return await http.post("/api/threads/t/cancel", headers=headers)


async def test_both_doors_ask_every_agent_to_stop(bus: Bus, store: Store) -> None:
    async with (
        bus.subscribe("agent") as one,
        bus.subscribe("agent") as other,
        running_gateway(bus, store) as http,
        running_pusher(bus, store) as (address, _),
        socket(address, "t") as talker,
    ):
        for agent in (one, other):
            await agent.bind(topology.CHAT_CONTROL, topology.EVERY_CANCELLATION[0])
        answer = await cancel(http)
        assert (answer.status_code, answer.json()) == (202, {"thread_id": "t"})
        await talker.send('{"type": "cancel"}')
        assert await talker.next("cancelling") == {"type": "cancelling", "thread_id": "t"}
        for agent in (one, other):
            heard: list[AnyEvent] = []
            async with asyncio.timeout(DEADLINE):
                while len(heard) < 2:
                    heard += [event for body in await agent.take(9) for event in decode(body)]
            assert heard == [CancelAsked(thread_id="t")] * 2


async def test_where_nobody_can_be_asked_to_stop_both_doors_say_so(store: Store) -> None:
    async with (
        running_gateway(Away(), store) as http,
        running_pusher(Away(), store) as (address, _),
        socket(address, "t") as talker,
    ):
        refused = await cancel(http)
        assert (refused.status_code, refused.json()["code"]) == (503, "broker_unavailable")
        await talker.send('{"type": "cancel"}')
        assert (await talker.next("error"))["code"] == "broker_unavailable"


async def test_a_page_of_another_host_may_not_stop_a_turn(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store) as http:
        refused = await cancel(http, Origin="https://evil.example")
        assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
