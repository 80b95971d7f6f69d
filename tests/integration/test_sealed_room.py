"""A room with keys: its people, programs and its agent see what is said, and nothing else that keeps or carries it does.

The recorder has no keys in any of these tests.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from structlog.testing import capture_logs

from m3 import topology
from m3.bus import Bus
from m3.door import Door
from m3.errors import KeyReused, StartError, StoreUnavailable
from m3.events import MessageAccepted, MessageRecorded, ReplyGrew, decode, encode, reply_id
from m3.sealing import UNREADABLE, WrappedKey
from m3.store import Store, speaking_for
from m3.upkeep import check, rotate
from services.gateway.reading_along import ReadingAlong
from services.recorder import recorder
from tests.support.answering import Agents, repeats
from tests.support.client import history, post, socket, streaming
from tests.support.gateway import running_gateway
from tests.support.pushing import running_pusher
from tests.support.scripted_model import Behaviour, ScriptedModel, says, scripted_model
from tests.support.sealed import NEW, OLD, OTHER, Tap, dumped, execute, settings, store_with
from tests.support.until import DEADLINE, until

#: Of no other word in the room's code or tables.
SECRET = "zanzibar"


@dataclass
class Room:
    tap: Tap
    model: ScriptedModel
    http: httpx2.AsyncClient
    sockets: str
    store: Store


@pytest.fixture
async def room(bus: Bus, store: Store, database_url: str, agents: Agents) -> AsyncIterator[Room]:
    """Each of its parts is a process as it were, with a store of its own."""

    def script(body: dict[str, Any]) -> Behaviour:
        if "sum" in body["messages"][0]["content"].lower()[:200]:
            return says(f"They spoke of {SECRET}.")
        return repeats(body)

    tap = Tap(bus)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(recorder(tap, store, grace=DEADLINE))
        model = await enter(scripted_model(script))
        keys = settings(OLD).content_keys
        await enter(agents(tap, model, content_keys=keys, context_tokens=120, summarise=True))
        pushers, gateways = [await enter(store_with(database_url, OLD)) for _ in range(2)]
        sockets, _ = await enter(running_pusher(tap, pushers))
        yield Room(tap, model, await enter(running_gateway(tap, gateways)), sockets, gateways)


async def test_everybody_sees_what_is_said_and_no_table_and_no_body_on_the_bus_has_it(
    room: Room, database_url: str
) -> None:
    async with socket(room.sockets, "default", events="all") as listener:
        await listener.next("connected")
        async with streaming(room.http, f"first {SECRET}") as stream:
            events = await stream.rest()
        assert "".join(data["content"] for name, data in events if name == "delta") == f"heard [user] first {SECRET}"
        assert events[-1][1]["content"] == f"heard [user] first {SECRET}"
        assert [frame["content"] for frame in await listener.messages(2)] == [
            f"first {SECRET}",
            f"heard [user] first {SECRET}",
        ]
        assert SECRET in "".join(frame["content"] for frame in listener.frames if frame["type"] == "delta")
        async with socket(room.sockets, "default") as speaker:
            await speaker.say(f"over a socket, {SECRET}")
        assert (await listener.next("new_message"))["content"] == f"over a socket, {SECRET}"
    batch = [{"message": f"{SECRET} {number}"} for number in range(3)]
    assert (await room.http.post("/api/threads/default/messages", json=batch)).status_code == 202
    assert (await post(room.http, f"last {SECRET}"))["response"] == f"heard [user] last {SECRET}"

    async def is_quiet() -> bool:
        return not (await room.store.mailbox("default", 1)).waiting

    await until(is_quiet)
    shown = await history(room.http, "default")
    assert all(SECRET in message["content"] for message in shown)
    assert not any("sealed" in message or "terms" in message for message in shown)
    one = (await room.http.get(f"/api/messages/{shown[0]['message_id']}")).json()
    assert one["content"] == f"first {SECRET}"
    async with socket(room.sockets, "default", after=0) as late:
        assert [frame["content"] for frame in await late.messages(len(shown))] == [one["content"] for one in shown]
    told = [text for asked in room.model.asked for _, text in asked.chat]
    assert f"[user] first {SECRET}" in told
    assert SECRET not in await dumped(database_url)
    assert not [body for body in room.tap.bodies if SECRET.encode() in body]
    assert b"reply_grew" in b"".join(room.tap.bodies)  # so that what is told of a turn is among them


async def test_what_no_longer_fits_is_summed_up_and_the_summary_is_sealed_too(room: Room, database_url: str) -> None:
    for number in range(6):
        await post(room.http, f"{SECRET} {number} " + "purrs " * 12)

    async def has_summary() -> bool:
        return await room.store.summary("default") is not None

    await until(has_summary)
    assert await room.store.summary("default") == f"They spoke of {SECRET}."
    await post(room.http, "what was it about?")
    assert any(f"They spoke of {SECRET}." in text for asked in room.model.asked for _, text in asked.chat)
    assert SECRET not in await dumped(database_url)
    assert not [body for body in room.tap.bodies if SECRET.encode() in body]


async def test_the_same_said_again_with_its_key_is_one_message_also_after_a_rotation(
    room: Room, database_url: str, bus: Bus
) -> None:
    headers = {"Idempotency-Key": "one"}
    first = (await room.http.post("/api/chat", json={"message": SECRET}, headers=headers)).json()
    async with store_with(database_url, NEW, OLD) as rotating:
        assert await rotate(rotating, print)
    async with store_with(database_url, NEW) as later, running_gateway(bus, later) as http:
        again = await http.post("/api/chat", json={"message": SECRET}, headers=headers)
        assert (again.status_code, again.json()) == (200, first)
        another = await http.post("/api/chat", json={"message": "another"}, headers=headers)
        assert (another.status_code, another.json()["code"]) == (422, "key_reused")
    assert len(await history(room.http, "default")) == 2


async def test_the_recorder_takes_the_first_of_two_ciphertexts_of_one_message(
    bus: Bus, store: Store, database_url: str
) -> None:
    said = MessageAccepted(thread_id="t", source="user", content=SECRET, interface="http_api", origin="nobody")
    async with store_with(database_url, OLD) as one, store_with(database_url, OLD) as two:
        first, second = [await each.content.sealed([said]) for each in (one, two)]
        assert first[0].content != second[0].content
        async with recorder(bus, store, grace=DEADLINE):
            for events in (first, second):
                await bus.publish(topology.accepted(), encode(events))

            async def is_there() -> bool:
                return await store.message(said.message_id) is not None

            await until(is_there)
        (message,) = await one.latest("t", 10)
        assert (message.content, message.sealed) == (SECRET, False)
        (unread,) = await store.latest("t", 10)
        assert unread.content == UNREADABLE


async def test_a_room_goes_on_while_its_keys_are_rotated(bus: Bus, store: Store, database_url: str) -> None:
    async with (
        recorder(bus, store, grace=DEADLINE),
        store_with(database_url, OLD) as before,
        store_with(database_url, NEW, OLD) as after,
        running_gateway(bus, before) as old,
        running_gateway(bus, after) as new,
    ):
        over = asyncio.Event()
        said = [0]

        async def load(http: httpx2.AsyncClient, name: str) -> None:
            while not over.is_set():
                batch = [{"message": f"{SECRET} {name}"} for _ in range(10)]
                answer = await http.post(f"/api/threads/{name}-{said[0] % 20}/messages", json=batch)
                assert answer.status_code == 202, answer.text
                assert not [one for one in answer.json()["messages"] if "code" in one]
                said[0] += 1

        def reached(target: int) -> bool:
            return said[0] >= target

        async with asyncio.TaskGroup() as group:
            for http, name in ((old, "old"), (new, "new")):
                group.create_task(load(http, name))
            for target in (20, 60, 100):
                await until(partial(reached, target))
                assert await rotate(after, print)
            over.set()
    async with store_with(database_url, NEW, OLD) as last:
        assert await rotate(last, print)
    async with store_with(database_url, NEW) as only_new:
        await check(only_new)
        for name in ("old", "new"):
            for number in range(20):
                for message in await only_new.latest(f"{name}-{number}", 500):
                    assert message.content == f"{SECRET} {name}"


async def test_a_message_that_was_changed_says_so_everywhere_and_the_agent_skips_it(
    room: Room, database_url: str
) -> None:
    await room.http.put("/api/threads/default/settings", json={"pause": "wait"})
    prefer = {"Prefer": "respond-async"}
    for text in ("spoilt", "whole"):
        assert (await room.http.post("/api/chat", json={"message": text}, headers=prefer)).status_code == 202
    await execute(database_url, "UPDATE dialogue SET content = overlay(content PLACING 'AAAA' FROM 20) WHERE seq = 1")
    await room.http.put("/api/threads/default/settings", json={})

    async def is_answered() -> bool:
        return [message.fate for message in await room.store.latest("default", 2)] == ["answered", None]

    await until(is_answered)
    spoilt, whole, reply = await history(room.http, "default")
    assert (spoilt["content"], spoilt["sealed"], spoilt["fate"]) == (UNREADABLE, True, "ignored")
    assert (whole["content"], reply["content"]) == ("whole", "heard [user] whole")
    assert not any(UNREADABLE in text for asked in room.model.asked for _, text in asked.chat)
    async with socket(room.sockets, "default", after=0) as late:
        first, second, *_ = await late.messages(3)
        assert (first["content"], first["sealed"]) == (UNREADABLE, True)
        assert "sealed" not in second


async def test_an_agent_without_the_key_leaves_what_is_sealed_to_one_that_has_it(
    bus: Bus, store: Store, database_url: str, agents: Agents
) -> None:
    tap = Tap(bus)
    async with (
        recorder(tap, store, grace=DEADLINE),
        store_with(database_url, OLD) as sealing,
        scripted_model(repeats) as model,
    ):
        with capture_logs() as lines:
            async with agents(tap, model, sweep_interval=0.2):
                said = MessageAccepted(
                    thread_id="t", source="user", content=SECRET, interface="http_api", origin="nobody"
                )
                await tap.publish(topology.accepted(), encode(await sealing.content.sealed([said])))

                def was_knocked_for() -> bool:
                    return tap.bodies.count(encode([])) >= 5  # by sweeps

                await until(was_knocked_for)
                waiting = await sealing.message(said.message_id)
                assert waiting is not None
                assert waiting.fate == "pending"
        for sentence in ("give CONTENT_KEYS what the other services have", "is left to agents that have its key"):
            assert sum(sentence in line["event"] for line in lines) == 1
        assert not model.asked
        async with agents(tap, model, sweep_interval=0.2, content_keys=settings(OLD).content_keys):

            async def is_answered() -> bool:
                return [one.content for one in await sealing.latest("t", 2)] == [SECRET, f"heard [user] {SECRET}"]

            await until(is_answered)


@dataclass
class Held:
    """What holds up whoever asks a store for threads' keys."""

    store: Store
    free: asyncio.Event

    @classmethod
    def of(cls, store: Store, monkeypatch: pytest.MonkeyPatch) -> "Held":
        held = cls(store, asyncio.Event())
        held.free.set()
        ask = store.thread_keys

        async def wait(thread_ids: Collection[str]) -> dict[str, WrappedKey]:
            await held.free.wait()
            return await ask(thread_ids)

        monkeypatch.setattr(store, "thread_keys", wait)
        return held


def said_in(thread_id: str, origin: str = "nobody") -> MessageAccepted:
    return MessageAccepted(thread_id=thread_id, source="user", content=SECRET, interface="http_api", origin=origin)


async def test_a_threads_key_that_does_not_come_holds_up_no_other_threads_sockets(
    memory_bus: Bus, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        store_with(database_url, OLD) as sealing,
        store_with(database_url, OLD) as pushers,
        running_pusher(memory_bus, pushers) as (sockets, _),
    ):
        held = Held.of(pushers, monkeypatch)
        await sealing.content.keys({"known"}, make=True)
        threads = ("new", "known", "plain")
        async with AsyncExitStack() as stack:
            listeners = {one: await stack.enter_async_context(socket(sockets, one)) for one in threads}
            for listener in listeners.values():
                await listener.next("connected")
            held.free.clear()
            said = [*await sealing.content.sealed([said_in("new"), said_in("known")]), said_in("plain")]
            recorded = await store.record(said)
            for message in recorded.messages.values():
                news = encode([MessageRecorded(message=message)])
                await memory_bus.publish(topology.announced("user", message.thread_id), news)
            for one in ("plain", "known"):
                assert [frame["content"] for frame in await listeners[one].messages(1)] == [SECRET]
            assert not [frame for frame in listeners["new"].frames if frame["type"] == "new_message"]
            held.free.set()
            assert [frame["content"] for frame in await listeners["new"].messages(1)] == [SECRET]


async def test_a_threads_key_that_does_not_come_holds_up_nobody_else_at_a_door(
    memory_bus: Bus, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose room begins to seal: the door has the keys, and does not seal itself yet."""
    async with (
        store_with(database_url, OLD) as sealing,
        store_with(database_url, "off", OLD) as opening,
        Door.open("gateway", memory_bus, opening) as door,
        ReadingAlong.open(memory_bus, opening, linger=0) as reading,
        recorder(memory_bus, store, grace=DEADLINE),
    ):
        held = Held.of(opening, monkeypatch)
        held.free.clear()
        slow, quick = said_in("slow", door.origin), said_in("quick", door.origin)
        pieces = [
            ReplyGrew(thread_id=said.thread_id, turn_id=uuid4(), reply_id=reply_id(said.message_id), index=0, text="x")
            for said in (slow, quick)
        ]
        replies = [
            MessageAccepted(
                message_id=reply_id(said.message_id),
                thread_id=said.thread_id,
                source="assistant",
                content=f"{SECRET}, indeed",
                interface="http_api",
                origin="nobody",
                in_reply_to=(said.message_id,),
            )
            for said in (slow, quick)
        ]
        async with (
            reading.reader("slow", slow.message_id),
            reading.reader("quick", quick.message_id) as reader,
            door.taken(slow, settings()) as slowly,
            door.taken(quick, settings()) as quickly,
        ):
            for events in (await sealing.content.sealed(pieces[:1]), pieces[1:]):
                await memory_bus.publish(topology.thinking(events[0].thread_id), encode(events))
            assert await reader.next() == pieces[1]
            for answers in (await sealing.content.sealed(replies[:1]), replies[1:]):
                await memory_bus.publish(topology.accepted(), encode(answers))
            assert (await quickly.watch.settled(DEADLINE)).fate == "answered"
            held.free.set()
            assert (await slowly.watch.settled(DEADLINE)).fate == "answered"
            reply = await slowly.watch.reply()
            assert reply is not None
            assert reply.content == f"{SECRET}, indeed"


async def test_a_thread_is_searched_as_in_a_plain_room_and_its_words_are_in_no_table(
    room: Room, database_url: str
) -> None:
    for text in (f"{SECRET} by night", f"{SECRET} by day", "你好吗"):
        await room.http.post("/api/chat", json={"message": text}, headers={"Prefer": "respond-async"})
    await post(room.http, "elsewhere", thread_id="elsewhere")

    async def found(q: str, thread_id: str = "default") -> list[str]:
        answer = await room.http.get(f"/api/threads/{thread_id}/search", params={"q": q})
        return [message["content"] for message in answer.json()["messages"] if message["source"] == "user"]

    assert await found(SECRET.upper()) == [f"{SECRET} by day", f"{SECRET} by night"]
    assert await found(f"night {SECRET}") == [f"{SECRET} by night"]
    assert (await found("你好"), await found("好"), await found("吗好")) == (["你好吗"], ["你好吗"], [])
    assert await found(SECRET, "elsewhere") == []
    everything = await dumped(database_url)
    assert SECRET not in everything
    assert "你" not in everything
    async with store_with(database_url) as plain:  # whoever has the table alone cannot try words
        assert await plain.found("default", SECRET, 10) == []


async def test_a_room_without_a_key_that_it_needs_does_not_start(bus: Bus, store: Store, database_url: str) -> None:
    await check(store)  # as long as nothing is sealed none is needed
    async with store_with(database_url, OLD) as sealing:
        await sealing.content.keys({"t", "u"}, make=True)
        await check(sealing)
    for keys, sentence in (
        ((), "CONTENT_KEYS lacks the key old"),
        ((NEW,), "CONTENT_KEYS lacks the key old"),
        ((OTHER,), "CONTENT_KEYS has another key old"),
    ):
        async with store_with(database_url, *keys) as wrong:
            with pytest.raises(StartError, match=re.escape(sentence)):
                await check(wrong)


async def test_a_reused_key_is_noticed_by_what_was_said_and_not_by_its_ciphertext(
    bus: Bus, store: Store, database_url: str
) -> None:
    async with (
        recorder(bus, store, grace=DEADLINE),
        store_with(database_url, OLD) as sealing,
        Door.open("gateway", bus, sealing) as door,
    ):
        said = MessageAccepted(thread_id="t", source="user", content=SECRET, interface="http_api", origin=door.origin)
        for _ in range(3):
            async with door.taken(said, settings()) as taken:
                assert taken.message.content == SECRET
        assert [type(outcome).__name__ for outcome in await door.take_all([said, said], settings())] == ["Message"] * 2
        with pytest.raises(KeyReused):
            async with door.taken(said.model_copy(update={"content": "another"}), settings()):
                pass
        assert await sealing.head("t") == 1


async def test_what_an_older_recorder_and_an_older_door_tell_is_understood(store: Store) -> None:
    said = MessageAccepted(thread_id="t", source="user", content="hello", interface="http_api", origin="nobody")
    old = encode([said]).replace(b',"sealed":false,"terms":null', b"")
    assert b"terms" not in old
    assert decode(old) == [said]
    await store.record([said])
    assert [message.content for message in await store.latest("t", 1)] == ["hello"]
    assert await store.found("t", "hello", 10) == []  # until `m3 content index`


async def test_a_tenants_door_makes_and_reads_the_keys_of_its_own_threads_alone(
    store: Store, database_url: str
) -> None:
    async with store_with(database_url, OLD) as door, store_with(database_url, OLD) as other:
        said = [
            MessageAccepted(thread_id=f"{tenant}.t", source="user", content=SECRET, interface="http_api", origin="o")
            for tenant in ("acme", "globex")
        ]
        for tenant, one in zip(("acme", "globex"), said, strict=True):
            with speaking_for(tenant):
                await store_of_all(store, await door.content.sealed([one]))
        with speaking_for("acme"):
            assert [message.content for message in await other.latest("acme.t", 10)] == [SECRET]
            assert [message.content for message in await other.found("acme.t", SECRET, 10)] == [SECRET]
            assert set(await other.thread_keys(["acme.t", "globex.t"])) == {"acme.t"}
            assert await other.found("globex.t", SECRET, 10) == []
            with pytest.raises(StoreUnavailable):
                await other.content.sealed([said[1].model_copy(update={"thread_id": "globex.new"})])


async def store_of_all(store: Store, events: list[MessageAccepted]) -> None:
    """Record as the recorder does, which speaks for nobody."""
    with speaking_for(None):
        await store.record(events)
