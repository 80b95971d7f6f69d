"""Event streams: the turn as it goes, and the reply, also for who comes back. No agent runs: tests play its part."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from m3.bus import Bus, open_bus
from m3.errors import Unroutable
from m3.events import (
    Message,
    ReplyGrew,
    TurnEnded,
    TurnNews,
    TurnOutcome,
    TurnStarted,
    encode,
    reply_id,
)
from m3.frames import turn_news
from m3.store import Store
from m3.topology import CHAT_CONTROL, EVERY_RETELLING, Route, retold
from services.gateway.reading_along import Reader
from services.recorder import recorder
from tests.support.client import client, streaming
from tests.support.gateway import (
    failure_of,
    hand_in,
    next_message,
    passed_over,
    reply_to,
    running_gateway,
    serving_gateway,
)
from tests.support.proxy import frail_bus
from tests.support.pushing import asked_by, think
from tests.support.until import DEADLINE, until


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


class Turn:
    """A turn about messages of a thread, and its news."""

    def __init__(self, *messages: Message) -> None:
        self._of = {
            "thread_id": messages[0].thread_id,
            "turn_id": uuid4(),
            "reply_id": reply_id(messages[0].message_id),
        }
        self._answers = tuple(message.message_id for message in messages)

    @property
    def started(self) -> TurnStarted:
        return TurnStarted.model_validate(self._of | {"in_reply_to": self._answers})

    def grew(self, index: int, text: str) -> ReplyGrew:
        return ReplyGrew.model_validate(self._of | {"index": index, "text": text})

    def ended(self, outcome: TurnOutcome) -> TurnEnded:
        return TurnEnded.model_validate(self._of | {"outcome": outcome})


def names(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [f"{name} {data['state']}" if name == "turn" else name for name, data in events]


async def anyone_hears(bus: Bus, thread_id: str = "default") -> bool:
    """A route that must arrive tells whether a queue is bound."""
    try:
        await bus.publish(Route("chat.out", f"turn.{thread_id}", must_arrive=True), encode([]))
    except Unroutable:
        return False
    return True


async def test_a_message_is_told_from_its_record_over_the_turn_to_its_reply(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_gateway(bus, store) as http,
        streaming(http, "hello") as stream,
    ):
        message = await next_message(store)
        first = await stream.event()
        assert first is not None
        assert (first["event"], first["id"]) == ("recorded", str(message.message_id))
        turn = Turn(message)
        await think(bus, turn.started)
        await think(bus, turn.grew(0, "你\n"))
        await think(bus, turn.grew(1, "好"))
        told = [await stream.next() for _ in range(3)]
        assert told == [
            ("turn", {"type": "turn", "state": "started", **_known(message, turn), "in_reply_to": [_id(message)]}),
            ("delta", {"type": "delta", **_known(message, turn), "index": 0, "content": "你\n"}),
            ("delta", {"type": "delta", **_known(message, turn), "index": 1, "content": "好"}),
        ]
        await hand_in(bus, reply_to(message, content="你\n好"))
        ((name, reply),) = await stream.rest()
        assert (name, reply["content"], reply["seq"]) == ("new_message", "你\n好", 2)
        assert reply["in_reply_to"] == [_id(message)]
        assert stream.response.status_code == 200
        headers = stream.response.headers
        assert headers["content-type"].partition(";")[0] == "text/event-stream"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")


def _id(message: Message) -> str:
    return str(message.message_id)


def _known(message: Message, turn: Turn) -> dict[str, str]:
    turn_id = str(turn.started.turn_id)
    return {"thread_id": message.thread_id, "turn_id": turn_id, "reply_id": str(reply_id(message.message_id))}


async def test_what_concerns_other_messages_is_not_told(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store) as http,
        streaming(http, "one") as one,
        streaming(http, "two") as two,
        streaming(http, "elsewhere", thread_id="elsewhere") as elsewhere,
    ):
        messages = [await next_message(store, number=number) for number in (1, 2)]
        first, second = sorted(messages, key=lambda message: message.content)
        for turn, text in ((Turn(first), "first"), (Turn(second), "second")):
            await think(memory, turn.started, turn.grew(0, text), turn.ended("answered"))
        await hand_in(memory, reply_to(first, content="first"), reply_to(second, content="second"))
        await hand_in(memory, reply_to(await next_message(store, "elsewhere")))
        for stream, content in ((one, "first"), (two, "second")):
            events = await stream.rest()
            assert names(events) == ["recorded", "turn started", "delta", "turn ended", "new_message"]
            assert (events[2][1]["content"], events[-1][1]["content"]) == (content, content)
        assert names(await elsewhere.rest()) == ["recorded", "new_message"]


async def test_messages_that_share_a_turn_are_all_told_of_it(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store) as http,
        streaming(http, "one", source="api") as one,
        streaming(http, "two", source="api") as two,
    ):
        both = [await next_message(store, number=number) for number in (1, 2)]
        turn = Turn(*both)
        await think(memory, turn.started, turn.grew(0, "both"))
        await hand_in(memory, reply_to(*both, content="both"))
        for stream in (one, two):
            events = await stream.rest()
            assert names(events) == ["recorded", "turn started", "delta", "new_message"]
            assert events[-1][1]["in_reply_to"] == [_id(message) for message in both]


async def test_a_turn_that_begins_anew_is_told_again(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store) as http,
        streaming(http, "hello") as stream,
    ):
        message = await next_message(store)
        for outcome in ("interrupted", "answered"):
            turn = Turn(message)
            await think(memory, turn.started, turn.grew(0, outcome), turn.ended(outcome))
        await hand_in(memory, reply_to(message))
        told = names(await stream.rest())
        assert told == ["recorded", *["turn started", "delta", "turn ended"] * 2, "new_message"]


async def test_a_failure_ends_the_turn_and_then_the_stream_whichever_is_heard_first(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_gateway(bus, store) as http,
        streaming(http, "hello") as stream,
    ):
        message = await next_message(store)
        await stream.next()
        await think(bus, Turn(message).started)
        await stream.next()
        await hand_in(bus, failure_of(message))
        (_, ended), (name, error) = await stream.rest()
        assert (ended["state"], ended["outcome"], ended["reason"]) == ("ended", "failed", "No model.")
        assert name == "error"
        assert error == {"code": "model_failed", "message": "No model.", "message_id": _id(message)}


@pytest.mark.parametrize("fate", ["expired", "shed", "ignored", "cancelled"])
async def test_a_message_that_gets_no_reply_is_told_its_fate(memory: Bus, store: Store, fate: Any) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store) as http,
        streaming(http, "hello") as stream,
    ):
        await hand_in(memory, passed_over(await next_message(store), fate))
        _, (name, told) = await stream.rest()
        assert (name, told["fate"], told["reason"], told["number"]) == ("fate", fate, "Why.", 2)


async def test_a_reply_that_was_stopped_says_so(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store) as http,
        streaming(http, "hello") as stream,
    ):
        await hand_in(memory, reply_to(await next_message(store), content="so f", cancelled=True))
        _, (name, reply) = await stream.rest()
        assert (name, reply["content"], reply["cancelled"]) == ("new_message", "so f", True)


async def test_past_the_waiting_time_a_stream_ends_with_where_to_look(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store, reply_timeout=0.05) as http,
        streaming(http, "hello") as stream,
    ):
        _, (name, body) = await stream.rest()
        message = await next_message(store)
        assert name == "pending"
        assert body == {"thread_id": "default", "message_id": _id(message), "seq": 1, "fate": "pending"}


async def test_a_stream_that_runs_when_the_gateway_stops_ends_with_where_to_look(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), AsyncExitStack() as with_client:
        async with serving_gateway(bus, store, grace=1) as address:
            http = await with_client.enter_async_context(client(address))
            stream = await with_client.enter_async_context(streaming(http, "hello"))
            assert (await stream.next() or [""])[0] == "recorded"
        assert names(await stream.rest()) == ["pending"]


async def test_a_stream_is_not_put_off_while_words_come(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store, reply_timeout=0.5) as http,
        streaming(http, "hello") as stream,
    ):
        turn = Turn(await next_message(store))
        await think(memory, turn.started)
        begun = asyncio.get_running_loop().time()
        events, index = [await stream.next(), await stream.next()], 0
        while asyncio.get_running_loop().time() - begun < 1.5:
            await think(memory, turn.grew(index, "word "))
            events.append(await stream.next())
            index += 1
        assert {event[0] for event in events if event} == {"recorded", "turn", "delta"}
        assert [name for name, _ in await stream.rest()] == ["pending"]


async def test_what_is_refused_before_it_is_recorded_is_an_ordinary_answer(memory: Bus, store: Store) -> None:
    """Nobody records here."""
    async with running_gateway(memory, store, record_timeout=0.05, message_limit=8) as http:
        for message, status, code in (("hello", 503, "not_recorded"), ("too long for it", 422, "message_too_long")):
            async with streaming(http, message) as stream:
                await stream.response.aread()
                assert (stream.response.status_code, stream.response.json()["code"]) == (status, code)
        await until(lambda: _nobody_hears(memory))


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("text/event-stream;q=0", False),
        ("text/event-streams", False),
        ("TEXT/Event-Stream", True),
        ("application/json, text/event-stream;q=0.5", True),
    ],
)
async def test_only_who_names_event_streams_gets_one(memory: Bus, store: Store, accept: str, *, streams: bool) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store, reply_timeout=0.01) as http,
    ):
        answer = await http.post("/api/chat", json={"message": "hello"}, headers={"Accept": accept})
        assert answer.status_code == (200 if streams else 202)
        assert answer.headers["content-type"].startswith("text/event-stream") == streams


async def test_a_silent_stream_shows_that_it_lives(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_gateway(memory, store, ping_interval=0.02) as http,
        streaming(http, "hello") as stream,
    ):
        await stream.next()
        assert [await stream.block() for _ in range(3)] == [[": "]] * 3


async def test_a_client_that_goes_away_ends_its_reading_and_not_the_turn(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), running_gateway(bus, store) as http:
        async with streaming(http, "one") as stays:
            async with streaming(http, "two") as goes:
                await goes.next()
                await stays.next()
                assert await anyone_hears(bus)
            first = await next_message(store)
            await think(bus, Turn(first).started)
            await hand_in(bus, reply_to(first))
            assert names(await stays.rest())[-1] == "new_message"
        await until(lambda: _nobody_hears(bus))
        second = await next_message(store, number=2)
        assert second.fate == "pending"


async def test_a_client_that_does_not_read_is_cut_off(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("m3.web.protocols.TAKE_TIMEOUT", 0.1)
    async with recorder(memory, store, grace=1), serving_gateway(memory, store) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        body = b'{"message": "hello"}'
        writer.write(
            b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await reader.readuntil(b"recorded")
        turn = Turn(await next_message(store))
        await think(memory, turn.started, *(turn.grew(index, "x" * 100_000) for index in range(200)))
        await until(lambda: _nobody_hears(memory))
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(DEADLINE):
                await reader.read()
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def _nobody_hears(bus: Bus) -> bool:
    return not await anyone_hears(bus)


def back(message_id: object) -> dict[str, str]:
    return {"Last-Event-ID": str(message_id)}


async def test_who_comes_back_reads_on_at_any_gateway(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_gateway(bus, store) as one,
        running_gateway(bus, store) as other,
    ):
        async with streaming(one, "hello") as stream:
            await stream.next()
        message = await next_message(store)
        turn = Turn(message)
        async with streaming(other, "hello", back(message.message_id)) as stream:
            await think(bus, turn.grew(7, "and on"))  # its start was told before
            assert await stream.next() == (
                "delta",
                {"type": "delta", **_known(message, turn), "index": 7, "content": "and on"},
            )
            await hand_in(bus, reply_to(message))
            await think(bus, turn.ended("answered"))
            assert names(await stream.rest())[-1] == "new_message"
        async with streaming(other, "hello", back(message.message_id)) as stream:
            assert names(await stream.rest()) == ["new_message"]
        assert await store.head("default") == 2


async def test_who_comes_back_in_the_middle_of_a_turn_is_told_it_from_its_start(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_gateway(bus, store) as one,
        running_gateway(bus, store) as other,
        bus.subscribe("agent") as agent,
        AsyncExitStack() as stack,
    ):
        await agent.bind(CHAT_CONTROL, EVERY_RETELLING[0])

        first = await stack.enter_async_context(streaming(one, "hello"))
        await first.next()
        await asked_by(agent)
        message = await next_message(store)
        turn = Turn(message)
        told: list[TurnNews] = [turn.started, turn.grew(0, "Once "), turn.grew(1, "upon ")]
        await think(bus, *told)
        assert names([event for event in [await first.next() for _ in told] if event]) == [
            "turn started",
            "delta",
            "delta",
        ]
        second = await stack.enter_async_context(streaming(one, "hello", back(message.message_id)))
        third = await stack.enter_async_context(streaming(other, "hello", back(message.message_id)))
        again = turn.started.model_copy(update={"again": True})
        whole = turn.grew(0, "Once upon ").model_copy(update={"pieces": 2})
        await bus.publish(retold(await asked_by(agent)), encode([again, whole]))
        for late in (second, third):
            events = [await late.next() for _ in range(2)]
            assert events == [("turn", turn_news(again)), ("delta", turn_news(whole))]
        await think(bus, turn.grew(2, "a time"))
        for stream in (first, second, third):
            assert await stream.next() == ("delta", turn_news(turn.grew(2, "a time")))
        await hand_in(bus, reply_to(message))


async def test_a_gateway_that_may_have_missed_some_of_a_turn_asks_for_it_again(
    rabbit: Bus, broker_url: str, store: Store
) -> None:
    async with (
        recorder(rabbit, store, grace=1),
        frail_bus(broker_url) as (line, frail),
        running_gateway(frail, store) as http,
        rabbit.subscribe("agent") as agent,
    ):
        await agent.bind(CHAT_CONTROL, EVERY_RETELLING[0])
        async with streaming(http, "hello") as stream:
            await stream.next()
            await asked_by(agent)
            message = await next_message(store)
            turn = Turn(message)
            await think(rabbit, turn.started, turn.grew(0, "Once "))
            assert names([event for event in [await stream.next(), await stream.next()] if event]) == [
                "turn started",
                "delta",
            ]
            line.cut()
            await until(lambda: not frail.connected)
            again = turn.started.model_copy(update={"again": True})
            whole = turn.grew(0, "Once upon ").model_copy(update={"pieces": 2})
            await rabbit.publish(retold(await asked_by(agent)), encode([again, whole]))
            assert [await stream.next() for _ in range(2)] == [
                ("turn", turn_news(turn.started)),
                ("delta", turn_news(whole)),
            ]
            await hand_in(rabbit, reply_to(message))


async def test_who_comes_back_without_a_stream_gets_the_reply_too(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        said = await http.post("/api/chat", json={"message": "hello"}, headers={"Prefer": "respond-async"})
        await hand_in(memory, reply_to(await next_message(store)))
        await next_message(store, number=2)
        answer = await http.post("/api/chat", json={"message": "hello"}, headers=back(said.json()["message_id"]))
        assert (answer.status_code, answer.json()["response"]) == (200, "reply")


async def test_who_comes_back_must_name_a_message_and_say_the_same(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        said = await http.post("/api/chat", json={"message": "hello"}, headers={"Prefer": "respond-async"})
        for message, message_id, status, code in (
            ("hello", UUID(int=1), 404, "not_found"),
            ("another", said.json()["message_id"], 422, "key_reused"),
            ("hello", "1", 422, "invalid_request"),
        ):
            async with streaming(http, message, back(message_id)) as stream:
                await stream.response.aread()
                assert (stream.response.status_code, stream.response.json()["code"]) == (status, code)
        assert await store.head("default") == 1


async def test_a_stream_asked_for_again_with_its_key_is_of_the_same_message(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        key = {"Idempotency-Key": "k"}
        async with streaming(http, "hello", key) as one, streaming(http, "hello", key) as other:
            await hand_in(memory, reply_to(await next_message(store)))
            told = await asyncio.gather(one.rest(), other.rest())
            assert told[0] == told[1]
            assert names(told[0]) == ["recorded", "new_message"]
        async with streaming(http, "hello", key) as late:
            assert await late.rest() == told[0]


async def test_a_caller_who_does_not_keep_up_misses_the_oldest_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.reading_along.WAITING", 4)
    message_id = uuid4()
    reader = Reader(message_id)
    turn = {"thread_id": "t", "turn_id": uuid4(), "reply_id": reply_id(message_id)}
    reader.hear(TurnStarted.model_validate(turn | {"in_reply_to": (message_id,)}))
    for index in range(9):
        reader.hear(ReplyGrew.model_validate(turn | {"index": index, "text": "x"}))
    reader.hear(TurnEnded.model_validate(turn | {"outcome": "answered"}))
    reader.end()
    heard = []
    while (news := await reader.next()) is not None:
        heard.append(news.index if isinstance(news, ReplyGrew) else news.type)
    assert heard == ["turn_started", 7, 8, "turn_ended"]
