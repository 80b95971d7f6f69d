"""Who the recorder tells what of one batch."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

import pytest

from m3 import topology
from m3.events import (
    AnyEvent,
    Fate,
    Lane,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    MessagesPassedOver,
    PassedOverFate,
    RetryAsked,
    ThreadSummarised,
    TurnFailed,
    reply_id,
)
from m3.store import Record
from m3.topology import Route
from services.recorder.recording import _announcements


def accepted(
    number: int, *, thread_id: str = "t", source: Lane = "user", origin: str = "door.1", answers: int | None = None
) -> MessageAccepted:
    return MessageAccepted(
        message_id=UUID(int=number) if answers is None else reply_id(UUID(int=answers)),
        thread_id=thread_id,
        source=source,
        content=f"message {number}",
        interface="http_api",
        origin=origin,
        in_reply_to=() if answers is None else (UUID(int=answers),),
    )


def row(event: MessageAccepted, seq: int) -> Message:
    return Message(
        id=seq,
        message_id=event.message_id,
        thread_id=event.thread_id,
        seq=seq,
        rev=seq,
        role="assistant" if event.source == "assistant" else "user",
        content=event.content,
        source=event.source,
        timestamp=datetime(2025, 1, 2, tzinfo=UTC),
        interface=event.interface,
    )


def settled_as(fate: Fate, number: int = 1, *, rev: int = 9, source: Lane = "user") -> Message:
    """A row that was changed since it was recorded."""
    return row(accepted(number, source=source), number).model_copy(update={"fate": fate, "rev": rev})


def record(messages: Iterable[Message], settled: Iterable[tuple[str, Message]] = ()) -> Record:
    """As the store returns it: ordered by thread and number."""
    ordered = sorted(messages, key=lambda message: (message.thread_id, message.seq))
    return Record({message.message_id: message for message in ordered}, list(settled))


def news(*messages: Message) -> list[AnyEvent]:
    return [MessageRecorded(message=message) for message in messages]


def told(announcements: dict[Route, list[AnyEvent]]) -> dict[str, list[AnyEvent]]:
    """What each origin is told."""
    return {route.key: events for route, events in announcements.items() if not route.exchange}


def test_what_was_announced_before_is_told_to_whoever_says_it_again_and_to_nobody_else() -> None:
    again = accepted(1, origin="door.2")
    recorded = row(again, 1)
    announcements = _announcements([again], record([recorded]), {again.message_id})
    assert announcements == {topology.told("door.2"): news(recorded)}


def test_a_lane_of_a_thread_gets_one_announcement_in_the_order_of_numbers() -> None:
    b, a, c = (accepted(number) for number in (1, 2, 3))
    rows = [row(a, 1), row(b, 2), row(c, 3)]
    announcements = _announcements([b, a, c], record(rows))
    assert announcements[topology.announced("user", "t")] == news(*rows)


def test_each_lane_and_each_thread_is_announced_by_itself() -> None:
    events = [
        accepted(1),
        accepted(2, source="api"),
        accepted(3, thread_id="other"),
        accepted(4, source="assistant"),
        accepted(5, source="api"),
    ]
    rows = [row(event, seq) for seq, event in enumerate(events, 1)]
    announcements = _announcements(events, record(rows))
    assert {route: got for route, got in announcements.items() if route.exchange} == {
        topology.announced("user", "t"): news(rows[0]),
        topology.announced("api", "t"): news(rows[1], rows[4]),
        topology.announced("assistant", "t"): news(rows[3]),
        topology.announced("user", "other"): news(rows[2]),
    }


def test_each_origin_is_told_of_its_own_messages_in_one_body() -> None:
    events = [accepted(1), accepted(2, origin="door.2"), accepted(3, thread_id="other")]
    rows = [row(event, seq) for seq, event in enumerate(events, 1)]
    announcements = _announcements(events, record(rows))
    assert told(announcements) == {"door.1": news(rows[0], rows[2]), "door.2": news(rows[1])}


def test_a_message_that_came_twice_is_told_once_to_each_who_handed_it_in() -> None:
    events = [accepted(1), accepted(1), accepted(1, origin="door.2")]
    recorded = row(events[0], 1)
    announcements = _announcements(events, record([recorded]))
    assert announcements == {
        topology.announced("user", "t"): news(recorded),
        topology.told("door.1"): news(recorded),
        topology.told("door.2"): news(recorded),
    }


def test_an_answer_is_told_to_who_asked_and_to_who_answered() -> None:
    question = row(accepted(1), 1).model_copy(update={"fate": "answered"})
    answer = accepted(2, source="assistant", origin="agent.1", answers=1)
    recorded = row(answer, 2)
    announcements = _announcements([answer], record([recorded], [("door.1", question)]))
    settled = MessageSettled(message=question)
    assert told(announcements) == {"door.1": [settled], "agent.1": [*news(recorded), settled]}


def test_a_failure_is_told_to_who_asked_to_who_failed_and_to_the_threads_listeners() -> None:
    question = settled_as("failed")
    failure = TurnFailed(thread_id="t", message_ids=(question.message_id,), reason="No model.", origin="agent.1")
    announcements = _announcements([failure], record([], [("door.1", question)]))
    settled: list[AnyEvent] = [MessageSettled(message=question)]
    assert announcements == {
        topology.told("door.1"): settled,
        topology.told("agent.1"): settled,
        topology.changed("t"): settled,
    }


def test_a_failure_of_what_was_answered_already_is_no_news_to_the_threads_listeners() -> None:
    question = row(accepted(1), 1).model_copy(update={"fate": "answered"})
    failure = TurnFailed(thread_id="t", message_ids=(question.message_id,), reason="No model.", origin="agent.1")
    announcements = _announcements([failure], record([], [("door.1", question)]))
    settled: list[AnyEvent] = [MessageSettled(message=question)]
    assert announcements == {topology.told("door.1"): settled, topology.told("agent.1"): settled}


def test_who_answers_its_own_question_is_told_once() -> None:
    question = row(accepted(1), 1).model_copy(update={"fate": "failed", "reason": "No model."})
    failure = TurnFailed(thread_id="t", message_ids=(question.message_id,), reason="No model.", origin="door.1")
    announcements = _announcements([failure], record([], [("door.1", question)]))
    assert told(announcements) == {"door.1": [MessageSettled(message=question)]}


def test_a_failure_that_settles_nothing_is_told_to_nobody() -> None:
    failure = TurnFailed(thread_id="t", message_ids=(UUID(int=1),), reason="No model.", origin="agent.1")
    assert _announcements([failure], record([])) == {}


def test_all_who_hand_in_the_same_answer_are_told() -> None:
    question = row(accepted(1, origin="gateway"), 1)
    answers = [accepted(2, source="assistant", answers=1, origin=origin) for origin in ("agent.1", "agent.2")]
    announcements = _announcements(answers, record([row(answers[0], 2)], [("gateway", question)]))
    settled = {origin for origin, events in told(announcements).items() if MessageSettled(message=question) in events}
    assert settled == {"gateway", "agent.1", "agent.2"}


def test_an_answer_that_names_another_question_than_the_recorded_one_does_no_harm() -> None:
    question = row(accepted(1, origin="gateway"), 1)
    answer = accepted(2, source="assistant", answers=1).model_copy(update={"in_reply_to": (UUID(int=9),)})
    announcements = _announcements([answer], record([row(answer, 2)], [("gateway", question)]))
    assert told(announcements)["gateway"] == [MessageSettled(message=question)]


def test_who_asked_is_told_the_reply_itself_and_who_answered_is_not() -> None:
    answer = accepted(2, source="assistant", answers=1, origin="agent")
    reply = row(answer, 2)
    question = row(accepted(1, origin="gateway"), 1).model_copy(update={"reply_id": reply.message_id})
    bodies = told(_announcements([answer], record([reply], [("gateway", question)])))
    assert bodies["gateway"] == [MessageSettled(message=question, reply=reply)]
    assert MessageSettled(message=question) in bodies["agent"]


@pytest.mark.parametrize("fate", get_args(PassedOverFate))
def test_what_is_passed_over_is_told_to_who_asked_to_the_agent_and_to_the_threads_listeners(
    fate: PassedOverFate,
) -> None:
    question = settled_as(fate)
    passed = MessagesPassedOver(
        thread_id="t", message_ids=(question.message_id,), fate=fate, reason="Why.", origin="agent.1"
    )
    settled: list[AnyEvent] = [MessageSettled(message=question)]
    assert _announcements([passed], record([], [("door.1", question)])) == {
        topology.told("door.1"): settled,
        topology.told("agent.1"): settled,
        topology.changed("t"): settled,
    }


def test_of_several_messages_only_the_first_is_told_to_the_agent_and_each_to_who_said_it() -> None:
    questions = [settled_as("shed", number, rev=9 + number) for number in (1, 2, 3)]
    ids = tuple(question.message_id for question in questions)
    passed = MessagesPassedOver(thread_id="t", message_ids=ids, fate="shed", reason="Too many.", origin="agent.1")
    origins = ["door.1", "door.2", "door.1"]
    announcements = _announcements([passed], record([], zip(origins, questions, strict=True)))
    one, two, three = (MessageSettled(message=question) for question in questions)
    assert told(announcements) == {"door.1": [one, three], "door.2": [two], "agent.1": [one]}
    assert announcements[topology.changed("t")] == [one, two, three]


def test_of_several_messages_that_share_a_reply_only_the_first_is_told_to_the_agent() -> None:
    questions = [row(accepted(number), number).model_copy(update={"fate": "answered"}) for number in (1, 2)]
    answer = accepted(3, source="assistant", origin="agent.1", answers=1).model_copy(
        update={"in_reply_to": tuple(question.message_id for question in questions)}
    )
    announcements = _announcements([answer], record([row(answer, 3)], [("door.1", each) for each in questions]))
    assert told(announcements)["agent.1"] == [*news(row(answer, 3)), MessageSettled(message=questions[0])]


@pytest.mark.parametrize("source", ["user", "api"])
def test_a_message_that_is_asked_for_again_is_news_and_a_knock_on_its_lane(source: Lane) -> None:
    question = settled_as("pending", source=source)
    retry = RetryAsked(thread_id="t", message_id=question.message_id, origin="gateway.2")
    settled: list[AnyEvent] = [MessageSettled(message=question)]
    assert _announcements([retry], record([], [("door.1", question)])) == {
        topology.told("door.1"): settled,
        topology.told("gateway.2"): settled,
        topology.changed("t"): settled,
        topology.announced(source, "t"): [],
    }


def test_a_retry_that_changes_nothing_is_told_to_who_asked_for_it() -> None:
    question = settled_as("answered")
    retry = RetryAsked(thread_id="t", message_id=question.message_id, origin="gateway.2")
    announcements = _announcements([retry], record([], [("door.1", question)]))
    assert announcements.keys() == {topology.told("door.1"), topology.told("gateway.2")}


def test_a_retry_of_what_still_waits_is_not_told_with_the_number_of_the_message_itself() -> None:
    """A pusher would take it for the message, and pass over that."""
    question = row(accepted(1), 1).model_copy(update={"fate": "pending"})
    retry = RetryAsked(thread_id="t", message_id=question.message_id, origin="gateway.2")
    announcements = _announcements([retry], record([], [("door.1", question)]))
    assert topology.changed("t") not in announcements


def test_a_failure_and_the_retry_after_it_in_one_batch_are_told_in_the_order_of_their_numbers() -> None:
    failed, again = settled_as("failed", rev=2), settled_as("pending", rev=3)
    failure = TurnFailed(thread_id="t", message_ids=(failed.message_id,), reason="No model.", origin="agent.1")
    retry = RetryAsked(thread_id="t", message_id=failed.message_id, origin="gateway.2")
    announcements = _announcements([failure, retry], record([], [("door.1", failed), ("door.1", again)]))
    both = [MessageSettled(message=failed), MessageSettled(message=again)]
    assert announcements[topology.changed("t")] == both
    assert told(announcements) == {"door.1": both, "agent.1": both, "gateway.2": both}


def test_a_summary_is_told_to_nobody() -> None:
    assert _announcements([ThreadSummarised(thread_id="t", until=3, text="Greetings.")], record([])) == {}


def test_what_names_no_message_is_told_to_nobody() -> None:
    failure = TurnFailed(thread_id="t", message_ids=(), reason="No model.", origin="agent.1")
    passed = MessagesPassedOver(thread_id="t", message_ids=(), fate="shed", reason="Too many.", origin="agent.1")
    assert _announcements([failure, passed], record([])) == {}
