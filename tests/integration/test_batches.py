"""Many messages in one request: each is answered by itself."""

import asyncio
import json
from dataclasses import replace
from itertools import count
from typing import Any

import httpx2
import pytest

from m3.bus import Bus, open_bus
from m3.errors import StoreUnavailable
from m3.events import OutsideSource
from m3.store import Store
from m3.topology import QUEUES, RECORDER
from services.recorder import recorder
from tests.support.gateway import hand_in, next_message, reply_to, running_gateway

PATH = "/api/threads/t/messages"
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}


def lines(*messages: object) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def told(answer: httpx2.Response) -> list[int | str]:
    """Of each message its number, or the code of its error."""
    assert answer.status_code == 202, answer.text
    assert answer.json()["thread_id"] == "t"
    return [message.get("seq") or message["code"] for message in answer.json()["messages"]]


def said(size: int, source: OutsideSource = "api") -> list[dict[str, Any]]:
    return [{"message": f"message {number}", "source": source} for number in range(1, size + 1)]


@pytest.mark.parametrize("kind", ["a line each", "an array"])
async def test_each_message_gets_its_id_and_number_in_order(bus: Bus, store: Store, kind: str) -> None:
    messages = said(500)
    async with recorder(bus, store, grace=1), running_gateway(bus, store) as http:
        if kind == "an array":
            answer = await http.post(PATH, json=messages)
        else:
            answer = await http.post(PATH, content=lines(*messages), headers=NDJSON)
        assert told(answer) == list(range(1, 501))
        recorded = await store.latest("t", 500)
        assert [message.content for message in recorded] == [message["message"] for message in messages]
        assert {message.source for message in recorded} == {"api"}
        assert [str(message.message_id) for message in recorded] == [
            message["message_id"] for message in answer.json()["messages"]
        ]


async def test_what_programs_say_is_of_programs_unless_they_say_otherwise(memory_bus: Bus, store: Store) -> None:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        await http.post(PATH, json=[{"message": "a"}, {"message": "b", "source": "user"}])
        assert [message.source for message in await store.latest("t", 10)] == ["api", "user"]


WRONG: list[tuple[object, str]] = [
    ({"message": ""}, "invalid_message"),
    ({"message": "a\0b"}, "invalid_message"),
    ({"message": "hi", "source": "assistant"}, "invalid_message"),
    ({"message": "hi", "key": ""}, "invalid_message"),
    ({"message": "hi", "key": "é"}, "invalid_message"),
    ({}, "invalid_message"),
    ([], "invalid_message"),
    ("hi", "invalid_message"),
    (1, "invalid_message"),
    (None, "invalid_message"),
    ({"message": "x" * (16 * 1024 + 1)}, "message_too_long"),
]


@pytest.mark.parametrize("kind", ["a line each", "an array"])
async def test_what_is_wrong_gets_its_error_and_the_others_are_taken(memory_bus: Bus, store: Store, kind: str) -> None:
    messages = [{"message": "first"}, *(wrong for wrong, _ in WRONG), {"message": "last"}]
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        if kind == "an array":
            answer = await http.post(PATH, json=messages)
        else:
            answer = await http.post(PATH, content=lines(*messages), headers=NDJSON)
        assert told(answer) == [1, *(code for _, code in WRONG), 2]
        for error in answer.json()["messages"][1:-1]:
            assert error == {"code": error["code"], "message": error["message"]}
            assert error["message"].endswith(".")


LINES = {
    b"not json": "The line is not JSON.",
    b'{"message": "cut': "The line is not JSON.",
    b'{"message": "a"} {}': "The line is not JSON.",
    b'{"message": "\xff"}': "The line is not JSON.",
    b'{"message": "\\ud800"}': "The line is not JSON.",
    b'{"message": 1e999}': "message: Input should be a valid string.",
    b"[" * 10_000: "The line is not JSON.",
    b'{"message": %s}' % (b"1" * 5_000): "The line is not JSON.",
    '{"message": "hi"}'.encode("utf-16-be"): "The line is not JSON.",
}


@pytest.mark.parametrize(("line", "sentence"), LINES.items())
async def test_a_line_that_cannot_be_read_spoils_no_other(
    memory_bus: Bus, store: Store, line: bytes, sentence: str
) -> None:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        body = b'\n{"message": "a"}\r\n \n' + line + b'\n\n{"message": "b"}'
        answer = await http.post(PATH, content=body, headers=NDJSON)
        assert told(answer) == [1, "invalid_message", 2]
        assert answer.json()["messages"][1]["message"] == sentence


BODIES = {
    "no line": (b"", NDJSON, 422, "invalid_request"),
    "empty lines": (b"\n \r\n\n", NDJSON, 422, "invalid_request"),
    "501 lines": (b'{"message": "a"}\n' * 501, NDJSON, 422, "invalid_request"),
    "empty": (b"", JSON, 400, "malformed_body"),
    "no message": (b"[]", JSON, 422, "invalid_request"),
    "501 messages": (b"[%s]" % b",".join([b'{"message": "a"}'] * 501), JSON, 422, "invalid_request"),
    "one message": (b'{"message": "a"}', JSON, 422, "invalid_request"),
    "cut off": (b'[{"message": "a"}', JSON, 400, "malformed_body"),
    "UTF-16": ('[{"message": "a"}]'.encode("utf-16"), JSON, 400, "malformed_body"),
    "half a surrogate pair": (b'[{"message": "\\ud800"}]', JSON, 400, "malformed_body"),
    "lists 30,000 deep": (b"[" * 30_000 + b"]" * 30_000, JSON, 400, "malformed_body"),
    "number of 5,000 digits": (b"[%s]" % (b"1" * 5_000), JSON, 400, "malformed_body"),
    "form": (b"message=a", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    "text": (b'{"message": "a"}', {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    "of no kind": (b'{"message": "a"}', {}, 415, "unsupported_media_type"),
    "one byte too long": (b'{"message": "a"}'.ljust(1024**2 + 1), NDJSON, 413, "body_too_long"),
    "of a page of another host": (lines(*said(1)), NDJSON | {"Origin": "http://evil.com"}, 403, "foreign_origin"),
    "of a name too long": (lines(*said(1)), NDJSON | {"M3-Client": "x" * 129}, 422, "invalid_request"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_no_batch_is_refused_as_a_whole(memory_bus: Bus, store: Store, name: str) -> None:
    body, headers, status, code = BODIES[name]
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        refused = await http.post(PATH, content=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert await store.head("t") == 0


TOO_MANY = {
    "lines of one digit": (b"1\n" * 2**19, NDJSON),
    "lines of nothing": (b"{}\n" * (2**20 // 3), NDJSON),
    "empty lists": (b"[" + b"[]," * (2**20 // 3 - 1) + b"1]", JSON),
    "digits": (b"[" + b"1," * (2**19 - 2) + b"1]", JSON),
}


@pytest.mark.parametrize("name", TOO_MANY)
async def test_what_is_too_much_is_counted_before_it_is_looked_at(
    memory_bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sentences = count()
    monkeypatch.setattr("services.gateway.batches.problem_sentence", lambda _: f"{next(sentences)}.")
    body, kind = TOO_MANY[name]
    async with running_gateway(memory_bus, store) as http:
        refused = await http.post(PATH, content=body, headers=kind)
        assert (refused.status_code, refused.json()["message"]) == (422, "There must be 1 to 500 messages.")
    assert next(sentences) == 0


async def test_of_what_is_not_asked_for_nothing_is_said(memory_bus: Bus, store: Store) -> None:
    said = b'{"message": "a", "more": [NaN, 1e999, {"message": "b"}], "message": "c"}'
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        assert told(await http.post(PATH, content=said, headers=NDJSON)) == [1]
        assert told(await http.post(PATH, content=b"[%s]" % said, headers=JSON)) == [2]
        assert {message.content for message in await store.latest("t", 2)} == {"c"}


async def test_a_thread_that_cannot_be_is_refused(memory_bus: Bus, store: Store) -> None:
    async with running_gateway(memory_bus, store) as http:
        refused = await http.post("/api/threads/no.dots/messages", json=said(1))
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_batches_have_a_limit_of_their_own(memory_bus: Bus, store: Store) -> None:
    async with (
        recorder(memory_bus, store, grace=1),
        running_gateway(memory_bus, store, body_limit=1024, batch_limit=4096) as http,
    ):
        assert told(await http.post(PATH, content=lines(*said(1)).ljust(4096), headers=NDJSON)) == [1]
        for path, body in ((PATH, lines(*said(1)).ljust(4097)), ("/api/chat", b'{"message": "a"}'.ljust(1025))):
            refused = await http.post(path, content=body, headers=NDJSON)
            assert (refused.status_code, refused.json()["code"]) == (413, "body_too_long")


async def test_a_batch_that_is_said_again_with_its_keys_is_the_same_batch(bus: Bus, store: Store) -> None:
    messages = [message | {"key": str(number)} for number, message in enumerate(said(20))]
    async with recorder(bus, store, grace=1), running_gateway(bus, store) as http:
        first, second = await asyncio.gather(*(http.post(PATH, json=messages) for _ in "12"))
        assert first.json() == second.json()
        assert told(first) == list(range(1, 21))
        other = await http.post(PATH, json=messages, headers={"M3-Client": "another"})
        assert told(other) == list(range(21, 41))
        single = await http.post(
            "/api/chat",
            json=messages[0] | {"thread_id": "t"},
            headers={"Idempotency-Key": "0", "Prefer": "respond-async"},
        )
        assert single.json()["message_id"] == first.json()["messages"][0]["message_id"]


async def test_a_key_stands_for_one_message_in_one_batch_too(memory_bus: Bus, store: Store) -> None:
    messages = [{"message": text, "key": "k"} for text in ("a", "a", "b")]
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        assert told(await http.post(PATH, json=messages)) == [1, 1, "key_reused"]


async def test_a_flooded_thread_takes_what_it_has_room_for_and_then_nothing(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), running_gateway(bus, store, api_bound=2) as http:
        assert told(await http.post(PATH, json=said(3))) == [1, 2, "thread_flooded"]
        refused = await http.post(PATH, json=said(2))
        assert (refused.status_code, refused.json()["code"]) == (429, "thread_flooded")
        assert refused.headers["Retry-After"].isdigit()
        assert told(await http.post(PATH, json=[*said(1), *said(1, "user")])) == ["thread_flooded", 3]


async def test_the_fate_of_each_message_is_told_as_ever(memory_bus: Bus, store: Store) -> None:
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        answer = await http.post(PATH, json=said(1))
        await hand_in(memory_bus, reply_to(await next_message(store, "t")))
        await next_message(store, "t", 2)
        (message,) = answer.json()["messages"]
        fate = await http.get(f"/api/messages/{message['message_id']}")
        assert (fate.json()["fate"], fate.json()["reply_seq"]) == ("answered", 2)


async def test_a_batch_that_a_full_queue_refuses_is_answered_as_one_message_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tuple(replace(queue, max_length=0) if queue is RECORDER else queue for queue in QUEUES)
    monkeypatch.setattr("m3.bus.memory.QUEUES", full)
    async with open_bus("memory://") as bus, running_gateway(bus, store) as http:
        refused = await http.post(PATH, json=[{}, *said(3)])
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"].isdigit()


async def test_a_batch_of_which_nothing_is_recorded_in_time_is_to_be_said_again(memory_bus: Bus, store: Store) -> None:
    """Nobody records here, at first."""
    messages = [message | {"key": message["message"]} for message in said(2)]
    async with running_gateway(memory_bus, store, record_timeout=0.1) as http:
        refused = await http.post(PATH, json=messages)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_recorded")
        assert refused.headers["Retry-After"].isdigit()
    async with recorder(memory_bus, store, grace=1), running_gateway(memory_bus, store) as http:
        assert told(await http.post(PATH, json=messages)) == [1, 2]


async def test_a_batch_of_programs_is_refused_while_the_database_is_away(memory_bus: Bus, store: Store) -> None:
    class Away(Store):
        async def waiting_count(self, thread_id: str, source: OutsideSource, at_most: int) -> int:
            raise StoreUnavailable("away")

    async with running_gateway(memory_bus, Away(store._pool, store._url)) as http:
        refused = await http.post(PATH, json=said(2))
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
