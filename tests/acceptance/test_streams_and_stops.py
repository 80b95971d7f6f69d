"""A reply that grows before everybody's eyes and is stopped, in one process and over RabbitMQ."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.support.client import client, socket, streaming
from tests.support.processes import Process
from tests.support.scripted_model import Behaviour, ScriptedModel, prompt, scripted_model, streams, streams_until
from tests.support.until import until

Start = Callable[..., Process]
Doors = tuple[str, str]


def script(body: dict[str, Any]) -> Behaviour:
    if "for ever" in prompt(body):
        return streams_until(asyncio.Event(), "Once ", "upon ", "a time")
    return streams("Well, ", "hello ", "there.", pause=0.06)


@pytest.fixture(params=["embedded", "cluster"])
def open_doors(request: pytest.FixtureRequest, start: Start) -> Callable[[ScriptedModel], Doors]:
    """Starts a room that asks this model; returns the addresses of its HTTP and its WebSocket door."""
    if request.param == "embedded":

        def embedded(model: ScriptedModel) -> Doors:
            address = start("up", LLM_BASE_URL=model.url).address()
            return address, address

        return embedded
    servers = {
        "BROKER_URL": request.getfixturevalue("broker_url"),
        "DATABASE_URL": request.getfixturevalue("database_url"),
    }

    def cluster(model: ScriptedModel) -> Doors:
        doors = [start("gateway", **servers), start("pusher", **servers)]
        others = [start("recorder", **servers)]
        others += [start("agent", **servers, LLM_BASE_URL=model.url) for _ in range(2)]
        addresses = [door.address() for door in doors]
        for service in others:
            service.started()
        return addresses[0], addresses[1]

    return cluster


async def test_a_reply_is_heard_while_it_is_thought_by_sockets_and_by_whoever_asked(
    open_doors: Callable[[ScriptedModel], Doors],
) -> None:
    async with scripted_model(script) as model:
        gateway, pusher = await asyncio.to_thread(open_doors, model)
        async with client(gateway) as http, socket(pusher, "t", events="all") as watcher, socket(pusher, "t") as old:
            async with streaming(http, "hi", thread_id="t") as stream:
                events = await stream.rest()
            reply = await watcher.next("new_message")
            while reply["source"] != "assistant":
                reply = await watcher.next("new_message")
            await watcher.next("turn")  # ended
            for frames in ([data for _, data in events], watcher.frames):
                shown = [
                    frame for frame in frames if frame.get("state") != "ended"
                ]  # which may be told before the reply
                kinds = [frame["type"] for frame in shown if frame["type"] in {"turn", "delta", "new_message"}]
                grown = [frame for frame in frames if frame["type"] == "delta"]
                of_turn = kinds[kinds.index("turn") :]
                assert of_turn[: len(grown) + 2] == ["turn", *["delta"] * len(grown), "new_message"]
                assert len(grown) > 1
                assert "".join(frame["content"] for frame in grown) == "Well, hello there."
                assert {frame["reply_id"] for frame in grown} == {reply["message_id"]}
            assert events[-1][0] == "new_message"
            assert events[-1][1]["content"] == reply["content"] == "Well, hello there."
            said, answered = await old.messages(2)
            assert (said["content"], answered["content"]) == ("hi", "Well, hello there.")
            assert await old.hears_nothing()


async def test_a_turn_is_stopped_from_a_socket_or_by_http_and_who_waits_gets_what_was_said(
    open_doors: Callable[[ScriptedModel], Doors],
) -> None:
    async with scripted_model(script) as model:
        gateway, pusher = await asyncio.to_thread(open_doors, model)
        async with client(gateway) as http, socket(pusher, "t", events="all") as watcher:
            for number, stop in enumerate((_by_http, _by_socket), start=1):
                said = {"message": f"speak for ever {number}", "thread_id": "t"}
                asking = asyncio.create_task(http.post("/api/chat", json=said), name="asking")
                heard = ""
                while heard != "Once upon a time":
                    heard += (await watcher.next("delta"))["content"]
                await stop(http, watcher)
                answer = (await asking).json()
                assert (answer["response"], answer["cancelled"]) == ("Once upon a time", True)
                assert model.broken_off == number
                while (ended := await watcher.next("turn"))["state"] != "ended":
                    pass
                assert ended["outcome"] == "cancelled"


async def test_whoever_comes_in_the_middle_of_a_reply_hears_it_from_its_start(
    open_doors: Callable[[ScriptedModel], Doors],
) -> None:
    async with scripted_model(script) as model:
        gateway, pusher = await asyncio.to_thread(open_doors, model)
        async with client(gateway) as http:
            asking = asyncio.create_task(
                http.post("/api/chat", json={"message": "speak for ever", "thread_id": "t"}), name="asking"
            )
            await until(lambda: len(model.asked) == 1)
            async with socket(pusher, "t", events="all") as first, socket(pusher, "t", events="all") as second:
                for late in (first, second):
                    assert (await late.next("turn"))["state"] == "started"
                    heard = ""
                    while heard != "Once upon a time":
                        heard += (await late.next("delta"))["content"]
                await _by_http(http, None)
            assert (await asking).json()["response"] == "Once upon a time"


async def _by_http(http: httpx2.AsyncClient, _: object) -> None:
    assert (await http.post("/api/threads/t/cancel")).status_code == 202


async def _by_socket(_: object, watcher: Any) -> None:
    await watcher.send('{"type": "cancel"}')
