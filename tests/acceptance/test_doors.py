"""The doors as real processes: how they stop, and what they say while a server is away."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import asyncpg
import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from yarl import URL

from tests.support.client import Socket, client, socket
from tests.support.processes import Process
from tests.support.proxy import Proxy, proxy
from tests.support.until import until

Start = Callable[..., Process]

#: Seconds that a service has to stop.
GRACE = 5
#: Seconds for the interpreter's own end, on a busy machine.
MARGIN = 3


@pytest.fixture
async def line(broker_url: str) -> AsyncIterator[Proxy]:
    """The line between the services and the broker."""
    async with proxy(URL(broker_url).port or 5672) as line:
        yield line


@pytest.fixture
def servers(broker_url: str, line: Proxy, database_url: str) -> dict[str, str]:
    url = URL(broker_url).with_host("127.0.0.1").with_port(line.port)
    return {"BROKER_URL": str(url), "DATABASE_URL": database_url}


async def test_a_gateway_that_stops_tells_who_waits_where_the_reply_will_be_and_takes_nobody_in(
    start: Start, servers: dict[str, str]
) -> None:
    """Nobody answers here."""
    gateway = start("gateway", GRACE="2", **servers)
    start("recorder", **servers)
    address = gateway.address()
    async with client(address) as http, client(address) as reader:
        posting = asyncio.create_task(http.post("/api/chat", json={"message": "anyone?"}))
        await until(lambda: _count(reader, 1))
        gateway.signal(signal.SIGTERM)
        await until(lambda: _refuses(address))
        answer = await posting
        assert answer.status_code == 202
        assert answer.headers["Location"].startswith("/api/messages/")
    assert gateway.wait() == 0, gateway.said
    assert "Traceback" not in gateway.said


async def _count(http: httpx2.AsyncClient, number: int) -> bool:
    return len((await http.get("/api/threads/default/history")).json()["messages"]) == number


async def _refuses(address: str) -> bool:
    async with client(address) as http:
        try:
            await http.get("/readyz")
        except httpx2.ConnectError:
            return True
        return False


async def test_a_pusher_that_stops_sends_its_sockets_to_another_where_they_miss_nothing(
    start: Start, servers: dict[str, str]
) -> None:
    one, other = (start("pusher", **servers) for _ in range(2))
    start("recorder", **servers)
    first, second = one.address(), other.address()
    async with socket(first, "t") as listener:
        assert (await listener.say("before"))["seq"] == 1
        one.signal(signal.SIGTERM)
        assert await listener.closed() == 1012
    async with socket(second, "t") as talker, socket(second, "t", after=0) as listener:
        assert (await talker.say("meanwhile"))["seq"] == 2
        assert [frame["seq"] for frame in await listener.messages(2)] == [1, 2]
    assert one.wait() == 0, one.said


async def test_a_room_stops_in_time_however_many_sockets_never_read(start: Start) -> None:
    room = start("up", GRACE="3")
    address = room.address()
    async with AsyncExitStack() as stack:
        stuck: list[ClientConnection] = []
        for _ in range(100):
            url = f"{address.replace('http', 'ws', 1)}/ws/chat/t"
            stuck.append(await stack.enter_async_context(connect(url, max_queue=1, close_timeout=0)))
            stuck[-1].transport.pause_reading()
        async with socket(address, "t") as talker:
            for _ in range(60):  # more than the kernel takes for them
                await talker.say("x" * 16_000, "api")
        room.signal(signal.SIGTERM)
        assert await asyncio.to_thread(room.wait) == 0, room.said
    assert "Traceback" not in room.said


@pytest.mark.parametrize("command", ["gateway", "pusher", "recorder", "agent"])
async def test_a_service_stops_in_time_also_where_the_broker_is_silent(
    start: Start, servers: dict[str, str], line: Proxy, command: str
) -> None:
    """No heartbeat saves it here."""
    service = start(command, GRACE=str(GRACE), HEARTBEAT="600", TURN_TIMEOUT="0.1", **servers)
    service.started()
    await until(lambda: "broker connected" in service.said)
    line.stall(stalling=True)
    service.signal(signal.SIGTERM)
    assert await asyncio.to_thread(service.wait, GRACE + MARGIN) == 0, service.said


async def test_while_the_broker_is_away_posts_are_refused_sockets_stay_and_history_answers(
    start: Start, servers: dict[str, str], line: Proxy
) -> None:
    gateway, pusher = start("gateway", **servers), start("pusher", **servers)
    start("recorder", **servers)
    address = gateway.address()
    async with client(address) as http, socket(pusher.address(), "t") as listener:
        await listener.say("before")
        line.refuse(refusing=True)
        line.cut()
        await until(lambda: _misses(http, "broker"))
        await _is_refused(http, listener)
        assert (await http.get("/api/threads/t/history")).json()["messages"][0]["content"] == "before"
        line.refuse(refusing=False)
        await until(lambda: _is_ready(http))
        await listener.say("after")


async def test_while_the_database_is_away_posts_are_refused_and_sockets_stay(
    start: Start, servers: dict[str, str], postgres: str, database_url: str
) -> None:
    gateway, pusher = start("gateway", **servers), start("pusher", **servers)
    start("recorder", **servers)
    address = gateway.address()
    name = database_url.rpartition("?")[0].rpartition("/")[2]
    async with client(address) as http, socket(pusher.address(), "t") as listener:
        await listener.say("before")
        connection = await asyncpg.connect(postgres)
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await until(lambda: _misses(http, "database"))
        await _is_refused(http, listener)
        history = await http.get("/api/threads/t/history")
        assert (history.status_code, history.json()["code"]) == (503, "database_unavailable")
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await connection.close()
        await until(lambda: _is_ready(http))
        await listener.say("after")


async def test_a_process_takes_as_many_sockets_as_the_system_allows(start: Start) -> None:
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = most // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
    try:
        model = start("demo-model")
        model.address()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))
    assert resource.prlimit(model.pid, resource.RLIMIT_NOFILE) == (most, most)


async def _is_refused(http: httpx2.AsyncClient, listener: Socket) -> None:
    """Whoever speaks is told that it was not recorded, and when to come again; the socket lives."""
    answer = await http.post("/api/chat", json={"message": "meanwhile", "thread_id": "refused"})
    assert (answer.status_code, answer.json()["code"]) in {(503, "broker_unavailable"), (503, "not_recorded")}
    assert answer.headers["Retry-After"].isdigit()
    await listener.send('{"type": "message", "message": "meanwhile", "client_id": "1"}')
    error = await listener.next("error")
    assert error["code"] in {"broker_unavailable", "not_recorded"}
    assert error["client_id"] == "1"
    assert await listener.hears_nothing()


async def _misses(http: httpx2.AsyncClient, server: str) -> bool:
    return bool((await http.get("/readyz")).json().get("message") == f"Missing: {server}.")


async def _is_ready(http: httpx2.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200
