"""The HTTP door over both buses: retries with a key, waiting, stopping and reading back."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from errno import ECONNRESET
from socket import SO_ERROR, SOL_SOCKET
from typing import Any
from uuid import UUID

import httpx2
import pytest
from pydantic import SecretStr

from m3.bus import Bus, open_bus
from m3.errors import StoreUnavailable
from m3.events import Message, PassedOverFate
from m3.settings import Settings
from m3.store import Store
from m3.topology import QUEUES, RECORDER
from services.agent import agent, open_model
from services.recorder import recorder
from tests.support.client import client
from tests.support.gateway import (
    hand_in,
    next_message,
    passed_over,
    reply_to,
    running_gateway,
    serving_gateway,
)
from tests.support.pushing import record
from tests.support.scripted_model import ScriptedModel, answers, prompt, says, scripted_model
from tests.support.until import until


@asynccontextmanager
async def running_room(bus: Bus, store: Store, model: ScriptedModel) -> AsyncIterator[httpx2.AsyncClient]:
    """Everything that it takes to get a reply by HTTP."""
    async with (
        recorder(bus, store, grace=1),
        open_model(model.url, name="scripted", api_key=SecretStr("none"), turn_timeout=20) as opened,
        agent(bus, store, opened, Settings(), grace=1),
        running_gateway(bus, store) as http,
    ):
        yield http


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with scripted_model(lambda body: says(f"re {prompt(body)}")) as model:
        yield model


def keyed(key: str, sender: str | None = None, **headers: str) -> dict[str, str]:
    return {"Idempotency-Key": key} | ({"M3-Client": sender} if sender else {}) | headers


async def test_fifty_requests_with_one_key_make_one_row_and_get_fifty_equal_answers(
    bus: Bus, store: Store, model: ScriptedModel
) -> None:
    async with running_room(bus, store, model) as http:
        requests = [http.post("/api/chat", json={"message": "once"}, headers=keyed("k")) for _ in range(50)]
        answered = await asyncio.gather(*requests)
        assert {answer.status_code for answer in answered} == {200}
        assert len({answer.text for answer in answered}) == 1
        assert [message.content for message in await store.latest("default", 10)] == ["once", "re [user] once"]
        again = await http.post("/api/chat", json={"message": "once"}, headers=keyed("k"))
        assert again.json() == answered[0].json()
    assert model.prompts == ["[user] once"]


async def test_a_retry_at_another_gateway_gets_the_same_answer(bus: Bus, store: Store, model: ScriptedModel) -> None:
    async with running_room(bus, store, model) as one, running_gateway(bus, store) as other:
        first, second = await asyncio.gather(
            *(http.post("/api/chat", json={"message": "once"}, headers=keyed("k")) for http in (one, other))
        )
        assert first.json() == second.json()
        assert first.status_code == 200
    assert model.prompts == ["[user] once"]


async def test_a_retry_of_what_failed_is_told_that_it_failed(memory: Bus, store: Store) -> None:
    async with (
        scripted_model(lambda _: answers("no", status=500)) as model,
        running_room(memory, store, model) as http,
    ):
        first = await http.post("/api/chat", json={"message": "once"}, headers=keyed("k"))
        assert (first.status_code, first.json()["code"]) == (502, "model_failed")
        asked = len(model.asked)
        second = await http.post("/api/chat", json={"message": "once"}, headers=keyed("k"))
        assert second.json() == first.json()
        assert len(model.asked) == asked


@pytest.mark.parametrize("other", [{"message": "b"}, {"thread_id": "elsewhere"}, {"source": "api"}])
async def test_a_key_stands_for_one_message(memory: Bus, store: Store, other: dict[str, str]) -> None:
    body = {"message": "a", "thread_id": "default", "source": "user"}
    headers = keyed("k", Prefer="respond-async")
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        first = await http.post("/api/chat", json=body, headers=headers)
        refused = await http.post("/api/chat", json=body | other, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "key_reused")
        again = await http.post("/api/chat", json=body, headers=headers)
        assert (again.status_code, again.json()) == (202, first.json())
        assert await store.head("default") == 1
        assert await store.head("elsewhere") == 0


async def test_keys_of_different_senders_do_not_meet(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        for sender in ("one", "other", None):
            answer = await http.post(
                "/api/chat", json={"message": f"of {sender}"}, headers=keyed("1", sender, Prefer="respond-async")
            )
            assert answer.status_code == 202
        assert [message.content for message in await store.latest("default", 10)] == ["of one", "of other", "of None"]


@pytest.mark.parametrize("headers", [keyed(""), keyed("x" * 256), keyed("é"), keyed("k", "x" * 129)])
async def test_a_key_is_printable_and_not_too_long(memory: Bus, store: Store, headers: dict[str, str]) -> None:
    async with running_gateway(memory, store) as http:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        refused = await http.post("/api/chat", json={"message": "a"}, headers=raw)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_a_full_queue_is_answered_with_503_and_when_to_come_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tuple(replace(queue, max_length=0) if queue is RECORDER else queue for queue in QUEUES)
    monkeypatch.setattr("m3.bus.memory.QUEUES", full)
    async with open_bus("memory://") as bus, running_gateway(bus, store) as http:
        refused = await http.post("/api/chat", json={"message": "a"})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"].isdigit()


async def test_what_is_not_recorded_in_time_is_answered_with_503_and_the_id(memory: Bus, store: Store) -> None:
    """Nobody records here. A retry with the key finds the message, once somebody does."""
    async with running_gateway(memory, store, record_timeout=0.1) as http:
        refused = await http.post("/api/chat", json={"message": "a"}, headers=keyed("k"))
        assert (refused.status_code, refused.json()["code"]) == (503, "not_recorded")
        assert refused.headers["Retry-After"].isdigit()
        async with recorder(memory, store, grace=1):
            where = f"/api/messages/{refused.json()['message_id']}"
            await until(lambda: _is_there(http, where))


async def _is_there(http: httpx2.AsyncClient, where: str) -> bool:
    return (await http.get(where)).status_code == 200


async def test_two_keys_are_refused(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store) as http:
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        refused = await http.post("/api/chat", json={"message": "a"}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_a_retry_whose_reply_cannot_be_read_is_told_its_fate(
    memory: Bus, store: Store, model: ScriptedModel
) -> None:
    class Blind(Store):
        async def message(self, message_id: UUID) -> Message | None:
            raise StoreUnavailable("away")

    async with running_room(memory, store, model) as http:
        first = await http.post("/api/chat", json={"message": "a"}, headers=keyed("k"))
        assert first.status_code == 200
        async with running_gateway(memory, Blind(store._pool, store._url)) as blind:
            again = await blind.post("/api/chat", json={"message": "a"}, headers=keyed("k"))
            assert (again.status_code, again.json()["fate"]) == (202, "answered")
            assert again.json()["message_id"] == first.json()["message_id"]


async def test_a_message_longer_than_the_setting_is_refused_in_bytes(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store, message_limit=4) as http:
        for text, status in (("abcd", 202), ("éé", 202), ("abcde", 422), ("ééa", 422)):
            answer = await http.post("/api/chat", json={"message": text}, headers={"Prefer": "respond-async"})
            assert answer.status_code == status
        assert answer.json() == {
            "code": "message_too_long",
            "message": "message: must be at most 4 bytes of UTF-8.",
        }


async def test_a_body_longer_than_the_setting_is_refused(memory: Bus, store: Store) -> None:
    async with running_gateway(memory, store, body_limit=2000) as http:
        refused = await http.post("/api/chat", json={"message": "a" * 2000})
        assert (refused.status_code, refused.json()["code"]) == (413, "body_too_long")


async def test_who_still_waits_when_the_gateway_stops_is_told_where_the_reply_will_be(bus: Bus, store: Store) -> None:
    """Nobody answers here."""
    async with recorder(bus, store, grace=1), AsyncExitStack() as with_client:
        async with serving_gateway(bus, store, grace=1) as address:
            http = await with_client.enter_async_context(client(address))
            posting = asyncio.create_task(http.post("/api/chat", json={"message": "a"}))
            await until(lambda: _head_is(store, 1))
        answer = await posting
        assert answer.status_code == 202
        (message,) = await store.latest("default", 10)
        assert answer.headers["Location"] == f"/api/messages/{message.message_id}"


async def _head_is(store: Store, number: int) -> bool:
    return await store.head("default") == number


@pytest.mark.parametrize("fate", ["expired", "shed", "ignored", "cancelled"])
async def test_who_waits_for_what_gets_no_reply_is_told_why(memory: Bus, store: Store, fate: PassedOverFate) -> None:
    """Nobody answers here, nor in what follows."""
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        posting = asyncio.create_task(http.post("/api/chat", json={"message": "a"}))
        message = await next_message(store)
        await hand_in(memory, passed_over(message, fate))
        answer = await posting
        assert answer.status_code == 202
        assert answer.json() == {
            "thread_id": "default",
            "message_id": str(message.message_id),
            "seq": 1,
            "fate": fate,
            "reason": "Why.",
            "place": None,
        }


async def test_all_who_wait_for_one_reply_get_it_and_who_said_the_same_too(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), running_gateway(bus, store) as http:
        posting = [asyncio.create_task(http.post("/api/chat", json={"message": "a", "source": "api"})) for _ in "123"]
        one, two, three = [await next_message(store, number=number) for number in (1, 2, 3)]
        await hand_in(bus, reply_to(one, two, content="so f", cancelled=True))
        await next_message(store, number=4)
        await hand_in(bus, passed_over(three, "merged", repeats=one))
        answers = await asyncio.gather(*posting)
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["message_id"] for answer in answers} == {str(m.message_id) for m in (one, two, three)}
        for answer in answers:
            assert (answer.json()["response"], answer.json()["reply_seq"]) == ("so f", 4)
            assert answer.json()["cancelled"] is True


async def test_an_answer_that_nobody_reads_is_cut_off(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("m3.web.protocols.TAKE_TIMEOUT", 0.1)
    await record(store, *["x" * 200_000] * 100, thread_id="default")
    async with serving_gateway(memory, store) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(b"GET /api/threads/default/history HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"xxx")
        sock = writer.get_extra_info("socket")
        await until(lambda: sock.getsockopt(SOL_SOCKET, SO_ERROR) == ECONNRESET)
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_history_is_read_backwards_and_forwards_in_pages(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_gateway(memory, store) as http:
        for number in range(1, 11):
            await http.post("/api/chat", json={"message": str(number)}, headers={"Prefer": "respond-async"})

        async def page(**cursors: int) -> list[int]:
            answer = await http.get("/api/threads/default/history", params={"limit": 3, **cursors})
            assert answer.status_code == 200, answer.text
            messages: list[dict[str, Any]] = answer.json()["messages"]
            return [message["seq"] for message in messages]

        assert await page() == [8, 9, 10]
        assert await page(before=8) == [5, 6, 7]
        assert await page(before=2) == [1]
        assert await page(before=1) == []
        assert await page(after=0) == [1, 2, 3]
        assert await page(after=9) == [10]
        assert await page(after=10) == []
        assert await page(after=2, before=5) == [3, 4]
        for cursors in ({"after": "-1"}, {"before": "1_0"}, {"before": str(2**63)}):
            refused = await http.get("/api/threads/default/history", params=cursors)
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
