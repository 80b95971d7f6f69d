"""What happens in the room shows in what its processes count."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from m3.bus import Bus
from m3.errors import StoreUnavailable
from m3.store import Store, open_store
from services.recorder import recorder
from tests.support.answering import Agents, visited
from tests.support.client import Socket, socket
from tests.support.counting import Since, counted
from tests.support.gateway import failure_of, hand_in, reply_to, running_gateway
from tests.support.pushing import running_pusher
from tests.support.scripted_model import prompt, says, scripted_model
from tests.support.until import DEADLINE, until


@pytest.fixture
def since() -> Since:
    return Since()


@asynccontextmanager
async def both_doors(bus: Bus, store: Store) -> AsyncIterator[tuple[httpx2.AsyncClient, Socket]]:
    async with (
        recorder(bus, store, grace=1),
        running_gateway(bus, store) as http,
        running_pusher(bus, store) as (address, _),
        socket(address, "default") as listener,
    ):
        await listener.next("connected")
        assert await listener.hears_nothing()  # it listens by now
        yield http, listener


async def test_a_message_through_each_door_shows_in_the_doors_the_recorder_and_the_pusher(
    bus: Bus, store: Store
) -> None:
    async with both_doors(bus, store) as (http, listener):
        since = Since()
        answer = await http.post("/api/chat", json={"message": "hi"}, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202
        await listener.next("new_message")
        await listener.say("hello", source="api")
        await until(lambda: since.counted("m3_push_lag_seconds_count", lane="api") == 1)
        for lane, interface in (("user", "http_api"), ("api", "websocket")):
            assert since.counted("m3_messages_total", lane=lane, interface=interface, outcome="recorded") == 1
            assert since.counted("m3_record_wait_seconds_count", interface=interface) == 1
            assert since.counted("m3_recorded_messages_total", lane=lane) == 1
            assert since.counted("m3_record_lag_seconds_count", lane=lane) == 1
            assert since.counted("m3_push_lag_seconds_count", lane=lane) == 1
        assert since.counted("m3_recorder_transaction_seconds_count") == 2
        assert since.counted("m3_recorder_batch_events_sum") == 2
        assert since.counted("m3_deliveries_total") == 2
        assert since.counted("m3_publish_seconds_count", exchange="chat.in") == 2
        assert since.counted("m3_queue_wait_seconds_count", queue="recorder") == 2
        assert 0 < since.counted("m3_record_lag_seconds_sum", lane="user") < DEADLINE
        assert 0 <= since.counted("m3_push_lag_seconds_sum", lane="user") < DEADLINE


async def test_a_message_that_is_said_again_is_recorded_once(memory_bus: Bus, store: Store, since: Since) -> None:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        for _ in range(2):
            await http.post("/api/threads/t/messages", json=[{"message": "a", "key": "k"}])
        assert since.counted("m3_messages_total", lane="api", interface="http_api", outcome="recorded") == 2
        assert since.counted("m3_recorded_messages_total", lane="api") == 1


async def test_a_refusal_counts_under_its_code(memory_bus: Bus, store: Store, since: Since) -> None:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store, message_limit=5) as http:
        answer = await http.post("/api/chat", json={"message": "too long"})
        assert answer.json()["code"] == "message_too_long"
        items = [{"message": "too long", "source": "user"}, {"message": " "}, {"message": "fine"}, {"message": "good"}]
        await http.post("/api/threads/t/messages", json=items)
    of = {"interface": "http_api"}
    assert since.counted("m3_messages_total", lane="user", outcome="message_too_long", **of) == 2
    assert since.counted("m3_messages_total", lane="api", outcome="invalid_message", **of) == 1
    assert since.counted("m3_messages_total", lane="api", outcome="recorded", **of) == 2
    assert since.counted("m3_messages_total", lane="user", outcome="recorded", **of) == 0


async def test_what_a_socket_says_wrongly_or_in_vain_counts_too(memory_bus: Bus, store: Store, since: Since) -> None:
    async with running_pusher(memory_bus, store, record_timeout=0.1) as (address, _), socket(address, "t") as talker:
        await talker.next("connected")
        await talker.send(json.dumps({"type": "message", "message": " "}))
        assert (await talker.next("error"))["code"] == "invalid_message"
        await talker.send(json.dumps({"type": "message", "message": "nobody records this"}))
        assert (await talker.next("error"))["code"] == "not_recorded"
    for outcome in ("invalid_message", "not_recorded"):
        assert since.counted("m3_messages_total", lane="user", interface="websocket", outcome=outcome) == 1
    assert since.counted("m3_record_wait_seconds_count", interface="websocket") == 0


async def test_a_fate_counts_once_however_often_it_is_told(memory_bus: Bus, store: Store, since: Since) -> None:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        for text in ("answer me", "fail me"):
            await http.post("/api/chat", json={"message": text}, headers={"Prefer": "respond-async"})
        one, two = await store.latest("default", 2)
        for outcome in (reply_to(one), failure_of(two)):
            await hand_in(memory_bus, outcome)
            await hand_in(memory_bus, outcome)
        last = await http.post("/api/threads/default/messages", json=[{"message": "all before it is recorded"}])
        assert last.status_code == 202
    assert since.counted("m3_fates_total", lane="user", fate="answered") == 1
    assert since.counted("m3_fates_total", lane="user", fate="failed") == 1
    assert since.counted("m3_fates_total", lane="api", fate="answered") == 0


async def test_requests_count_by_their_routes_and_never_by_their_paths(memory_bus: Bus, store: Store) -> None:
    async with running_gateway(memory_bus, store) as http:
        since = Since()
        await http.get("/api/threads/one/history")
        await http.get("/api/threads/other/history?limit=2")
        await http.get("/api/messages/nonsense")
        await http.get("/made/up")
        await http.get("/docs/files/swagger-ui.css")
        await http.delete("/api/chat")
        await http.post("/api/chat", content=b"x" * 100_000)  # refused before it comes to a route
        for route, method, status, number in (
            ("/api/threads/{thread_id}/history", "GET", "200", 2),
            ("/api/messages/{message_id}", "GET", "422", 1),
            ("/docs/files", "GET", "200", 1),
            ("/api/chat", "DELETE", "405", 1),
            ("unknown", "GET", "404", 1),
            ("unknown", "POST", "413", 1),
        ):
            assert since.counted("m3_http_requests_total", route=route, method=method, status=status) == number
            assert since.counted("m3_http_request_duration_seconds_count", route=route, method=method) == number
        shown = (await http.get("/metrics")).text
        assert "made/up" not in shown
        assert "threads/one" not in shown


async def test_an_error_that_nobody_caught_counts_as_such(
    memory_bus: Bus, store: Store, since: Since, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Store, "latest", broken)
    async with running_gateway(memory_bus, store) as http:
        assert (await http.get("/api/threads/t/history")).status_code == 500
    route = "/api/threads/{thread_id}/history"
    assert since.counted("m3_http_requests_total", route=route, method="GET", status="500") == 1


async def test_sockets_and_threads_count_while_they_are_there(memory_bus: Bus, store: Store, since: Since) -> None:
    async with running_pusher(memory_bus, store, linger=0) as (address, _):
        async with socket(address, "a") as one, socket(address, "a") as two, socket(address, "b") as three:
            for each in (one, two, three):
                await each.next("connected")
            assert counted("m3_sockets") == 3
            assert counted("m3_threads") == 2
        await until(lambda: counted("m3_sockets") == 0)
        await until(lambda: counted("m3_threads") == 0)
    assert since.counted("m3_socket_closes_total", reason="client") == 3


async def test_why_a_socket_ended_counts_by_its_name(memory_bus: Bus, store: Store, since: Since) -> None:
    async with running_pusher(memory_bus, store, sockets_per_thread=1, sockets_per_address=2, frame_limit=1024) as (
        address,
        _,
    ):
        async with socket(address, "t") as first, socket(address, "t") as second:
            await first.next("connected")
            assert await second.closed() == 4001
            await first.send("x" * 2_000)
            assert await first.closed() == 1009
        await until(lambda: counted("m3_sockets") == 0)
    assert since.counted("m3_socket_closes_total", reason="thread_full") == 1
    assert since.counted("m3_socket_closes_total", reason="too_long") == 1


async def test_a_pusher_that_stops_is_why_its_sockets_ended(memory_bus: Bus, store: Store, since: Since) -> None:
    async with running_pusher(memory_bus, store) as (address, _):
        opened = socket(address, "t")
        await (await opened.__aenter__()).next("connected")
    await opened.__aexit__(None, None, None)
    assert since.counted("m3_socket_closes_total", reason="stopping") == 1


async def test_an_agent_tells_its_places_and_its_turns(
    memory_bus: Bus, store: Store, agents: Agents, since: Since
) -> None:
    async with (
        scripted_model(lambda body: says(f"re {prompt(body)}")) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, agent_concurrency=3),
    ):
        assert counted("m3_turn_places") == 3
        assert (await visitor.ask("hello")).fate == "answered"
        await until(lambda: since.counted("m3_turns_total", lane="user", outcome="answered") == 1)
        assert since.counted("m3_recorded_messages_total", lane="assistant") == 1
        assert since.counted("m3_record_lag_seconds_count", lane="assistant") == 1
        assert since.counted("m3_queue_wait_seconds_count", queue="agent.user") == 1


async def test_connections_to_the_database_count_as_busy_or_idle(database_url: str, since: Since) -> None:
    async with open_store(database_url, pool_size=2) as store:
        assert counted("m3_pool_connections", state="idle") == 0
        async with store._connection():
            assert counted("m3_pool_connections", state="busy") == 1
        assert counted("m3_pool_connections", state="busy") == 0
        assert counted("m3_pool_connections", state="idle") == 1
    assert counted("m3_pool_connections", state="idle") == 0
    assert since.counted("m3_pool_wait_seconds_count") == 1


async def test_a_database_that_is_away_counts(since: Since) -> None:
    async with open_store("postgresql://127.0.0.1:1/room", pool_size=2) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
    assert since.counted("m3_database_failures_total") == 1
    assert since.counted("m3_pool_wait_seconds_count") == 0


async def test_a_server_tells_how_late_its_loop_is(memory_bus: Bus, store: Store, since: Since) -> None:
    async with running_gateway(memory_bus, store):
        await until(lambda: since.counted("m3_event_loop_lag_seconds_count") >= 1)


async def test_a_process_that_has_no_broker_of_its_own_counts_as_connected(memory_bus: Bus) -> None:
    assert memory_bus.connected
    assert counted("m3_broker_connected") == 1
