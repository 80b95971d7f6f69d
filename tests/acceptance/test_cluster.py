"""The services as real processes over a real RabbitMQ and PostgreSQL."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from tests.support.client import Socket, client, history, post, socket
from tests.support.processes import Process
from tests.support.until import until

THREADS = 20
ROUNDS = 5  # each says one message by HTTP and one by a socket

Start = Callable[..., Process]


@pytest.fixture
def servers(broker_url: str, database_url: str) -> dict[str, str]:
    """The settings that all services share."""
    return {"BROKER_URL": broker_url, "DATABASE_URL": database_url}


async def test_every_message_is_recorded_answered_and_pushed_once_and_in_order(
    start: Start, servers: dict[str, str]
) -> None:
    """One gateway, two recorders, three agents, two pushers; 200 messages in 20 threads, by HTTP and by sockets."""
    commands = ["gateway", "pusher", "pusher", *["recorder"] * 2, *["agent"] * 3]
    services = [start(command, **servers) for command in commands]
    gateway, *pushers = [service.address() for service in services[:3]]
    for service in services[3:]:
        service.started()

    async with client(gateway) as http, AsyncExitStack() as stack:
        threads = [f"thread-{number}" for number in range(THREADS)]
        listeners = {
            thread: [await stack.enter_async_context(socket(pusher, thread)) for pusher in pushers]
            for thread in threads
        }
        await asyncio.gather(*(_talk(http, thread, listeners[thread]) for thread in threads))
        for thread in threads:
            told = await history(http, thread)
            _check_thread(told)
            for listener in listeners[thread]:
                while len(_pushed(listener)) < len(told):
                    await listener.next()
                assert [frame["seq"] for frame in _pushed(listener)] == [message["seq"] for message in told]
                assert [frame["content"] for frame in _pushed(listener)] == [message["content"] for message in told]
                assert {frame["thread_id"] for frame in _pushed(listener)} == {thread}
        for listener in (listener for both in listeners.values() for listener in both):
            assert await listener.hears_nothing()

    for service in services:
        assert service.stop() == 0, service.said


async def _talk(http: httpx2.AsyncClient, thread: str, sockets: list[Socket]) -> None:
    """By HTTP, which waits for the reply, and at the same time by a socket, which waits for the number."""

    async def by_http() -> None:
        for number in range(ROUNDS):
            await post(http, f"http {number}", thread_id=thread)

    async def by_socket() -> None:
        for number in range(ROUNDS):
            await sockets[number % 2].say(f"socket {number}", "api")

    await asyncio.gather(by_http(), by_socket())
    await until(lambda: _all_answered(http, thread))


async def _all_answered(http: httpx2.AsyncClient, thread: str) -> bool:
    return all(message["fate"] in {None, "answered"} for message in await history(http, thread))


def _check_thread(messages: list[dict[str, Any]]) -> None:
    """People's messages (by HTTP) have a reply each, programs' (by sockets) share replies, all in order."""
    said = [message for message in messages if message["source"] != "assistant"]
    replies = [message for message in messages if message["source"] == "assistant"]
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    assert Counter(message["content"] for message in said) == Counter(
        f"{door} {number}" for door in ("http", "socket") for number in range(ROUNDS)
    )
    for source in ("user", "api"):
        of_lane = [message["message_id"] for message in said if message["source"] == source]
        answered = [one for reply in replies for one in reply["in_reply_to"] if one in of_lane]
        assert answered == of_lane  # each once, in the order in which it was said
    assert all(len(reply["in_reply_to"]) == 1 for reply in replies if reply["interface"] == "http_api")
    assert {message["interface"] for message in said if message["content"].startswith("socket")} == {"websocket"}


def _pushed(listener: Socket) -> list[dict[str, Any]]:
    return [frame for frame in listener.frames if frame["type"] == "new_message"]


async def test_services_start_in_any_order(start: Start, servers: dict[str, str], empty_database_url: str) -> None:
    """Also onto a database without tables, which they all try to make at once."""
    servers = servers | {"DATABASE_URL": empty_database_url}
    services = {command: start(command, **servers) for command in ("agent", "pusher", "recorder", "gateway")}
    async with client(services["gateway"].address()) as http:
        assert (await post(http, "hello"))["response"]
        assert (await http.get("/readyz")).json() == {"status": "ready"}


async def test_an_agent_that_joins_late_answers_what_waits(start: Start, servers: dict[str, str]) -> None:
    gateway = start("gateway", **servers)
    start("recorder", **servers)
    async with client(gateway.address()) as http:
        response = await http.post("/api/chat", json={"message": "anyone?"}, headers={"Prefer": "respond-async"})
        assert response.status_code == 202
        where = response.headers["Location"]
        assert (await http.get(where)).json()["fate"] == "pending"
        start("agent", **servers)
        await until(lambda: _has_fate(http, where, "answered"))


async def _has_fate(http: httpx2.AsyncClient, where: str, fate: str) -> bool:
    answer: dict[str, Any] = (await http.get(where)).json()
    return bool(answer["fate"] == fate)


async def test_an_agent_and_a_recorder_tell_their_health_and_metrics_where_they_are_told_to(
    start: Start, servers: dict[str, str]
) -> None:
    services = [start(command, **servers, METRICS_PORT="0") for command in ("agent", "recorder")]
    gateway = start("gateway", **servers)
    async with client(gateway.address()) as http:
        await post(http, "count me")
    for service in services:
        async with client(service.address()) as http:
            assert (await http.get("/readyz")).json() == {"status": "ready"}
            metrics = (await http.get("/metrics")).text
            turns = 'm3_turns_total{lane="user",outcome="answered"} 1.0' in metrics
            assert turns == (service.command == "agent")
            recorded = 'm3_recorded_messages_total{lane="user"} 1.0' in metrics
            assert recorded == (service.command == "recorder")


@pytest.mark.parametrize("command", ["gateway", "pusher", "recorder", "agent"])
def test_a_service_of_its_own_says_which_server_it_lacks(start: Start, command: str) -> None:
    process = start(command)
    assert process.wait() == 1
    assert "BROKER_URL" in process.said
    assert "Traceback" not in process.said
    process = start(command, BROKER_URL="amqp://127.0.0.1:1/")
    assert process.wait() == 1
    assert "DATABASE_URL" in process.said


def test_a_service_that_waits_for_its_servers_can_be_stopped(start: Start) -> None:
    process = start("recorder", BROKER_URL="amqp://127.0.0.1:1/", DATABASE_URL="postgresql://127.0.0.1:1/room")
    while "waiting for the database" not in process.said:
        assert process.running
    assert process.stop() == 0
