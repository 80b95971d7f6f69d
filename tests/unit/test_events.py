"""The protocol between services: what goes over the bus, and what is refused."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from m3.errors import UndecodableEvents
from m3.events import (
    AnyEvent,
    CancelAsked,
    Incoming,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    MessagesPassedOver,
    Nickname,
    OutsideText,
    PassedOverFate,
    ReplyGrew,
    RetellingAsked,
    RetryAsked,
    SocketsCounted,
    ThreadId,
    ThreadSockets,
    ThreadSummarised,
    Turn,
    TurnEnded,
    TurnFailed,
    TurnInterrupted,
    TurnNews,
    TurnStarted,
    decode,
    encode,
    encode_within,
    parted,
    reply_id,
)

ONE = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
SAID = "said in confidence"

ASKED = Message(
    id=7,
    message_id=ONE,
    thread_id="t:1@x_y-z",
    seq=3,
    rev=3,
    role="user",
    content='你好 👋\n"quoted" \\ \x01',
    source="api",
    timestamp=datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    interface="http_api",
    author="somebody",
    fate="answered",
    reply_id=OTHER,
    reply_seq=4,
)
FAILED = ASKED.model_copy(update={"fate": "failed", "reply_id": None, "reply_seq": None, "reason": "No model."})

TURN = Turn(
    turn_id=UUID(int=5),
    lane="api",
    model="demo",
    started_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    duration=1.5,
    first_token=0.25,
    prompt_tokens=100,
    completion_tokens=10,
    estimated=True,
    attempts=2,
)

EVENTS: list[AnyEvent] = [
    MessageAccepted(message_id=ONE, thread_id="t", source="user", content="你好", interface="websocket", origin="o.1"),
    MessageAccepted(
        message_id=OTHER,
        thread_id="t",
        source="assistant",
        content="hello",
        interface="http_api",
        origin="o.1",
        author="model",
        in_reply_to=(ONE,),
    ),
    TurnFailed(thread_id="t", message_ids=(ONE, OTHER), reason="No model.", origin="o.1"),
    TurnFailed(thread_id="t", message_ids=(ONE,), reason="No model.", origin="o.1", turn=TURN),
    MessageAccepted(
        thread_id="t",
        source="assistant",
        content="cut",
        interface="http_api",
        origin="o.1",
        in_reply_to=(ONE, OTHER),
        cancelled=True,
        turn=TURN.model_copy(update={"first_token": None}),
    ),
    *(
        MessagesPassedOver(thread_id="t", message_ids=(ONE, OTHER), fate=fate, reason="Why.", origin="o.1")
        for fate in get_args(PassedOverFate)
    ),
    MessagesPassedOver(
        thread_id="t", message_ids=(ONE,), fate="merged", reason="Why.", origin="o.1", reply_id=OTHER, turn=TURN
    ),
    TurnInterrupted(thread_id="t", turn=TURN),
    RetryAsked(thread_id="t", message_id=ONE, origin="o.1"),
    ThreadSummarised(thread_id="t", until=2**63 - 1, text="你好 was said."),
    MessageRecorded(message=ASKED),
    MessageSettled(message=FAILED),
    MessageSettled(message=ASKED, reply=FAILED),
    TurnStarted(thread_id="t", turn_id=TURN.turn_id, reply_id=OTHER, in_reply_to=(ONE,)),
    ReplyGrew(thread_id="t", turn_id=TURN.turn_id, reply_id=OTHER, index=0, text="👋 \n"),
    TurnEnded(thread_id="t", turn_id=TURN.turn_id, reply_id=OTHER, outcome="failed", reason="No model."),
    TurnEnded(thread_id="t", turn_id=TURN.turn_id, reply_id=OTHER, outcome="interrupted"),
    CancelAsked(thread_id="t"),
    RetellingAsked(thread_id="t", origin="queue"),
    SocketsCounted(pusher=ONE, number=1, anew=True, asks=True),
    SocketsCounted(
        pusher=ONE,
        number=2,
        threads=(
            ThreadSockets(thread_id="t", connections=0),
            ThreadSockets(thread_id="t:1@x_y-z", connections=7, names=("ann", ' "\\~'), unlisted=2, typing=("ann",)),
        ),
    ),
]

ACCEPTED = {
    "type": "message_accepted",
    "message_id": str(ONE),
    "thread_id": "t",
    "source": "user",
    "content": SAID,
    "interface": "http_api",
    "origin": "o.1",
}


def body(**changes: object) -> bytes:
    """A body that decodes, unless a change spoils it. None takes the field away."""
    return json.dumps([{name: value for name, value in (ACCEPTED | changes).items() if value is not None}]).encode()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_comes_out_as_it_went_in(event: AnyEvent) -> None:
    assert decode(encode([event])) == [event]


def test_a_body_carries_many_events_in_their_order() -> None:
    assert decode(encode(EVENTS)) == EVENTS
    assert decode(encode([])) == []


def test_a_body_is_a_json_array_of_events_that_name_their_type() -> None:
    assert [event["type"] for event in json.loads(encode(EVENTS))] == [event.type for event in EVENTS]


def test_what_the_first_version_wrote_is_still_understood_and_written_so() -> None:
    message = """{"id": 1, "message_id": "01890a5d-ac96-774b-bcce-b302099a8057", "thread_id": "t", "seq": 1,
        "role": "user", "content": "hi", "source": "user", "timestamp": "2025-01-02T03:04:05.678901Z",
        "interface": "websocket", "author": "somebody", "in_reply_to": ["01890a5d-ac96-774b-bcce-b302099a8056"],
        "fate": "answered", "reply_id": "01890a5d-ac96-774b-bcce-b302099a8058", "reply_seq": 2, "reason": "Why."}"""
    written = json.loads(f"""[
        {{"type": "message_accepted", "message_id": "01890a5d-ac96-774b-bcce-b302099a8057", "thread_id": "t",
          "source": "assistant", "content": "hi", "interface": "http_api", "origin": "o.1", "author": "somebody",
          "in_reply_to": ["01890a5d-ac96-774b-bcce-b302099a8058"]}},
        {{"type": "turn_failed", "thread_id": "t", "message_ids": ["01890a5d-ac96-774b-bcce-b302099a8057"],
          "reason": "No model.", "origin": "o.1"}},
        {{"type": "message_recorded", "message": {message}}},
        {{"type": "message_settled", "message": {message}}}
    ]""")
    rewritten = json.loads(encode(decode(json.dumps(written).encode())))
    for old, new in zip(written, rewritten, strict=True):
        if "message" in old:
            assert new["message"] == new["message"] | old["message"]  # fields may have been added
        else:
            assert new == new | old


def test_what_has_no_turn_and_no_cancellation_is_as_before_there_were_any() -> None:
    (event,) = decode(body())
    assert isinstance(event, MessageAccepted)
    assert (event.turn, event.cancelled) == (None, False)


def test_every_event_is_tried_here() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(AnyEvent))


def test_every_event_may_be_about_a_tenants_thread() -> None:
    for event in EVENTS:
        told = json.loads(encode([event]))
        text = json.dumps(told).replace('"thread_id": "', '"thread_id": "acme.')
        assert "acme." in text or isinstance(event, SocketsCounted)
        assert json.loads(encode(decode(text.encode()))) == json.loads(text)


def test_what_is_shown_of_a_thread_is_described_by_its_id_alone() -> None:
    described = Message.model_json_schema()["properties"]["thread_id"]["pattern"]
    assert described == TypeAdapter(ThreadId).json_schema()["pattern"]


def test_what_the_agent_does_just_now_is_nothing_to_record() -> None:
    assert not set(get_args(TurnNews)) & set(get_args(Incoming))
    assert not {CancelAsked, RetellingAsked, SocketsCounted} & set(get_args(Incoming))


@pytest.mark.parametrize("fate", ["pending", "answered", "failed", "lost"])
def test_nothing_is_passed_over_with_a_fate_that_takes_a_turn_or_does_not_exist(fate: str) -> None:
    passed = {"thread_id": "t", "message_ids": [str(ONE)], "fate": fate, "reason": "Why.", "origin": "o.1"}
    with pytest.raises(UndecodableEvents, match="fate"):
        decode(json.dumps([{"type": "messages_passed_over"} | passed]).encode())


@pytest.mark.parametrize("limit", [1, 700, 10**6])
def test_bodies_within_a_limit_carry_the_same_events_in_order(limit: int) -> None:
    parts = parted(EVENTS, limit)
    assert [event for _, inside in parts for event in inside] == EVENTS
    for body, inside in parts:
        assert decode(body) == inside
        assert len(body) <= limit or len(inside) == 1
    assert sum(len(body) for body, _ in parts) >= (len(parts) - 1) * min(limit, 700) // 2
    assert encode_within(EVENTS, limit) == [body for body, _ in parts]


def test_nothing_to_tell_is_one_body_nevertheless() -> None:
    assert encode_within([], 1000) == [encode([])]
    assert parted([], 1000) == []


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    assert decode(body(mood={"of": ["the", "sender"]})) == decode(body())


def test_each_accepted_message_gets_an_id_of_its_own() -> None:
    def accept() -> MessageAccepted:
        return MessageAccepted(thread_id="t", source="user", content="hi", interface="http_api", origin="o.1")

    first, second = accept(), accept()
    assert first.message_id != second.message_id
    assert first.message_id.version == 7


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(SAID.encode(), id="not JSON"),
        pytest.param(b'[{"content": "' + SAID.encode() + b"\xff", id="not UTF-8"),
        pytest.param(body()[:-1], id="cut short"),
        pytest.param(body()[1:-1], id="not an array"),
        pytest.param(json.dumps([SAID]).encode(), id="not an object"),
        pytest.param(body(type="message_shouted"), id="unknown type"),
        pytest.param(body(type=None), id="no type"),
        pytest.param(body(origin=None), id="missing field"),
        pytest.param(body(content=None, text=SAID), id="renamed field"),
        pytest.param(body(content=""), id="empty content"),
        pytest.param(body(content=f"{SAID}\x00"), id="NUL in content"),
        pytest.param(body(content=f"{SAID}\ud800"), id="lone surrogate"),
        pytest.param(body(content=[SAID]), id="content of another kind"),
        pytest.param(body(thread_id="a.b.c"), id="dot in thread id"),
        pytest.param(body(thread_id="A.b"), id="no tenant before the thread id"),
        pytest.param(body(thread_id=".b"), id="dot before the thread id"),
        pytest.param(body(thread_id="a."), id="tenant alone"),
        pytest.param(body(thread_id=SAID), id="space in thread id"),
        pytest.param(body(thread_id="*"), id="wildcard as thread id"),
        pytest.param(body(message_id="not a uuid"), id="message id"),
        pytest.param(body(source="elsewhere"), id="unknown source"),
        pytest.param(body(interface="telegraph"), id="unknown interface"),
        pytest.param(body(accepted_at="2026-11-26T12:00:00"), id="time of no zone"),
        pytest.param(b"[" * 100_000, id="deep nesting"),
        pytest.param(body()[:-2] + b', "extra": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]", id="deep in a field"),
    ],
)
def test_what_is_no_list_of_events_is_refused_without_repeating_what_was_said(spoiled: bytes) -> None:
    with pytest.raises(UndecodableEvents) as refused:
        decode(spoiled)
    assert str(refused.value)
    assert "confidence" not in str(refused.value)


def test_one_bad_event_spoils_its_body() -> None:
    good, bad = json.loads(body()), json.loads(body(origin=None))
    with pytest.raises(UndecodableEvents, match=r"^1\.message_accepted\.origin: "):
        decode(json.dumps([*good, *bad]).encode())


def test_the_id_of_a_reply_hangs_on_the_message_alone() -> None:
    assert reply_id(ONE) == UUID("b534a7fc-47fe-57a7-ae11-bea79de87f02")  # replies in the table have it
    assert reply_id(ONE) != reply_id(OTHER)


outside_text: TypeAdapter[str] = TypeAdapter(OutsideText)
thread_id: TypeAdapter[str] = TypeAdapter(ThreadId)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "  indented\n",
        "\x01",
    ],
)
def test_text_from_outside_is_taken_as_it_is(text: str) -> None:
    assert outside_text.validate_python(text) == text
    assert outside_text.validate_json(json.dumps(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\r\n\t",
        "\u3000\u2003\u00a0\u2028",
        "NUL\x00",
        "\x00",
        "lone\ud800",
        "\udc00lone",
    ],
)
def test_text_from_outside_is_refused_when_blank_or_unstorable(text: str) -> None:
    with pytest.raises(ValidationError):
        outside_text.validate_python(text)
    with pytest.raises(ValidationError):
        outside_text.validate_json(json.dumps(text))


@pytest.mark.parametrize("name", ["default", "A", "a:b@c_d-e", "0", "-", "x" * 128])
def test_a_thread_may_be_called(name: str) -> None:
    assert thread_id.validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 129,
        "a#",
        "*",
        "a.b",
        "a/b",
        "a b",
        " a",
        "a\n",
        "\na",
        "a\r",
        "a\x00",
        "a\x7f",
        "a\tb",
        "é",
        "一",
        "٣",
    ],
)
def test_a_thread_may_not_be_called(name: str) -> None:
    with pytest.raises(ValidationError):
        thread_id.validate_python(name)


def test_what_a_message_is_found_by_takes_eleven_characters_a_word_on_the_bus() -> None:
    said = MessageAccepted(thread_id="t", source="user", content="x", interface="http_api", origin="o")
    event = said.model_copy(update={"terms": bytes(range(256)) * 4})
    body = encode([event])
    assert len(body) - len(encode([said])) <= 11 * 128 + 4
    assert decode(body) == [event]
    with pytest.raises(UndecodableEvents, match="8 bytes each"):
        decode(encode([said.model_copy(update={"terms": b"123"})]))


nickname: TypeAdapter[str] = TypeAdapter(Nickname)
#: The page gives nothing else for a name (web/src/preferences.ts).
NAMES = json.loads((Path(__file__).parents[2] / "web/tests/names.json").read_text())


@pytest.mark.parametrize("name", [*NAMES["names"], "x" * 128, "🐈" * 128])
def test_somebody_may_call_themselves_what_can_be_read(name: str) -> None:
    assert nickname.validate_python(name) == name


@pytest.mark.parametrize("name", [*NAMES["refused"], "x" * 129])
def test_but_nothing_that_is_not_printed_or_not_seen(name: str) -> None:
    with pytest.raises(ValidationError):
        nickname.validate_python(name)
