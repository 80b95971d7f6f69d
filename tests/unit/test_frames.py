"""What sockets see, to the letter: clients of the predecessor read these frames."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from pydantic import ValidationError

from m3.events import Message
from services.pusher import frames
from services.pusher.frames import SocketMessage

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
MESSAGE = Message(
    id=7,
    message_id=ID,
    thread_id="room:1",
    seq=3,
    role="user",
    content='你好 👋 "é"\n',
    source="api",
    timestamp=datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    interface="http_api",
    author="not told",
    fate="pending",
)


def test_connected() -> None:
    assert frames.connected("room:1", 2) == (
        '{"type":"connected","thread_id":"room:1","message":"Connected to thread room:1","connections":2}'
    )


def test_pong_carries_the_time_in_seconds() -> None:
    before = time.time()
    pong = json.loads(frames.pong())
    assert list(pong) == ["type", "timestamp"]
    assert pong["type"] == "pong"
    assert before <= pong["timestamp"] <= time.time()


def test_new_message_is_the_predecessors_with_numbers_added_and_its_text_as_it_is() -> None:
    assert frames.new_message(MESSAGE) == (
        '{"type":"new_message","thread_id":"room:1","role":"user","content":"你好 👋 \\"é\\"\\n","source":"api",'
        '"timestamp":1735787045.678,"id":7,"seq":3,"message_id":"01890a5d-ac96-774b-bcce-b302099a8057"}'
    )


@pytest.mark.parametrize(
    "moment",
    [datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2025, 1, 2, 12, 4, 5, tzinfo=timezone(timedelta(hours=9)))],
)
def test_a_moment_is_the_same_number_in_every_time_zone_and_always_a_float(moment: datetime) -> None:
    frame = json.loads(frames.new_message(MESSAGE.model_copy(update={"timestamp": moment})))
    assert frame["timestamp"] == 1735787045
    assert isinstance(frame["timestamp"], float)


def test_recorded() -> None:
    assert frames.recorded(MESSAGE) == (
        '{"type":"recorded","message_id":"01890a5d-ac96-774b-bcce-b302099a8057","seq":3,"id":7}'
    )


def test_an_error_names_the_message_only_where_there_is_one() -> None:
    assert frames.error("code", "Why.") == '{"type":"error","code":"code","message":"Why."}'
    assert frames.error("code", "Why.", ID) == (
        '{"type":"error","code":"code","message":"Why.","message_id":"01890a5d-ac96-774b-bcce-b302099a8057"}'
    )


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ('{"type": "message", "message": "hi"}', "user"),
        ('{"type": "message", "message": "hi", "source": "api", "more": [1]}', "api"),
    ],
)
def test_a_socket_speaks_as_a_user_unless_it_says_otherwise(text: str, source: str) -> None:
    said = SocketMessage.model_validate_json(text)
    assert (said.message, said.source) == ("hi", source)


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        '"hi"',
        '["message"]',
        '{"message": "hi"}',
        '{"type": "shout", "message": "hi"}',
        '{"type": "message"}',
        '{"type": "message", "message": null}',
        '{"type": "message", "message": " "}',
        '{"type": "message", "message": "\\u0000hi"}',
        '{"type": "message", "message": "\\ud800"}',
        '{"type": "message", "message": "hi", "source": "assistant"}',
        '{"type": "message", "message": "hi", "source": null}',
    ],
)
def test_a_socket_can_say_nothing_else(text: str) -> None:
    with pytest.raises(ValidationError):
        SocketMessage.model_validate_json(text)
