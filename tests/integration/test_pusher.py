"""Sockets, on real WebSocket connections, with the bus's news lost, late and doubled."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from uuid import UUID

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from m3.bus import Bus, open_bus
from m3.errors import Unroutable
from m3.events import ReplyGrew, TurnEnded, TurnNews, TurnStarted, decode, encode
from m3.frames import Frame, text, turn_news
from m3.store import Store, open_store
from m3.topology import CHAT_CONTROL, EVERY_CANCELLATION, EVERY_RETELLING, Route, retold
from services.recorder import recorder
from tests.support.client import Socket, socket
from tests.support.counting import Since
from tests.support.proxy import frail_bus
from tests.support.pushing import announce, asked_by, record, running_pusher, think
from tests.support.until import DEADLINE, until


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


async def contents(listener: Socket, count: int) -> list[str]:
    return [frame["content"] for frame in await listener.messages(count)]


async def test_every_socket_of_the_thread_gets_each_message_in_order_on_every_pusher(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_pusher(bus, store) as (one, _),
        running_pusher(bus, store) as (other, _),
        AsyncExitStack() as stack,
    ):
        listeners = [await stack.enter_async_context(socket(address, "t")) for address in (one, one, other)]
        foreign = await stack.enter_async_context(socket(other, "foreign"))
        for listener in (*listeners, foreign):
            await listener.next("connected")
        for number in range(20):
            await listeners[0].send(json.dumps({"type": "message", "message": str(number)}))
        for listener in listeners:
            assert await contents(listener, 20) == [str(number) for number in range(20)]
        assert await foreign.hears_nothing()


async def test_a_message_said_on_a_socket_is_confirmed_with_its_number(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_pusher(memory, store) as (address, _),
        socket(address, "t") as talker,
    ):
        first, second = await talker.say("one"), await talker.say("two", "api")
        assert (first["seq"], second["seq"]) == (1, 2)
        stored = await store.latest("t", 10)
        assert [str(message.message_id) for message in stored] == [first["message_id"], second["message_id"]]
        assert [(message.source, message.interface) for message in stored] == [
            ("user", "websocket"),
            ("api", "websocket"),
        ]


async def test_announcements_out_of_order_doubled_or_lost_still_push_each_number_once_in_order(
    memory: Bus, store: Store
) -> None:
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as listener:
        await listener.next("connected")
        one, two, _lost, four = await record(store, "one", "two", "lost", "four")
        await announce(memory, two)
        await announce(memory, one)
        await announce(memory, one, two)
        await announce(memory, four)
        await announce(memory, *await record(store, "five"))
        await announce(memory, two, four)
        await announce(memory, *await record(store, "six"))
        assert await contents(listener, 6) == ["one", "two", "lost", "four", "five", "six"]
        assert await listener.hears_nothing()


async def test_a_gap_longer_than_a_page_is_filled(memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.pusher.hub.PAGE", 3)
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as listener:
        await listener.next("connected")
        messages = await record(store, *(str(number) for number in range(10)))
        await announce(memory, messages[-1])
        assert await contents(listener, 10) == [str(number) for number in range(10)]


async def test_a_socket_hears_what_comes_after_it_and_not_what_was_before(memory: Bus, store: Store) -> None:
    before = await record(store, "before")
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as listener:
        await listener.next("connected")
        await announce(memory, *before)
        await announce(memory, *await record(store, "after"))
        assert await contents(listener, 1) == ["after"]


async def test_a_thread_is_bound_with_its_first_socket_and_unbound_after_its_last(memory: Bus, store: Store) -> None:
    async def anyone_hears() -> bool:
        """A route that must arrive tells whether a queue is bound."""
        try:
            await memory.publish(Route("chat.out", "assistant.t", must_arrive=True), encode([]))
        except Unroutable:
            return False
        return True

    async with running_pusher(memory, store, linger=0) as (address, hub):
        assert not await anyone_hears()
        async with socket(address, "t") as one, socket(address, "t") as other:
            await one.next("connected")
            await other.next("connected")
            assert await anyone_hears()
        await until(lambda: "t" not in hub._threads)
        assert not await anyone_hears()
        async with socket(address, "t") as again:
            await again.next("connected")
            await announce(memory, *await record(store, "back"))
            assert await contents(again, 1) == ["back"]


async def test_sockets_that_come_and_go_all_the_time_leave_nothing_behind(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store, linger=0) as (address, hub):

        async def visit(number: int) -> None:
            async with socket(address, f"t{number % 5}") as visitor:
                await visitor.next("connected")

        await asyncio.gather(*(visit(number) for number in range(100)))
        await until(lambda: not hub._threads)


async def test_a_socket_that_does_not_read_is_closed_and_costs_the_others_nothing(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running_pusher(memory, store, socket_buffer=64 * 1024) as (address, hub),
        connect(f"{address.replace('http', 'ws', 1)}/ws/chat/t", max_queue=1, close_timeout=0) as stuck,
        socket(address, "t") as reader,
    ):
        await reader.next("connected")
        await until(lambda: len(hub._threads["t"].audience) == 2)
        stuck.transport.pause_reading()
        since, sent = Since(), 0
        while len(hub._threads["t"].audience) == 2:
            await announce(memory, *await record(store, *["x" * 10_000] * 3))
            sent += 3
            assert await contents(reader, 3) == ["x" * 10_000] * 3
            assert sent < 5_000
        stuck.transport.resume_reading()
        with suppress(ConnectionClosed):
            async for _ in stuck:  # what was written before it was given up
                pass
        assert stuck.close_code in {4000, 1006}  # it may be too stuck to be told
        await until(lambda: since.counted("m3_socket_closes_total", reason="slow") == 1)


async def test_a_turn_is_shown_as_it_goes_to_who_asked_for_all_events(bus: Bus, store: Store) -> None:
    turn = {"thread_id": "t", "turn_id": UUID(int=1), "reply_id": UUID(int=2)}
    known = {"thread_id": "t", "turn_id": str(UUID(int=1)), "reply_id": str(UUID(int=2))}
    async with (
        running_pusher(bus, store) as (address, _),
        socket(address, "t", events="all") as watcher,
        socket(address, "t") as plain,
        socket(address, "foreign", events="all") as foreign,
    ):
        for listener in (watcher, plain, foreign):
            await listener.next("connected")
        assert await watcher.hears_nothing()  # it listens by now
        await think(bus, TurnStarted.model_validate(turn | {"in_reply_to": (UUID(int=3),)}))
        await think(bus, ReplyGrew.model_validate(turn | {"index": 0, "text": "hel"}))
        await think(bus, ReplyGrew.model_validate(turn | {"index": 1, "text": "lo"}))
        await think(bus, TurnEnded.model_validate(turn | {"outcome": "cancelled", "reason": "Somebody asked."}))
        assert [await watcher.next() for _ in range(4)] == [
            {"type": "turn", "state": "started", **known, "in_reply_to": [str(UUID(int=3))]},
            {"type": "delta", **known, "index": 0, "content": "hel"},
            {"type": "delta", **known, "index": 1, "content": "lo"},
            {"type": "turn", "state": "ended", **known, "outcome": "cancelled", "reason": "Somebody asked."},
        ]
        assert await plain.hears_nothing()
        assert await foreign.hears_nothing()


async def test_a_socket_that_opens_in_the_middle_of_a_turn_is_told_it_from_its_start(bus: Bus, store: Store) -> None:
    turn = {"thread_id": "t", "turn_id": UUID(int=1), "reply_id": UUID(int=2)}
    started = TurnStarted.model_validate(turn | {"in_reply_to": (UUID(int=3),), "again": True})
    said = ReplyGrew.model_validate(turn | {"index": 0, "pieces": 2, "text": "Once upon "})
    piece = ReplyGrew.model_validate(turn | {"index": 2, "text": "a time"})
    all_said = ReplyGrew.model_validate(turn | {"index": 0, "pieces": 3, "text": "Once upon a time"})
    async with running_pusher(bus, store) as (address, _), bus.subscribe("agent") as agent:
        await agent.bind(CHAT_CONTROL, EVERY_RETELLING[0])
        async with socket(address, "t", events="all") as first:
            await first.next("connected")
            assert await first.hears_nothing()  # it listens by now
            await bus.publish(retold(await asked_by(agent)), encode([started, said]))
            await think(bus, piece)
            assert [await first.next() for _ in range(3)] == [turn_news(one) for one in (started, said, piece)]
            for query in ({}, {"after": "0"}):
                async with socket(address, "t", events="all", **query) as later:
                    await later.next("connected")
                    assert [await later.next() for _ in range(2)] == [turn_news(started), turn_news(all_said)]
            await think(bus, TurnEnded.model_validate(turn | {"outcome": "failed"}))
            await first.next("turn")
            async with socket(address, "t", events="all") as late:
                await late.next("connected")
                assert await late.hears_nothing()


async def test_a_pusher_that_may_have_missed_some_of_a_turn_asks_for_it_again(
    rabbit: Bus, broker_url: str, store: Store
) -> None:
    turn = {"thread_id": "t", "turn_id": UUID(int=1), "reply_id": UUID(int=2)}
    started = TurnStarted.model_validate(turn | {"in_reply_to": (UUID(int=3),)})
    first, rest = (ReplyGrew.model_validate(turn | {"index": index, "text": str(index)}) for index in range(2))
    again: list[TurnNews] = [
        started.model_copy(update={"again": True}),
        first.model_copy(update={"pieces": 2, "text": "01"}),
    ]
    async with (
        frail_bus(broker_url) as (line, lame),
        rabbit.subscribe("agent") as agent,
        running_pusher(lame, store) as (address, _),
    ):
        await agent.bind(CHAT_CONTROL, EVERY_RETELLING[0])
        async with socket(address, "t", events="all") as listener:
            await asked_by(agent)
            await think(rabbit, started, first)
            await listener.next("delta")
            line.cut()
            await until(lambda: not lame.connected)
            await think(rabbit, rest)
            await rabbit.publish(retold(await asked_by(agent)), encode(again))
            heard = [await listener.next() for _ in range(2)]
            assert [frame.get("content") for frame in heard] == [None, "01"]


async def test_what_only_some_sockets_asked_for_is_built_once_for_all_of_them_and_never_for_nobody(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []

    def build(frame: Frame) -> str:
        built.append(frame["type"])
        return text(frame)

    monkeypatch.setattr("services.pusher.frames.text", build)
    async with running_pusher(memory, store) as (address, _), AsyncExitStack() as stack:

        async def listening(**query: str) -> Socket:
            listener = await stack.enter_async_context(socket(address, "t", **query))
            await listener.next("connected")
            assert await listener.hears_nothing()  # it listens by now
            return listener

        async def tell(*listeners: Socket) -> list[object]:
            """Announce a reply to three messages, and see what is built for it."""
            (reply,) = await record(store, "reply")
            built.clear()
            await announce(
                memory, reply.model_copy(update={"in_reply_to": tuple(UUID(int=number) for number in range(3))})
            )
            for listener in listeners:
                await listener.next("new_message")
            return [*built]

        plain = await listening()
        assert await tell(plain) == ["new_message"]
        watchers = [await listening(events="all") for _ in range(2)]
        assert sorted(map(str, await tell(plain, *watchers))) == ["fate"] * 3 + ["new_message"]


async def test_a_cancellation_does_not_wait_for_messages_that_are_being_recorded(memory: Bus, store: Store) -> None:
    """Nobody records here."""
    async with (
        memory.subscribe("agent") as agent,
        running_pusher(memory, store, record_timeout=1000) as (address, _),
        socket(address, "t") as talker,
    ):
        await agent.bind(CHAT_CONTROL, EVERY_CANCELLATION[0])
        await talker.next("connected")
        await talker.send(json.dumps({"type": "message", "message": "hello"}))
        await talker.send(json.dumps({"type": "cancel"}))
        assert (await talker.next())["type"] == "cancelling"
        assert [event.type for body in await agent.take(1) for event in decode(body)] == ["cancel_asked"]


async def test_a_cancellation_by_who_leaves_at_once_is_passed_on(memory: Bus, store: Store) -> None:
    async with memory.subscribe("agent") as agent, running_pusher(memory, store) as (address, _):
        await agent.bind(CHAT_CONTROL, EVERY_CANCELLATION[0])
        async with socket(address, "t") as talker:
            await talker.send(json.dumps({"type": "cancel"}))
        async with asyncio.timeout(DEADLINE):
            assert len(await agent.take(1)) == 1


async def test_a_thread_that_cannot_be_opened_says_to_come_back(memory: Bus) -> None:
    async with (
        open_store("postgresql://127.0.0.1:1/room", pool_size=2) as away,
        running_pusher(memory, away) as (address, _),
        connect(f"{address.replace('http', 'ws', 1)}/ws/chat/t") as visitor,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            await visitor.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "http://[::1",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
    ],
)
async def test_a_page_of_another_host_may_not_open_a_socket(memory: Bus, store: Store, origin: str) -> None:
    async with running_pusher(memory, store) as (address, _):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{address.replace('http', 'ws', 1)}/ws/chat/t", additional_headers={"Origin": origin}):
                pass
        assert refused.value.response.status_code == 403
        told = json.loads(refused.value.response.body or b"")
        assert (told["code"], "must be in ORIGINS" in told["message"]) == ("foreign_origin", True)


async def test_a_page_of_the_same_host_and_port_may_open_a_socket(memory: Bus, store: Store) -> None:
    async with (
        running_pusher(memory, store) as (address, _),
        connect(f"{address.replace('http', 'ws', 1)}/ws/chat/t", additional_headers={"Origin": address}) as visitor,
    ):
        assert json.loads(await visitor.recv())["type"] == "connected"


async def test_clients_that_vanish_are_no_errors(memory: Bus, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async with running_pusher(memory, store) as (address, hub):
        visitors = [await connect(f"{address.replace('http', 'ws', 1)}/ws/chat/t") for _ in range(30)]
        await until(lambda: len(hub._threads["t"].audience) == 30)
        for visitor in visitors:
            visitor.transport.abort()
        for _ in range(20):
            await announce(memory, *await record(store, "to whom?"))
        await until(lambda: not hub._threads["t"].audience)
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


async def test_a_message_that_is_not_understood_is_told_with_its_client_id(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as client:
        for client_id, expected in (("abc", "abc"), (7, None)):
            await client.send(json.dumps({"type": "message", "message": "", "client_id": client_id}))
            error = await client.next("error")
            assert (error["code"], error.get("client_id")) == ("invalid_message", expected)
