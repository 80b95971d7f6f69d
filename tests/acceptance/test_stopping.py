"""Agents and recorders as real processes, stopped while they work."""

import asyncio
import signal
from collections.abc import Callable
from itertools import count

import aio_pika
import httpx2
import pytest

from m3.topology import DEAD, Queue
from tests.support.client import client, history, post
from tests.support.processes import Process
from tests.support.scripted_model import holds, keeps_silent, prompt, says, scripted_model
from tests.support.until import DEADLINE, until

#: What an agent logs at its stop.
STOPPING = "agent stops"
THREADS = 10

Start = Callable[..., Process]


@pytest.fixture
def servers(broker_url: str, database_url: str) -> dict[str, str]:
    """The settings that all services share."""
    return {"BROKER_URL": broker_url, "DATABASE_URL": database_url}


async def test_an_agent_that_is_stopped_finishes_its_turn(start: Start, servers: dict[str, str]) -> None:
    released = asyncio.Event()
    async with scripted_model(lambda _: holds(released, says("at last"))) as model:
        gateway, _ = start("gateway", **servers), start("recorder", **servers)
        agent = start("agent", **servers, LLM_BASE_URL=model.url)
        async with client(gateway.address()) as http, asyncio.TaskGroup() as group:
            answer = group.create_task(post(http, "hello"))
            await until(lambda: len(model.asked) == 1)
            agent.signal(signal.SIGTERM)
            await until(lambda: STOPPING in agent.said)
            released.set()
            assert (await answer)["response"] == "at last"
            assert await asyncio.to_thread(agent.wait) == 0, agent.said


async def test_a_model_that_never_answers_does_not_keep_an_agent_and_another_has_the_rest(
    start: Start, servers: dict[str, str]
) -> None:
    async with (
        scripted_model(lambda _: keeps_silent()) as silent,
        scripted_model(lambda body: says(f"heard {prompt(body)}")) as willing,
    ):
        gateway, _ = start("gateway", **servers), start("recorder", **servers)
        leaver = start("agent", **servers, LLM_BASE_URL=silent.url, TURN_TIMEOUT="3", GRACE="1", AGENT_CONCURRENCY="1")
        async with client(gateway.address()) as http:
            for message, thread in (("stuck", "one"), ("behind it", "one"), ("elsewhere", "two"), ("and there", "six")):
                await _say(http, message, thread)
            await until(lambda: len(silent.asked) == 1)
            leaver.signal(signal.SIGTERM)
            await until(lambda: STOPPING in leaver.said)
            start("agent", **servers, LLM_BASE_URL=willing.url)
            assert await asyncio.to_thread(leaver.wait, DEADLINE) == 0, leaver.said
            await until(lambda: _all_settled(http, "one", "two", "six"))
            assert [message["reason"] for message in await history(http, "one") if message["fate"] == "failed"] == [
                "The model took longer than 3 seconds."
            ]
        assert silent.prompts == ["[user] stuck"]
        assert sorted(willing.prompts) == ["[user] and there", "[user] behind it", "[user] elsewhere"]


async def test_agents_that_are_scaled_in_under_load_lose_no_turn_and_have_none_twice(
    start: Start, servers: dict[str, str]
) -> None:
    released = asyncio.Event()
    async with scripted_model(lambda body: holds(released, says(f"heard {prompt(body)}"))) as model:
        gateway, _ = start("gateway", **servers), start("recorder", **servers)
        agents = [start("agent", **servers, LLM_BASE_URL=model.url, AGENT_CONCURRENCY="4") for _ in range(3)]
        for agent in agents:
            agent.started()
        threads = [f"thread-{number}" for number in range(3 * THREADS)]
        async with client(gateway.address()) as http:
            for thread in threads:
                await _say(http, f"first in {thread}", thread)
                await _say(http, f"second in {thread}", thread)
            await until(lambda: len(model.asked) == 3 * 4)  # more wait, for the most part unacked
            for leaver in agents[1:]:
                leaver.signal(signal.SIGTERM)
                await until(lambda leaver=leaver: STOPPING in leaver.said)  # type: ignore[misc]
            released.set()
            for leaver in agents[1:]:
                assert await asyncio.to_thread(leaver.wait) == 0, leaver.said
            await until(lambda: _all_settled(http, *threads), within=3 * DEADLINE)
            said = [f"{which} in {thread}" for thread in threads for which in ("first", "second")]
            for thread in threads:
                first, second = f"first in {thread}", f"second in {thread}"
                assert [message["content"] for message in await history(http, thread)] == [
                    *(first, second),
                    *(f"heard [user] {first}", f"heard [user] {second}"),
                ]
        assert sorted(model.prompts) == sorted(f"[user] {message}" for message in said)
        assert model.broken_off == 0


async def test_an_agent_does_not_wait_for_a_recorder_that_stopped_before_it(
    start: Start, servers: dict[str, str]
) -> None:
    """As where all are stopped at once. Its reply waits in the queue, and is recorded once."""
    released = asyncio.Event()
    async with scripted_model(lambda _: holds(released, says("at last"))) as model:
        gateway, recorder = start("gateway", **servers), start("recorder", **servers)
        recorder.started()
        agent = start("agent", **servers, LLM_BASE_URL=model.url, RECORD_TIMEOUT="1", GRACE="1")
        async with client(gateway.address()) as http:
            await _say(http, "hello", "one")
            await until(lambda: len(model.asked) == 1)
            recorder.kill()
            agent.signal(signal.SIGTERM)
            await until(lambda: STOPPING in agent.said)
            released.set()
            assert await asyncio.to_thread(agent.wait, DEADLINE) == 0, agent.said
            start("recorder", **servers)
            start("agent", **servers, LLM_BASE_URL=model.url)
            await until(lambda: _all_settled(http, "one"))
            assert [message["content"] for message in await history(http, "one")] == ["hello", "at last"]


async def test_a_recorder_that_is_stopped_under_load_loses_nothing(start: Start, servers: dict[str, str]) -> None:
    gateway, leaver, stayer = start("gateway", **servers), start("recorder", **servers), start("recorder", **servers)
    leaver.started()
    stayer.started()
    gone = asyncio.Event()
    async with client(gateway.address()) as http, asyncio.TaskGroup() as group:

        async def talk(thread: str) -> int:
            for number in count():
                if gone.is_set():
                    return number
                await _say(http, f"{thread} {number}", thread)
            raise AssertionError

        threads = [f"thread-{number}" for number in range(THREADS)]
        talks = [group.create_task(talk(thread)) for thread in threads]
        await until(lambda: _head_is(http, threads[0], 10))
        assert await asyncio.to_thread(leaver.stop) == 0, leaver.said
        gone.set()
        for thread, said in zip(threads, await asyncio.gather(*talks), strict=True):
            recorded = [(message["seq"], message["content"]) for message in await history(http, thread)]
            assert recorded == [(number + 1, f"{thread} {number}") for number in range(said)][-500:]
    assert await _waiting(servers["BROKER_URL"], DEAD) == 0


async def _say(http: httpx2.AsyncClient, message: str, thread_id: str) -> None:
    """Have a message recorded, without waiting for its reply."""
    said = {"message": message, "thread_id": thread_id}
    response = await http.post("/api/chat", json=said, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text


async def _all_settled(http: httpx2.AsyncClient, *threads: str) -> bool:
    return "pending" not in {message["fate"] for thread in threads for message in await history(http, thread)}


async def _head_is(http: httpx2.AsyncClient, thread_id: str, number: int) -> bool:
    return len(await history(http, thread_id)) >= number


async def _waiting(broker_url: str, queue: Queue) -> int:
    """How many messages wait in the queue."""
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        return (await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count or 0
