"""The dialogue table on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from m3.errors import StartError, StoreUnavailable, Unstorable
from m3.events import (
    Fate,
    Incoming,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    MessagesPassedOver,
    OutsideSource,
    PassedOverFate,
    RetryAsked,
    ThreadSummarised,
    Turn,
    TurnFailed,
    reply_id,
)
from m3.store import Store, ThreadLocks, migrate, open_store, postgres
from m3.store.sql import Migration, migrations
from m3.threads import ThreadSettings
from tests.support.until import DEADLINE, until

every_passing_over = pytest.mark.parametrize("fate", get_args(PassedOverFate))


def said(thread_id: str = "t", content: str = "hello", source: str = "user") -> MessageAccepted:
    return MessageAccepted.model_validate(
        {"thread_id": thread_id, "source": source, "content": content, "interface": "http_api", "origin": "gateway.1"}
    )


def reply_to(
    *messages: Message, content: str = "reply", cancelled: bool = False, turn: Turn | None = None
) -> MessageAccepted:
    return MessageAccepted(
        message_id=reply_id(messages[0].message_id),
        thread_id=messages[0].thread_id,
        source="assistant",
        content=content,
        interface="http_api",
        origin="agent.1",
        in_reply_to=tuple(message.message_id for message in messages),
        cancelled=cancelled,
        turn=turn,
    )


def failure(*messages: Message, reason: str = "No model.", turn: Turn | None = None) -> TurnFailed:
    ids = tuple(message.message_id for message in messages)
    return TurnFailed(thread_id=messages[0].thread_id, message_ids=ids, reason=reason, origin="agent.1", turn=turn)


def passing_over(
    *messages: Message, fate: PassedOverFate, reply: UUID | None = None, turn: Turn | None = None
) -> MessagesPassedOver:
    return MessagesPassedOver(
        thread_id=messages[0].thread_id,
        message_ids=tuple(message.message_id for message in messages),
        fate=fate,
        reason="Why.",
        origin="agent.1",
        reply_id=reply,
        turn=turn,
    )


def retry(message: Message) -> RetryAsked:
    return RetryAsked(thread_id=message.thread_id, message_id=message.message_id, origin="gateway.2")


def a_turn(lane: OutsideSource = "user") -> Turn:
    return Turn(
        turn_id=uuid7(),
        lane=lane,
        model="demo",
        started_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        duration=1.5,
        first_token=0.25,
        prompt_tokens=100,
        completion_tokens=10,
        attempts=2,
    )


async def record_one(store: Store, event: MessageAccepted) -> Message:
    return (await store.record([event])).messages[event.message_id]


async def record_all(store: Store, *events: MessageAccepted) -> list[Message]:
    record = await store.record(events)
    return [record.messages[event.message_id] for event in events]


async def settle(store: Store, event: TurnFailed | MessagesPassedOver | RetryAsked | MessageAccepted) -> Message:
    ((_, settled),) = (await store.record([event])).settled
    assert await store.message(settled.message_id) == settled
    return settled


async def give(store: Store, message: Message, fate: Fate) -> Message:
    """See to it that the message has this fate."""
    if fate == "pending":
        return message
    if fate == "answered":
        return await settle(store, reply_to(message))
    if fate == "failed":
        return await settle(store, failure(message))
    return await settle(store, passing_over(message, fate=fate))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_batch_gets_dense_numbers_in_each_thread_in_the_order_given(store: Store) -> None:
    events = [said(thread, f"{number}") for number in range(5) for thread in ("a", "b")]
    record = await store.record(events)
    for thread in ("a", "b"):
        of_thread = [record.messages[event.message_id] for event in events if event.thread_id == thread]
        assert [message.seq for message in of_thread] == [1, 2, 3, 4, 5]
        assert await store.head(thread) == 5
    assert (await record_one(store, said("a"))).seq == 6


async def test_a_message_recorded_twice_is_one_row_and_leaves_no_gap(store: Store) -> None:
    event = said()
    first = await record_one(store, event)
    again = await record_one(store, event.model_copy(update={"content": "another text"}))
    assert again == first
    within_one_batch = said()
    record = await store.record([within_one_batch, within_one_batch, event])
    assert record.messages[within_one_batch.message_id].seq == 2
    assert await store.head("t") == 2


async def test_recorders_side_by_side_give_dense_numbers_and_record_each_message_once(store: Store) -> None:
    """Also where both hold the same messages, in different orders."""
    events = [said(f"t{number % 3}", str(number)) for number in range(60)]
    batches = [events[start : start + 7] for start in range(0, 60, 5)] + [events[::-1]]
    await asyncio.gather(*(store.record(batch) for batch in batches))
    for thread in ("t0", "t1", "t2"):
        messages = await store.latest(thread, 500)
        assert [message.seq for message in messages] == list(range(1, 21))


async def test_one_id_in_two_threads_is_recorded_in_one_of_them_without_a_gap(store: Store) -> None:
    event = said("a")
    elsewhere = event.model_copy(update={"thread_id": "b"})
    results = await asyncio.gather(store.record([event]), store.record([elsewhere]))
    assert results[0].messages == results[1].messages
    assert await store.head("a") + await store.head("b") == 1


async def test_a_reply_settles_what_it_answers_in_the_same_transaction(store: Store) -> None:
    asked = await record_one(store, said())
    assert asked.fate == "pending"
    record = await store.record([reply_to(asked)])
    reply = record.messages[reply_id(asked.message_id)]
    assert (reply.seq, reply.role, reply.fate) == (2, "assistant", None)
    ((origin, settled),) = record.settled
    assert origin == "gateway.1"
    assert (settled.fate, settled.reply_id, settled.reply_seq) == ("answered", reply.message_id, 2)
    assert await store.message(asked.message_id) == settled


async def test_a_doubled_reply_tells_again_and_changes_nothing(store: Store) -> None:
    asked = await record_one(store, said())
    first = await store.record([reply_to(asked, content="first")])
    again = await store.record([reply_to(asked, content="second opinion")])
    assert again.messages == first.messages
    assert again.settled == first.settled


async def test_a_failure_is_kept_with_its_reason_and_a_late_reply_mends_it(store: Store) -> None:
    asked = await record_one(store, said())
    gave_up = failure(asked)
    ((_, failed),) = (await store.record([gave_up])).settled
    assert (failed.fate, failed.reason, failed.seq, failed.rev) == ("failed", "No model.", 1, 2)
    assert await store.message(asked.message_id) == failed
    ((_, answered),) = (await store.record([reply_to(asked)])).settled
    assert (answered.fate, answered.reason) == ("answered", None)
    ((_, still),) = (await store.record([gave_up])).settled
    assert still.fate == "answered"


async def test_failures_take_the_threads_next_numbers_and_a_doubled_one_takes_none(store: Store) -> None:
    events = [said(content=str(number)) for number in range(3)]
    record = await store.record(events)
    gave_up = failure(*record.messages.values())
    for _ in range(2):
        settled = (await store.record([gave_up, gave_up])).settled
        assert [(message.seq, message.rev) for _, message in settled] == [(1, 4), (2, 5), (3, 6)]
    assert await store.head("t") == 6
    assert [message.seq for message in record.messages.values()] == [1, 2, 3]


async def test_what_happened_after_a_number_is_told_in_the_order_of_numbers(store: Store) -> None:
    one, two = [await record_one(store, said(content=content)) for content in ("one", "two")]
    ((_, failed),) = (await store.record([failure(one)])).settled  # number 3
    reply = await record_one(store, reply_to(two))  # number 4
    answered = await store.message(two.message_id)
    assert answered is not None
    everything = [
        MessageRecorded(message=failed),
        MessageRecorded(message=answered),
        MessageSettled(message=failed),
        MessageRecorded(message=reply),
    ]
    assert await store.events_after("t", 0, 10) == everything
    assert await store.events_after("t", 2, 1) == everything[2:3]
    assert await store.events_after("t", 1, 10, until=3) == everything[1:3]
    assert await store.events_after("t", 4, 10) == []


async def test_a_reply_cannot_settle_a_message_of_another_thread(store: Store) -> None:
    asked = await record_one(store, said("mine"))
    await store.record([reply_to(asked).model_copy(update={"thread_id": "foreign"})])
    found = await store.message(asked.message_id)
    assert found is not None
    assert found.fate == "pending"


# ---- Fates


@every_passing_over
async def test_what_is_passed_over_is_kept_with_its_reason_and_takes_the_threads_next_numbers(
    store: Store, fate: PassedOverFate
) -> None:
    one, two = await record_all(store, said(), said())
    for _ in range(2):  # doubled, it takes no more
        settled = (await store.record([passing_over(two, one, fate=fate)])).settled
        assert [(origin, m.seq, m.rev, m.fate, m.reason) for origin, m in settled] == [
            ("gateway.1", 2, 3, fate, "Why."),
            ("gateway.1", 1, 4, fate, "Why."),
        ]
    assert await store.head("t") == 4
    assert await store.message(one.message_id) == settled[1][1]
    news = await store.events_after("t", 2, 10)
    assert news == [MessageSettled(message=message) for _, message in settled]


async def test_a_merged_message_has_the_reply_to_what_it_repeats(store: Store) -> None:
    one, two = await record_all(store, said(), said())
    await store.record([reply_to(one)])
    merged = await settle(store, passing_over(two, fate="merged", reply=reply_id(one.message_id)))
    assert (merged.fate, merged.reply_id, merged.reply_seq) == ("merged", reply_id(one.message_id), 3)
    assert (await store.latest("t", 10))[1] == merged


@every_passing_over
@pytest.mark.parametrize("settled_as", [fate for fate in get_args(Fate) if fate != "pending"])
async def test_what_is_settled_already_is_not_passed_over(store: Store, settled_as: Fate, fate: PassedOverFate) -> None:
    before = await give(store, await record_one(store, said()), settled_as)
    head = await store.head("t")
    assert await settle(store, passing_over(before, fate=fate, reply=uuid7())) == before
    assert await settle(store, failure(before, reason="Late.")) == before
    assert await store.head("t") == head


async def test_a_message_of_another_thread_is_not_passed_over(store: Store) -> None:
    asked = await record_one(store, said("mine"))
    foreign = passing_over(asked, fate="shed").model_copy(update={"thread_id": "foreign"})
    assert (await store.record([foreign, failure(asked)])).settled[0][1].fate == "failed"
    assert await store.head("foreign") == 0


async def test_what_names_an_unknown_message_or_none_changes_nothing(store: Store) -> None:
    asked = await record_one(store, said())
    unknown = asked.model_copy(update={"message_id": uuid7()})
    nothing = TurnFailed(thread_id="t", message_ids=(), reason="No model.", origin="agent.1")
    events: list[Incoming] = [passing_over(unknown, fate="shed"), retry(unknown), failure(unknown), nothing]
    assert (await store.record(events)).settled == []
    assert await store.head("t") == 1


@pytest.mark.parametrize("fate", ["failed", "cancelled"])
async def test_what_failed_or_was_cancelled_waits_again_when_asked_for_with_a_number_of_its_own(
    store: Store, fate: Fate
) -> None:
    asked = await give(store, await record_one(store, said()), fate)
    again = await settle(store, retry(asked))
    assert (again.fate, again.reason, again.reply_id, again.seq, again.rev) == ("pending", None, None, 1, 3)
    assert [one.message for one in (await store.mailbox("t", 10)).waiting] == [again]
    assert await settle(store, retry(asked)) == again  # doubled
    assert await store.head("t") == 3
    assert (await settle(store, reply_to(asked))).fate == "answered"


@pytest.mark.parametrize("fate", sorted(set(get_args(Fate)) - {"failed", "cancelled"}))
async def test_nothing_else_can_be_asked_for_again(store: Store, fate: Fate) -> None:
    before = await give(store, await record_one(store, said()), fate)
    head = await store.head("t")
    assert await settle(store, retry(before)) == before
    assert await store.head("t") == head


async def test_a_reply_cannot_be_asked_for_again(store: Store) -> None:
    reply = await record_one(store, reply_to(await record_one(store, said())))
    ((_, told),) = (await store.record([retry(reply)])).settled
    assert told == reply


async def test_a_failure_that_is_told_again_does_not_undo_a_retry(store: Store) -> None:
    asked = await record_one(store, said())
    gave_up = failure(asked, turn=a_turn())
    await store.record([gave_up])
    again = await settle(store, retry(asked))
    assert await settle(store, gave_up) == again
    another = await settle(store, failure(asked, turn=a_turn()))
    assert (another.fate, another.rev) == ("failed", 4)


async def test_a_cancellation_that_is_told_again_does_not_undo_a_retry(store: Store) -> None:
    asked = await record_one(store, said())
    stopped = passing_over(asked, fate="cancelled", turn=a_turn())
    await store.record([stopped])
    again = await settle(store, retry(asked))
    assert await settle(store, stopped) == again


async def test_a_failure_told_again_beside_the_retry_does_not_hide_it(store: Store) -> None:
    """As where a recorder was killed before it announced the failure, and the retry came meanwhile."""
    asked = await record_one(store, said())
    gave_up = failure(asked, turn=a_turn())
    await store.record([gave_up])
    record = await store.record([gave_up, retry(asked), gave_up])
    assert [(message.fate, message.rev) for _, message in record.settled] == [("failed", 2), ("pending", 3)]
    found = await store.message(asked.message_id)
    assert found is not None
    assert (found.fate, found.rev, await store.head("t")) == ("pending", 3, 3)


async def test_what_happens_to_one_message_in_one_batch_happens_in_order(store: Store) -> None:
    asked = await record_one(store, said())
    first = failure(asked, reason="First.", turn=a_turn())
    record = await store.record([first, retry(asked), first, failure(asked, reason="Second.", turn=a_turn())])
    assert [(message.fate, message.rev, message.reason) for _, message in record.settled] == [
        ("failed", 2, "First."),
        ("pending", 3, None),
        ("failed", 4, "Second."),
    ]
    assert await store.head("t") == 4


@pytest.mark.parametrize("fate", ["expired", "shed", "ignored", "cancelled", "failed"])
async def test_a_late_reply_mends_what_got_none(store: Store, fate: Fate) -> None:
    asked = await give(store, await record_one(store, said()), fate)
    settled = await settle(store, reply_to(asked))
    assert (settled.fate, settled.reason, settled.reply_seq, settled.rev) == ("answered", None, 3, 2)


async def test_a_late_reply_leaves_what_is_answered_or_merged(store: Store) -> None:
    one, two = await record_all(store, said(), said())
    answered = await settle(store, reply_to(one))
    merged = await settle(store, passing_over(two, fate="merged", reply=answered.reply_id))
    late = reply_to(one, two).model_copy(update={"message_id": uuid7()})
    assert (await store.record([late])).settled == []
    assert [await store.message(message.message_id) for message in (one, two)] == [answered, merged]


async def test_one_reply_settles_all_that_it_answers(store: Store) -> None:
    asked = await record_all(store, said(), said(source="api"), said())
    record = await store.record([reply_to(*asked)])
    assert {(message.seq, message.fate, message.reply_seq) for _, message in record.settled} == {
        (number, "answered", 4) for number in (1, 2, 3)
    }
    assert await store.head("t") == 4


async def test_a_reply_that_was_stopped_is_marked(store: Store) -> None:
    one, two = await record_all(store, said(), said())
    stopped = await record_one(store, reply_to(one, cancelled=True))
    whole = await record_one(store, reply_to(two))
    assert (one.cancelled, stopped.cancelled, whole.cancelled) == (False, True, False)
    assert await store.message(stopped.message_id) == stopped
    found = await store.message(one.message_id)
    assert found is not None
    assert (found.fate, found.reply_id, found.cancelled) == ("answered", stopped.message_id, False)


# ---- Turns


async def kept_turns(url: str) -> list[dict[str, Any]]:
    async with connected(url) as connection:
        return [dict(row) for row in await connection.fetch("SELECT * FROM turns ORDER BY ended_at")]


async def test_each_turn_is_kept_once_with_what_came_of_it(store: Store, database_url: str) -> None:
    asked = await record_all(store, *(said() for _ in range(4)))
    turns = [a_turn() for _ in range(4)]
    turns[2] = turns[2].model_copy(update={"first_token": None, "estimated": True, "lane": "api"})
    events: list[Incoming] = [
        reply_to(asked[0], turn=turns[0]),
        reply_to(asked[1], turn=turns[1], cancelled=True),
        failure(asked[2], turn=turns[2]),
        passing_over(asked[3], fate="cancelled", turn=turns[3]),
    ]
    for event in events:
        await store.record([event, event])
        await store.record([event])
    kept = await kept_turns(database_url)
    assert [(row["turn_id"], row["outcome"], row["reply_id"], row["reason"]) for row in kept] == [
        (turns[0].turn_id, "answered", reply_id(asked[0].message_id), None),
        (turns[1].turn_id, "cancelled", reply_id(asked[1].message_id), None),
        (turns[2].turn_id, "failed", None, "No model."),
        (turns[3].turn_id, "cancelled", None, "Why."),
    ]
    for row, turn in zip(kept, turns, strict=True):
        assert row["thread_id"] == "t"
        assert Turn.model_validate({name: row[name] for name in Turn.model_fields}) == turn


async def test_an_event_without_a_turn_keeps_none(store: Store, database_url: str) -> None:
    one, two = await record_all(store, said(), said())
    await store.record([reply_to(one), failure(two)])
    assert await kept_turns(database_url) == []


async def test_a_turn_whose_reply_another_had_given_is_kept_too(store: Store, database_url: str) -> None:
    asked = await record_one(store, said())
    await store.record([reply_to(asked, turn=a_turn())])
    await store.record([reply_to(asked, turn=a_turn())])
    assert [row["reply_id"] for row in await kept_turns(database_url)] == [reply_id(asked.message_id)] * 2


async def test_the_last_lanes_are_those_of_the_threads_turns_newest_first(store: Store) -> None:
    lanes: list[OutsideSource] = ["user", "api", "api", "user"]
    for lane in lanes:
        asked = await record_one(store, said(source=lane))
        await store.record([reply_to(asked, turn=a_turn(lane))])
    await store.record([reply_to(await record_one(store, said("other")), turn=a_turn("api"))])
    assert await store.last_lanes("t", 10) == ["user", "api", "api", "user"]
    assert await store.last_lanes("t", 2) == ["user", "api"]
    assert await store.last_lanes("nothing was said here", 2) == []


async def test_recent_answers_are_what_programs_said_and_got_answered_lately(store: Store, database_url: str) -> None:
    asked = await record_all(store, *(said(content=str(n), source="api") for n in range(5)), said(content="person"))
    old, one, two, waiting, cut, person = asked
    await store.record([reply_to(old, turn=a_turn("api"))])
    async with connected(database_url) as connection:
        await connection.execute("UPDATE turns SET ended_at = ended_at - interval '1 minute'")
    await store.record([reply_to(two, one, turn=a_turn("api")), reply_to(person, turn=a_turn("user"))])
    await store.record([reply_to(two, one, turn=a_turn("api"))])  # another agent's, for the same reply
    await store.record([passing_over(cut, fate="shed")])
    recent = await store.recent_answers("t", 30)
    assert recent == [await store.message(message.message_id) for message in (two, one)]
    assert {(message.reply_id, message.reply_seq) for message in recent} == {(reply_id(two.message_id), 8)}
    assert [message.content for message in await store.recent_answers("t", 90)] == ["2", "1", "0"]
    assert await store.recent_answers("t", 0) == []
    assert await store.recent_answers("other", 30) == []
    assert waiting.fate == "pending"


# ---- What waits for the agent


async def test_a_mailbox_holds_what_waits_oldest_first_with_its_age(store: Store, database_url: str) -> None:
    asked = await record_all(store, *(said(content=str(n), source=("user", "api")[n % 2]) for n in range(6)))
    await store.record([reply_to(asked[1]), passing_over(asked[2], fate="shed"), said("other")])
    async with connected(database_url) as connection:
        await connection.execute("UPDATE dialogue SET timestamp = timestamp - interval '1 minute' WHERE seq = 4")
    waiting = (await store.mailbox("t", 10)).waiting
    assert [one.message.content for one in waiting] == ["0", "3", "4", "5"]
    assert waiting[0].message == asked[0]
    ages = [one.age for one in waiting]
    assert 60 < ages[1] < 90
    assert all(0 < age < 30 for age in (ages[0], *ages[2:]))


async def test_a_mailbox_is_bounded_lane_by_lane(store: Store) -> None:
    sources = ["api", "api", "api", "api", "user", "user", "user"]
    await store.record([said(content=str(number), source=source) for number, source in enumerate(sources)])
    mailbox = await store.mailbox("t", 2)
    assert [one.message.content for one in mailbox.waiting] == ["0", "1", "4", "5"]
    assert mailbox.mark == await store.mailbox_mark("t")


async def test_a_mailbox_brings_the_threads_settings_also_where_nothing_waits(store: Store) -> None:
    settings = ThreadSettings(pause="wait", api_cap=3)
    await store.change_settings("t", settings)
    mailbox = await store.mailbox("t", 10)
    assert (mailbox.settings, mailbox.waiting) == (settings, [])
    await store.record([said(), said()])
    mailbox = await store.mailbox("t", 10)
    assert (mailbox.settings, len(mailbox.waiting)) == (settings, 2)


async def test_an_unknown_thread_has_an_empty_mailbox(store: Store) -> None:
    mailbox = await store.mailbox("nothing was said here", 10)
    assert (mailbox.settings, mailbox.waiting, mailbox.mark) == (ThreadSettings(), [], (0, ThreadSettings()))
    assert await store.mailbox_mark("nothing was said here") == mailbox.mark
    assert await store.head("nothing was said here") == 0


async def test_the_mark_of_a_mailbox_tells_whether_anything_in_it_is_new(store: Store) -> None:
    async def changed() -> bool:
        before = marks[-1]
        marks.append((await store.mailbox("t", 10)).mark)
        assert await store.mailbox_mark("t") == marks[-1]
        return marks[-1] != before

    marks = [await store.mailbox_mark("t")]
    assert not await changed()
    asked = await record_one(store, said())
    assert await changed()
    await record_one(store, said(source="api"))
    assert await changed()
    assert not await changed()
    await store.record([failure(asked)])
    await changed()
    await store.record([retry(asked)])
    assert await changed()
    await store.change_settings("t", ThreadSettings(pause="ignore"))
    assert await changed()
    await store.change_settings("t", ThreadSettings())
    assert await changed()


async def test_what_waits_is_counted_by_source_up_to_a_bound(store: Store) -> None:
    asked = await record_all(store, *(said(source="api") for _ in range(5)), said(), said("other", source="api"))
    await store.record([reply_to(asked[0]), passing_over(asked[1], fate="shed")])
    assert await store.waiting_count("t", "api", 100) == 3
    assert await store.waiting_count("t", "api", 2) == 2
    assert await store.waiting_count("t", "user", 100) == 1
    assert await store.waiting_count("nothing was said here", "user", 100) == 0


async def test_waiting_threads_are_those_with_an_old_pending_message(store: Store) -> None:
    asked = await record_one(store, said("a"))
    await record_one(store, said("b"))
    await store.record([reply_to(asked)])
    assert await store.waiting_threads(older_than=0) == [("user", "b")]
    assert await store.waiting_threads(older_than=60) == []


async def test_threads_where_people_wait_come_first_and_then_those_that_wait_longest(store: Store) -> None:
    for thread, source in [("a", "api"), ("b", "api"), ("c", "user"), ("d", "api"), ("e", "user"), ("d", "user")]:
        await record_one(store, said(thread, source=source))
    waiting = await store.waiting_threads(older_than=0)
    assert waiting == [("user", "c"), ("user", "d"), ("user", "e"), ("api", "a"), ("api", "b")]


async def test_a_thread_that_is_to_wait_is_no_waiting_thread(store: Store) -> None:
    for thread in ("paused", "ignoring", "open"):
        await record_one(store, said(thread))
    await store.change_settings("paused", ThreadSettings(pause="wait"))
    await store.change_settings("ignoring", ThreadSettings(pause="ignore"))
    assert await store.waiting_threads(older_than=0) == [("user", "ignoring"), ("user", "open")]
    await store.change_settings("paused", ThreadSettings())
    assert len(await store.waiting_threads(older_than=0)) == 3


# ---- What the agent is shown


async def test_the_context_holds_each_reply_right_after_what_it_answers(store: Store) -> None:
    asked = await record_all(store, *(said(content=str(number)) for number in range(4)))
    for message in asked[:2]:
        await store.record([reply_to(message, content=f"re {message.content}")])
    assert [m.content for m in await store.context([asked[2]], 10)] == ["0", "re 0", "1", "re 1"]
    assert [m.content for m in await store.context([asked[2]], 1)] == ["1", "re 1"]
    assert await store.context([asked[2]], 0) == []


async def test_the_context_holds_a_reply_to_several_messages_once_after_the_last_of_them(store: Store) -> None:
    asked = await record_all(store, *(said(content=str(number)) for number in range(4)))
    await store.record([reply_to(asked[0], asked[2], content="re 0 and 2")])
    await store.record([reply_to(asked[1], content="re 1")])
    context = await store.context([asked[3]], 10)
    assert [message.content for message in context] == ["0", "1", "re 1", "2", "re 0 and 2"]


async def test_the_context_leaves_out_what_is_to_be_answered_now(store: Store) -> None:
    asked = await record_all(store, *(said(content=str(number)) for number in range(4)))
    await store.record([reply_to(message, content=f"re {message.content}") for message in asked])
    context = await store.context([asked[1], asked[3]], 10)
    assert [message.content for message in context] == ["0", "re 0", "2", "re 2"]


@pytest.mark.parametrize("fate", get_args(Fate))
async def test_the_context_holds_what_was_dealt_with_and_not_what_was_too_much(store: Store, fate: Fate) -> None:
    other, asked = await record_all(store, said(content="other"), said(content="asked"))
    await give(store, other, fate)
    shown = [message.content for message in await store.context([asked], 10)]
    assert (
        shown
        == {
            "pending": [],
            "answered": ["other", "reply"],
            "merged": [],
            "expired": [],
            "shed": [],
            "ignored": ["other"],
            "cancelled": ["other"],
            "failed": ["other"],
        }[fate]
    )


async def test_the_context_begins_after_what_is_summarised(store: Store) -> None:
    asked = await record_all(store, *(said(content=str(number)) for number in range(4)))
    await store.record([reply_to(message, content=f"re {message.content}") for message in asked[:3]])
    assert await store.summary("t") is None
    await store.record([ThreadSummarised(thread_id="t", until=2, text="0 and 1 were said.")])
    assert await store.summary("t") == "0 and 1 were said."
    assert [message.content for message in await store.context([asked[3]], 10)] == ["2", "re 2"]


async def test_of_several_summaries_the_one_that_reaches_farthest_is_kept(store: Store) -> None:
    async def keep(*summaries: tuple[int, str]) -> str | None:
        await store.record([ThreadSummarised(thread_id="t", until=until, text=text) for until, text in summaries])
        return await store.summary("t")

    assert await keep((5, "to five")) == "to five"
    assert await keep((3, "to three")) == "to five"
    assert await keep((5, "another to five")) == "to five"
    assert await keep((7, "to seven"), (9, "to nine"), (8, "to eight")) == "to nine"
    assert await store.summary("other") is None
    assert await store.head("t") == 0


# ---- Settings of a thread


async def test_settings_of_a_thread_come_out_as_they_went_in_and_are_replaced_as_a_whole(store: Store) -> None:
    assert await store.thread_settings("t") == ThreadSettings()
    settings = ThreadSettings(
        system_prompt='You are "the" 主持人.\n',
        user_policy="interrupt",
        api_policy="ignore",
        pause="wait",
        api_ttl=0.5,
        api_cap=7,
        batch_messages=3,
        merge_window=0,
    )
    await store.change_settings("t", settings)
    assert await store.thread_settings("t") == settings
    assert await store.thread_settings("other") == ThreadSettings()
    await store.change_settings("t", ThreadSettings(api_cap=8))
    assert await store.thread_settings("t") == ThreadSettings(api_cap=8)


async def test_a_change_of_settings_takes_no_number_and_leaves_what_was_said(store: Store) -> None:
    asked = await record_one(store, said())
    await store.change_settings("t", ThreadSettings(api_cap=8))
    assert await store.head("t") == 1
    assert await store.latest("t", 10) == [asked]
    assert (await record_one(store, said())).seq == 2


@pytest.mark.parametrize(
    "stored",
    [
        '{"api_cap": 8, "mood": {"of": ["a", "newer", "room"]}}',
        '{"api_cap": 8, "user_policy": "sing", "batch_messages": 1000000}',
    ],
    ids=["name", "value"],
)
async def test_settings_that_only_a_newer_room_knows_are_passed_over(
    store: Store, database_url: str, stored: str
) -> None:
    await store.change_settings("t", ThreadSettings())
    async with connected(database_url) as connection:
        await connection.execute("UPDATE threads SET settings = $1", stored)
    assert await store.thread_settings("t") == ThreadSettings(api_cap=8)
    assert (await store.mailbox("t", 10)).settings == ThreadSettings(api_cap=8)
    assert await store.mailbox_mark("t") == (0, ThreadSettings(api_cap=8))


async def test_a_batch_with_a_value_that_cannot_be_stored_leaves_nothing(store: Store) -> None:
    poison = said().model_copy(update={"content": "\x00"})
    with pytest.raises(Unstorable):
        await store.record([said(), poison])
    assert await store.head("t") == 0
    assert await store.latest("t", 10) == []


async def test_the_newest_messages_come_oldest_first(store: Store) -> None:
    await store.record([said(content=str(number)) for number in range(10)])
    assert [message.content for message in await store.latest("t", 3)] == ["7", "8", "9"]
    assert [message.content for message in await store.latest("t", 3, before=5)] == ["1", "2", "3"]
    assert [message.content for message in await store.following("t", 7, 2)] == ["7", "8"]
    assert [message.content for message in await store.following("t", 7, 9, before=9)] == ["7"]
    assert await store.latest("nothing was said here", 3) == []


async def test_a_thread_is_taken_by_one_worker_at_a_time(store: Store) -> None:
    async with store.thread_locks() as one:
        async with store.thread_locks() as other:
            assert await one.take("t")
            assert not await one.take("t")  # not twice by the same worker either
            assert not await other.take("t")
            assert await other.take("another thread")
            await one.release("t")
            assert await other.take("t")
        await until(lambda: one.take("t"))  # freed when the other's session ended


async def test_a_worker_that_hangs_loses_its_threads_and_one_that_waits_keeps_them(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.store.postgres.LEASE", 0.3)
    monkeypatch.setattr("m3.store.postgres.LOCK_SETTINGS", {"idle_session_timeout": "300ms"})
    hanging = ThreadLocks(database_url)  # nobody keeps its session
    async with store.thread_locks() as waiting, store.thread_locks() as other:
        assert await hanging.take("a")
        assert await waiting.take("b")
        await until(lambda: other.take("a"))
        assert not await other.take("b")
    hanging.close()


async def end_session_that_holds_locks(url: str) -> None:
    async with connected(url) as connection:
        await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )


async def test_who_loses_its_threads_with_their_session_is_told_and_can_take_them_again(
    store: Store, database_url: str
) -> None:
    async with store.thread_locks() as locks, store.thread_locks() as other:
        lost = asyncio.Event()
        locks.on_loss = lost.set
        assert await locks.take("t")
        await end_session_that_holds_locks(database_url)
        await asyncio.wait_for(lost.wait(), DEADLINE)
        await locks.release("t")  # as whoever held it will; it does no harm
        assert await locks.take("t")
        assert not await other.take("t")
        await locks.release("t")
        assert await other.take("t")


async def test_who_gives_up_a_session_that_does_not_answer_is_told_that_its_threads_are_lost(
    store: Store, database_url: str
) -> None:
    locks = ThreadLocks(database_url, command_timeout=0.2)
    lost = asyncio.Event()
    locks.on_loss = lost.set
    try:
        assert await locks.take("t")
        async with connected(database_url) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_lock(hashtextextended('sleep', 0))")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("m3.store.postgres.query", lambda _: "SELECT pg_advisory_lock(hashtextextended($1, 0))")
                with pytest.raises(StoreUnavailable):
                    await locks.take("sleep")
        await asyncio.wait_for(lost.wait(), DEADLINE)
        await locks.release("t")
        await until(lambda: locks.take("t"))
    finally:
        locks.close()


async def test_who_gives_a_thread_back_has_lost_nothing(store: Store) -> None:
    async with store.thread_locks() as locks:
        lost = asyncio.Event()
        locks.on_loss = lost.set
        assert await locks.take("t")
        await locks.release("t")
    await asyncio.sleep(0)  # a session that ended would be told of now
    assert not lost.is_set()


# ---- Migrations


async def test_what_was_recorded_before_a_migration_is_there_after_it(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(migrations())

    def first_two() -> Iterator[Migration]:
        yield from every[:2]

    with monkeypatch.context() as patch:
        patch.setattr("m3.store.postgres.migrations", first_two)
        await migrate(empty_database_url)
    ids = [uuid7() for _ in range(4)]
    async with connected(empty_database_url) as connection:
        await connection.execute("INSERT INTO threads (thread_id, head) VALUES ('t', 5)")
        await connection.executemany(
            """
            INSERT INTO dialogue
                (thread_id, role, content, source, interface, message_id, seq, rev, origin, fate, reply_id, reason)
            VALUES ('t', $1, $2, $3, 'http_api', $4, $5, $6, 'gateway.1', $7, $8, $9)
            """,
            [
                ("user", "answered", "user", ids[0], 1, 1, "answered", ids[3], None),
                ("user", "failed", "api", ids[1], 2, 5, "failed", None, "No model."),
                ("user", "waiting", "user", ids[2], 3, 3, "pending", None, None),
                ("assistant", "reply", "assistant", ids[3], 4, 4, None, None, None),
            ],
        )
    await migrate(empty_database_url)
    async with open_store(empty_database_url, pool_size=2) as store:
        answered, failed, waiting, reply = await store.latest("t", 10)
        assert [message.cancelled for message in (answered, failed, waiting, reply)] == [False] * 4
        assert (answered.fate, answered.reply_id, answered.reply_seq) == ("answered", ids[3], 4)
        assert (failed.fate, failed.rev, failed.reason) == ("failed", 5, "No model.")
        assert [one.message for one in (await store.mailbox("t", 10)).waiting] == [waiting]
        context = await store.context([waiting], 10)
        assert [message.content for message in context] == ["answered", "reply", "failed"]
        assert (await settle(store, retry(failed))).rev == 6
        assert (await settle(store, passing_over(waiting, fate="cancelled", turn=a_turn()))).rev == 7
        assert await store.summary("t") is None


async def test_no_message_has_a_fate_that_the_protocol_does_not_know(store: Store, database_url: str) -> None:
    asked = await record_one(store, said())
    async with connected(database_url) as connection:
        for fate in get_args(Fate):
            await connection.execute("UPDATE dialogue SET fate = $1 WHERE message_id = $2", fate, asked.message_id)
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("UPDATE dialogue SET fate = 'lost'")


async def test_processes_that_migrate_at_once_migrate_once(empty_database_url: str) -> None:
    await asyncio.gather(*(migrate(empty_database_url) for _ in range(5)))
    async with open_store(empty_database_url, pool_size=2) as store:
        assert (await record_one(store, said())).seq == 1


async def test_a_migration_changed_after_it_was_applied_is_refused(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE schema_migrations SET checksum = 'another'")
    await connection.close()
    with pytest.raises(StartError, match="0001"):
        await migrate(database_url)


async def test_a_database_that_is_away_is_told_as_such() -> None:
    async with open_store("postgresql://127.0.0.1:1/room", pool_size=2) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        with pytest.raises(StoreUnavailable):
            await store.message(uuid7())
        async with store.thread_locks() as locks:
            with pytest.raises(StoreUnavailable):
                await locks.take("t")


async def test_a_database_that_will_not_have_us_is_a_reason_not_to_start(database_url: str) -> None:
    with pytest.raises(StartError, match="no_such_database"):
        await migrate(database_url.replace("/room_", "/no_such_database_"))
    with pytest.raises(StartError, match="DATABASE_URL"):
        await migrate("mysql://root@127.0.0.1/room")


async def test_a_retry_that_is_told_twice_is_one_retry(store: Store) -> None:
    asked = await record_one(store, said())
    failed = await settle(store, failure(asked, turn=a_turn()))
    again = retry(asked).model_copy(update={"rev": failed.rev})
    assert (await settle(store, again)).fate == "pending"
    await settle(store, failure(asked, turn=a_turn()))
    assert (await settle(store, again)).fate == "failed"


async def test_the_session_that_holds_threads_gives_up_before_the_server_does(database_url: str) -> None:
    async with open_store(database_url, pool_size=2, command_timeout=600) as patient, patient.thread_locks() as locks:
        assert locks._command_timeout + postgres.LEASE / 3 < postgres.LEASE
