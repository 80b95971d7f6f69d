"""Who is here and who types, over several pushers that tell each other."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from yarl import URL

from m3 import topology
from m3.bus import Bus, open_bus
from m3.events import SocketsCounted, ThreadSockets, encode
from m3.store import Store
from services.pusher import Hub
from services.recorder import recorder
from tests.support.client import Socket, socket
from tests.support.processes import Process
from tests.support.proxy import proxy
from tests.support.pushing import record, running_pusher
from tests.support.until import until


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


async def until_all_count(connections: int, *hubs: Hub) -> None:
    now = asyncio.get_running_loop().time
    await until(lambda: {hub.attendance.connections("t", now()) for hub in hubs} == {connections})


async def welcome(address: str, thread_id: str = "t") -> int:
    """How many sockets a newcomer is told that there are."""
    async with socket(address, thread_id) as newcomer:
        connections: int = (await newcomer.next("connected"))["connections"]
        return connections


async def until_here(watcher: Socket, connections: int, *clients: str) -> dict[str, Any]:
    """The frame that tells of so many sockets and of these names."""
    while True:
        frame = await watcher.next("presence")
        if (frame["connections"], frame["clients"]) == (connections, list(clients)):
            return frame


async def until_types(watcher: Socket, *clients: str) -> None:
    while (await watcher.next("typing"))["clients"] != list(clients):
        pass


async def say_typing(speaker: Socket, **fields: bool) -> None:
    await speaker.send(json.dumps({"type": "typing", **fields}))


@asynccontextmanager
async def hub(bus: Bus, store: Store) -> AsyncIterator[Hub]:
    async with Hub.open(bus, store, linger=0) as hub:
        yield hub


async def test_pushers_count_each_others_sockets_and_a_newcomer_those_of_all(bus: Bus, store: Store) -> None:
    async with hub(bus, store) as one, hub(bus, store) as other:
        one.attendance.join("t", "ann")
        other.attendance.join("t", "bob")
        await until_all_count(2, one, other)
        async with hub(bus, store) as newcomer:
            newcomer.attendance.join("t", "carl")
            await until_all_count(3, one, other, newcomer)
        one.attendance.leave("t", "ann")
        await until_all_count(1, other)


async def test_what_a_pusher_of_another_version_says_harms_nobody(bus: Bus, store: Store) -> None:
    async with hub(bus, store) as pusher:
        newer = topology.counted(UUID(int=1))
        for strange in (b"", b"[]", b'[{"type": "sockets_sighted"}]', b'[{"type": "sockets_counted", "pusher": "x"}]'):
            await bus.publish(newer, strange)
        here = ThreadSockets(thread_id="t", connections=7)
        report = SocketsCounted(pusher=UUID(int=1), number=1, threads=(here,), anew=True)
        await bus.publish(newer, encode([report]).replace(b'"number":1', b'"number":1,"mood":"new"'))
        await until_all_count(7, pusher)


async def test_pushers_that_lose_the_broker_count_again_when_it_is_back(broker_url: str, store: Store) -> None:
    async with proxy(URL(broker_url).port or 5672) as line:
        far = str(URL(broker_url).with_host("127.0.0.1").with_port(line.port))
        async with (
            open_bus(far) as cut_off,
            open_bus(broker_url) as bus,
            hub(cut_off, store) as one,
            hub(bus, store) as other,
        ):
            one.attendance.join("t", "ann")
            other.attendance.join("t", "bob")
            await until_all_count(2, one, other)
            line.refuse(refusing=True)
            line.cut()
            await until_all_count(1, one, other)
            one.attendance.join("t", "carl")
            other.attendance.join("t", "dora")
            line.refuse(refusing=False)
            await until_all_count(4, one, other)


async def test_the_welcome_counts_the_sockets_of_all_pushers(bus: Bus, store: Store) -> None:
    async with (
        running_pusher(bus, store) as (one, one_hub),
        running_pusher(bus, store) as (other, other_hub),
        socket(one, "t") as first,
    ):
        assert (await first.next("connected"))["connections"] == 1
        await until_all_count(1, one_hub, other_hub)
        assert await welcome(other) == 2
        await until_all_count(1, one_hub, other_hub)
        assert await welcome(one) == 2


async def test_a_pusher_that_stops_says_so_and_keeps_no_places(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.pusher.attendance.SILENCE", 600.0)  # or it would count for nothing by itself
    monkeypatch.setattr("services.pusher.attendance.HELD", 600.0)
    async with hub(bus, store) as staying:
        async with hub(bus, store) as stopping:
            stopping.attendance.join("t", "ann")
            await until_all_count(1, staying, stopping)
            stopping.attendance.leave("t", "ann")
        await until_all_count(0, staying)
        assert staying.attendance.occupied("t", asyncio.get_running_loop().time()) == 0


@pytest.mark.parametrize("silencing", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_pusher_that_is_killed_or_hangs_does_not_count(
    broker_url: str, database_url: str, start: Callable[..., Process], silencing: signal.Signals
) -> None:
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    pushers = start("pusher", **servers), start("pusher", **servers)
    one, other = (pusher.address() for pusher in pushers)
    async with socket(one, "t", client="ann"), socket(other, "t", client="bob", events="all") as watcher:
        await until_here(watcher, 2, "ann", "bob")
        pushers[0].signal(silencing)
        assert (await until_here(watcher, 1, "bob"))["left"] == ["ann"]
        assert await welcome(other) == 2
        if silencing == signal.SIGSTOP:
            pushers[0].signal(signal.SIGCONT)
            assert (await until_here(watcher, 2, "ann", "bob"))["joined"] == ["ann"]


async def test_a_thread_may_have_so_many_sockets_on_all_pushers_and_no_more(memory: Bus, store: Store) -> None:
    async with (
        running_pusher(memory, store, sockets_per_thread=2) as (one, one_hub),
        running_pusher(memory, store, sockets_per_thread=2) as (other, other_hub),
        socket(one, "t") as first,
    ):
        await first.next("connected")
        async with socket(other, "t") as second:
            await second.next("connected")
            await until_all_count(2, one_hub, other_hub)
            for address in (one, other):
                async with socket(address, "t") as third:
                    assert await third.closed() == 4001
                async with socket(address, "elsewhere") as elsewhere:
                    await elsewhere.next("connected")
        await until_all_count(1, one_hub, other_hub)
        assert await welcome(one) == 2


async def test_who_watches_is_told_who_comes_and_goes_on_every_pusher(bus: Bus, store: Store) -> None:
    async with (
        running_pusher(bus, store) as (one, _),
        running_pusher(bus, store) as (other, _),
        socket(one, "t", events="all", client="ann") as watcher,
        AsyncExitStack() as stack,
    ):
        assert await watcher.next("presence") == {
            "type": "presence",
            "thread_id": "t",
            "connections": 1,
            "clients": ["ann"],
            "joined": [],
            "left": [],
        }
        old = await stack.enter_async_context(socket(one, "t", client="old"))
        await old.next("connected")
        assert (await until_here(watcher, 2, "ann", "old"))["joined"] == ["old"]
        bob = await stack.enter_async_context(socket(other, "t", client="bob"))
        assert (await until_here(watcher, 3, "ann", "bob", "old"))["joined"] == ["bob"]
        await stack.enter_async_context(socket(other, "t"))
        assert (await until_here(watcher, 4, "ann", "bob", "old"))["joined"] == []
        async with socket(other, "t", events="all", client="ann") as second:
            assert (await second.next("presence"))["clients"] == ["ann", "bob", "old"]
        await bob._connection.close()
        assert (await until_here(watcher, 3, "ann", "old"))["left"] == ["bob"]
        assert await old.hears_nothing()
        assert {frame["type"] for frame in old.frames} == {"connected", "pong"}


async def test_who_comes_back_is_told_who_is_here_once_it_has_what_it_missed(memory: Bus, store: Store) -> None:
    await record(store, "one", "two")
    async with (
        running_pusher(memory, store) as (address, _),
        socket(address, "t", events="all", after=0, client="ann") as watcher,
    ):
        assert (await watcher.next("presence"))["clients"] == ["ann"]
        assert [frame["type"] for frame in watcher.frames] == ["connected", "new_message", "new_message", "presence"]


async def test_who_types_is_shown_until_something_is_said_and_to_nobody_who_did_not_ask(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_pusher(bus, store) as (one, _),
        running_pusher(bus, store) as (other, _),
        socket(one, "t", events="all", client="ann") as watcher,
        socket(other, "t", client="bob") as bob,
        socket(other, "t") as nameless,
    ):
        await say_typing(bob)
        await until_types(watcher, "bob")
        await say_typing(nameless, active=True)
        async with socket(other, "t", events="all") as late:
            await until_types(late, "bob")
        await nameless.say("hello")
        await bob.say("hello")
        await until_types(watcher)
        await say_typing(bob)
        await until_types(watcher, "bob")
        await bob._connection.close()
        await until_types(watcher)
        shown = [frame["clients"] for frame in watcher.frames if frame["type"] == "typing"]
        assert shown == [["bob"], [], ["bob"], []]  # without a name one types unseen
        assert not {"presence", "typing"} & {frame["type"] for frame in (*bob.frames, *nameless.frames)}


async def test_typing_is_over_by_itself(memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.pusher.attendance.TYPING", 0.3)
    async with (
        running_pusher(memory, store) as (address, _),
        socket(address, "t", events="all") as watcher,
        socket(address, "t", client="bob") as bob,
    ):
        await say_typing(bob)
        await until_types(watcher, "bob")
        await until_types(watcher)


async def test_typing_that_is_no_such_thing_is_told(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as bob:
        await bob.send(json.dumps({"type": "typing", "active": "perhaps"}))
        assert (await bob.next("error"))["code"] == "invalid_message"


async def test_a_crowd_that_comes_at_once_is_told_of_in_a_few_frames(memory: Bus, store: Store) -> None:
    async with (
        running_pusher(memory, store) as (address, _),
        socket(address, "t", events="all") as watcher,
        AsyncExitStack() as stack,
    ):
        await watcher.next("presence")
        for number in range(60):
            await stack.enter_async_context(socket(address, "t", client=f"n{number:02}"))
        while (frame := await watcher.next("presence"))["connections"] < 61:
            pass
        assert (len(frame["clients"]), frame["more"]) == (50, 10)
        assert len(watcher.frames) < 60
