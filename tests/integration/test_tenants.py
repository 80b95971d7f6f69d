"""Threads of several tenants that are called the same, from the door to the table and back to who listens."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from m3.bus import Bus
from m3.events import CancelAsked, encode
from m3.store import Store
from m3.tenants import DEFAULT, key_of
from m3.topology import asked_to_cancel
from services.pusher import Hub
from services.pusher.outbox import Outbox
from services.recorder import recorder
from tests.support.answering import Agents, repeats, spoken, visited
from tests.support.gateway import running_gateway
from tests.support.pushing import running_pusher
from tests.support.scripted_model import holds, says, scripted_model
from tests.support.town import Town, asking, bearer_header
from tests.support.until import until
from tests.support.writing import Writer

KEYS = [key_of(tenant, thread_id) for tenant in (DEFAULT, "acme", "a") for thread_id in ("acme", "default")]


@asynccontextmanager
async def listening(hub: Hub, key: str) -> AsyncIterator[Writer]:
    """What a socket of the thread is sent."""
    writer = Writer()
    async with hub.joined(key, Outbox(writer, 2**20, all_events=True), "ann") as seat:
        seat.listen()
        yield writer


def shown(writer: Writer) -> list[dict[str, Any]]:
    frames = b"".join(writer.writes).decode("utf-8", "ignore")
    decoder = json.JSONDecoder()
    return [decoder.raw_decode(frames, place)[0] for place in _starts(frames)]


def _has_heard(socket: Writer, said: list[str]) -> bool:
    return [frame["content"] for frame in shown(socket) if frame["type"] == "new_message"] == said


def _starts(frames: str) -> list[int]:
    return [place for place in range(len(frames)) if frames.startswith('{"type":', place)]


async def test_each_thread_is_answered_and_its_sockets_hear_of_it_alone_by_its_id(
    bus: Bus, store: Store, agents: Agents
) -> None:
    async with (
        scripted_model(repeats) as model,
        visited(bus, store) as visitor,
        agents(bus, model, count=2),
        running_pusher(bus, store) as (_, hub),
        AsyncExitStack() as stack,
    ):
        sockets = {key: await stack.enter_async_context(listening(hub, key)) for key in KEYS}
        asked = await asyncio.gather(*(visitor.ask(f"hi {key}", thread_id=key) for key in KEYS))
        assert {message.fate for message in asked} == {"answered"}
        for key, socket in sockets.items():
            said = [f"hi {key}", f"heard [user] hi {key}"]
            assert await spoken(store, key) == said
            await until(partial(_has_heard, socket, said))
            assert {frame["thread_id"] for frame in shown(socket)} == {key.rpartition(".")[2]}
            assert {frame["type"] for frame in shown(socket)} >= {"presence", "turn", "delta", "fate", "new_message"}
            (presence, *_) = [frame for frame in shown(socket) if frame["type"] == "presence"]
            assert presence["connections"] == 1


@pytest.mark.parametrize("key", ["acme.t", "t"])
async def test_a_turn_is_stopped_in_the_thread_that_is_meant_and_no_other(
    bus: Bus, store: Store, agents: Agents, key: str
) -> None:
    enough = asyncio.Event()
    keys = ("acme.t", "t")
    async with (
        scripted_model(lambda _: holds(enough, says("whole"))) as model,
        visited(bus, store) as visitor,
        agents(bus, model),
    ):
        said = {one: await visitor.say("hi", thread_id=one) for one in keys}
        await until(lambda: len(model.asked) == len(keys))
        await bus.publish(asked_to_cancel(key), encode([CancelAsked(thread_id=key)]))
        assert (await visitor.outcome(said.pop(key))).fate == "cancelled"
        enough.set()
        (other,) = said.values()
        assert (await visitor.outcome(other)).fate == "answered"


async def test_no_answer_tells_a_tenant_what_its_thread_is_known_by(
    memory_bus: Bus, store: Store, agents: Agents, town: Town
) -> None:
    ann, ben = await town.person("ann", "acme"), await town.person("ben")
    await town.thread("acme.t", ann="owner")
    await town.thread("t", ben="owner")
    asked = asking()
    changes = {name: getattr(asked, name) for name in asked.model_fields_set}
    said = {"message": "hi", "thread_id": "t"}
    async with (
        scripted_model(repeats) as model,
        recorder(memory_bus, store, grace=1),
        agents(memory_bus, model),
        running_gateway(memory_bus, store, **changes) as http,
    ):
        http.headers = bearer_header(ann)
        reply = await http.post("/api/chat", json=said)
        message_id = reply.json()["message_id"]
        answers = [
            reply,
            await http.post("/api/chat", json=said, headers={"Prefer": "respond-async"}),
            await http.post("/api/chat", json=said, headers={"Accept": "text/event-stream"}),
            await http.post("/api/threads/t/messages", json=[{"message": "no program"}]),
            await http.get(f"/api/messages/{message_id}"),
            await http.get("/api/threads/t/history"),
            await http.get("/api/threads/t/search", params={"q": "hi"}),
            await http.get("/api/threads/t/settings"),
            await http.put("/api/threads/t/settings", json={}),
            await http.post("/api/threads/t/cancel"),
            await http.get("/api/threads"),
            await http.get("/api/threads/t/members"),
            await http.get("/api/threads/acme.t/history"),
        ]
        assert {answer.status_code for answer in answers[:-1]} == {200, 202}
        assert answers[-1].status_code == 422
        for answer in answers:
            assert "acme" not in answer.text.replace('"tenant":"acme"', "")
        assert answers[4].json()["thread_id"] == "t"
        for found in answers[5:7]:
            assert {message["thread_id"] for message in found.json()["messages"]} == {"t"}

        http.headers = bearer_header(ben)
        assert (await http.get("/api/threads/t/history")).json()["messages"] == []
        assert (await http.get("/api/threads/t/search", params={"q": "hi"})).json()["messages"] == []
        assert (await http.get(f"/api/messages/{message_id}")).status_code == 404
