"""What sockets see, to the letter: clients of the predecessor read these frames."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from pydantic import ValidationError

from m3.events import Fate, Message, MessageRecorded, MessageSettled, ReplyGrew, TurnEnded, TurnStarted
from m3.frames import fate, new_message, text
from services.pusher import frames, presence
from services.pusher.attendance import Crowd
from services.pusher.frames import Said, SocketFrame

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
MESSAGE = Message(
    id=7,
    message_id=ID,
    thread_id="room:1",
    seq=3,
    rev=3,
    role="user",
    content='你好 👋 "é"\n',
    source="api",
    timestamp=datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    interface="http_api",
    fate="pending",
)


def test_connected() -> None:
    assert frames.connected("room:1", 2, 17) == (
        '{"type":"connected","thread_id":"room:1","message":"Connected to thread room:1","connections":2,"head":17}'
    )


def test_pong_carries_the_time_in_seconds() -> None:
    before = time.time()
    pong = json.loads(frames.pong())
    assert list(pong) == ["type", "timestamp"]
    assert pong["type"] == "pong"
    assert before <= pong["timestamp"] <= time.time()


def test_new_message_is_the_predecessors_with_numbers_added_and_its_text_as_it_is() -> None:
    assert text(new_message(MESSAGE)) == (
        '{"type":"new_message","thread_id":"room:1","role":"user","content":"你好 👋 \\"é\\"\\n","source":"api",'
        '"timestamp":1735787045.678,"id":7,"seq":3,"message_id":"01890a5d-ac96-774b-bcce-b302099a8057",'
        '"in_reply_to":[]}'
    )


def test_new_message_names_its_author_where_it_has_one() -> None:
    assert "author" not in new_message(MESSAGE)
    assert new_message(MESSAGE.model_copy(update={"author": "mei"}))["author"] == "mei"


@pytest.mark.parametrize(
    "moment",
    [datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2025, 1, 2, 12, 4, 5, tzinfo=timezone(timedelta(hours=9)))],
)
def test_a_moment_is_the_same_number_in_every_time_zone_and_always_a_float(moment: datetime) -> None:
    frame = json.loads(text(new_message(MESSAGE.model_copy(update={"timestamp": moment}))))
    assert frame["timestamp"] == 1735787045
    assert isinstance(frame["timestamp"], float)


def test_recorded() -> None:
    assert frames.recorded(MESSAGE, None) == (
        '{"type":"recorded","message_id":"01890a5d-ac96-774b-bcce-b302099a8057","seq":3,"id":7}'
    )


def test_recorded_names_the_clients_own_id_where_there_is_one() -> None:
    assert json.loads(frames.recorded(MESSAGE, "mine"))["client_id"] == "mine"
    assert json.loads(frames.error("code", "Why.", client_id="mine"))["client_id"] == "mine"


def test_a_reply_is_the_fate_of_what_it_answers_to_those_who_want_all_events() -> None:
    reply = MESSAGE.model_copy(update={"role": "assistant", "seq": 4, "rev": 4, "in_reply_to": (UUID(int=1),)})
    (told,) = frames.for_everyone(MessageRecorded(message=reply))
    assert json.loads(told)["in_reply_to"] == [str(UUID(int=1))]
    (fate,) = frames.for_all_events(MessageRecorded(message=reply))
    assert json.loads(fate) == {
        "type": "fate",
        "thread_id": "room:1",
        "message_id": str(UUID(int=1)),
        "fate": "answered",
        "reply_id": str(ID),
        "reply_seq": 4,
    }


def test_a_failure_is_told_at_its_own_number_to_those_who_want_all_events_only() -> None:
    failed = MessageSettled(message=MESSAGE.model_copy(update={"rev": 5, "fate": "failed", "reason": "Why."}))
    assert list(frames.for_everyone(failed)) == []
    (fate,) = frames.for_all_events(failed)
    assert json.loads(fate) == {
        "type": "fate",
        "thread_id": "room:1",
        "number": 5,
        "message_id": str(ID),
        "fate": "failed",
        "reason": "Why.",
    }


def test_a_failure_that_a_late_reply_mended_is_told_as_answered() -> None:
    update = {"rev": 5, "fate": "answered", "reply_id": UUID(int=2), "reply_seq": 9}
    (fate,) = frames.for_all_events(MessageSettled(message=MESSAGE.model_copy(update=update)))
    assert json.loads(fate).items() >= {"number": 5, "fate": "answered", "reply_seq": 9}.items()


@pytest.mark.parametrize("what", ["expired", "shed", "ignored", "cancelled", "failed"])
def test_what_gets_no_reply_is_told_why(what: Fate) -> None:
    passed_over = MESSAGE.model_copy(update={"rev": 4, "fate": what, "reason": "Why."})
    (told,) = frames.for_all_events(MessageSettled(message=passed_over))
    assert json.loads(told) == {
        "type": "fate",
        "thread_id": "room:1",
        "message_id": str(ID),
        "number": 4,
        "fate": what,
        "reason": "Why.",
    }


def test_a_merged_message_is_told_with_the_reply_that_it_shares() -> None:
    update = {"rev": 4, "fate": "merged", "reason": "Said before.", "reply_id": UUID(int=2), "reply_seq": 2}
    (told,) = frames.for_all_events(MessageSettled(message=MESSAGE.model_copy(update=update)))
    assert json.loads(told).items() >= {"fate": "merged", "reply_id": str(UUID(int=2)), "reply_seq": 2}.items()


def test_a_message_that_is_asked_for_again_is_pending_and_nothing_else() -> None:
    (told,) = frames.for_all_events(MessageSettled(message=MESSAGE.model_copy(update={"rev": 6})))
    assert json.loads(told) == {
        "type": "fate",
        "thread_id": "room:1",
        "message_id": str(ID),
        "number": 6,
        "fate": "pending",
    }


def test_a_fate_that_came_with_the_reply_has_no_number_of_its_own() -> None:
    answered = MESSAGE.model_copy(update={"fate": "answered", "reply_id": UUID(int=2), "reply_seq": 4})
    assert "number" not in fate(answered)


def test_only_a_reply_that_was_stopped_says_so() -> None:
    assert new_message(MESSAGE.model_copy(update={"cancelled": True}))["cancelled"] is True
    assert "cancelled" not in new_message(MESSAGE)


def test_a_turn_is_told_from_its_start_to_its_end() -> None:
    turn = {"thread_id": "t", "turn_id": UUID(int=1), "reply_id": UUID(int=2)}
    known = f'"thread_id":"t","turn_id":"{UUID(int=1)}","reply_id":"{UUID(int=2)}"'
    assert frames.of_turn(TurnStarted.model_validate(turn | {"in_reply_to": (ID,)})) == (
        f'{{"type":"turn","state":"started",{known},"in_reply_to":["{ID}"]}}'
    )
    assert frames.of_turn(ReplyGrew.model_validate(turn | {"index": 0, "text": "你\n"})) == (
        f'{{"type":"delta",{known},"index":0,"content":"你\\n"}}'
    )
    assert frames.of_turn(TurnEnded.model_validate(turn | {"outcome": "answered"})) == (
        f'{{"type":"turn","state":"ended",{known},"outcome":"answered"}}'
    )
    failed = TurnEnded.model_validate(turn | {"outcome": "failed", "reason": "Why."})
    assert json.loads(frames.of_turn(failed)).items() >= {"outcome": "failed", "reason": "Why."}.items()


def test_cancelling() -> None:
    assert frames.cancelling("t") == '{"type":"cancelling","thread_id":"t"}'
    assert SocketFrame.model_validate_json('{"type": "cancel"}').type == "cancel"


def test_reset() -> None:
    assert frames.reset("t", 3) == '{"type":"reset","thread_id":"t","head":3}'


def test_an_error_names_the_message_only_where_there_is_one() -> None:
    assert frames.error("code", "Why.") == '{"type":"error","code":"code","message":"Why."}'
    assert frames.error("code", "Why.", message_id=ID) == (
        '{"type":"error","code":"code","message":"Why.","message_id":"01890a5d-ac96-774b-bcce-b302099a8057"}'
    )


def understood(text: str) -> Said:
    assert SocketFrame.model_validate_json(text).type == "message"
    return Said.model_validate_json(text)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ('{"type": "message", "message": "hi"}', "user"),
        ('{"type": "message", "message": "hi", "source": "api", "more": [1]}', "api"),
    ],
)
def test_a_socket_speaks_as_a_user_unless_it_says_otherwise(text: str, source: str) -> None:
    said = understood(text)
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
        understood(text)


def test_a_tenants_thread_is_shown_by_its_id_in_every_frame() -> None:
    theirs = MESSAGE.model_copy(update={"thread_id": "acme.room:1", "rev": 4, "fate": "failed", "reason": "Why."})
    reply = theirs.model_copy(update={"role": "assistant", "source": "assistant", "in_reply_to": (ID,), "fate": None})
    crowd = Crowd(2, frozenset(("ann",)), 0, frozenset(("ann",)))
    shown = [
        frames.connected("acme.room:1", 2, 17),
        frames.reset("acme.room:1", 3),
        frames.cancelling("acme.room:1"),
        frames.of_turn(TurnStarted(thread_id="acme.room:1", turn_id=ID, reply_id=ID, in_reply_to=(ID,))),
        frames.of_turn(ReplyGrew(thread_id="acme.room:1", turn_id=ID, reply_id=ID, index=0, text="hi")),
        frames.of_turn(TurnEnded(thread_id="acme.room:1", turn_id=ID, reply_id=ID, outcome="answered")),
        *frames.for_everyone(MessageRecorded(message=theirs)),
        *frames.for_all_events(MessageSettled(message=theirs)),
        *frames.for_all_events(MessageRecorded(message=reply)),
        *map(text, presence.opening("acme.room:1", crowd)),
    ]
    assert {json.loads(frame)["thread_id"] for frame in shown} == {"room:1"}
    assert "acme" not in "".join(shown)
