"""The dialogue table on a real PostgreSQL."""

import asyncio
from itertools import count

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from m3.errors import StartError, StoreUnavailable, Unstorable
from m3.events import Message, MessageAccepted, MessageRecorded, MessageSettled, TurnFailed, reply_id
from m3.store import Store, ThreadLocks, migrate, open_store
from tests.support.until import until

_numbers = count(1)


def said(thread_id: str = "t", content: str = "hello", source: str = "user") -> MessageAccepted:
    return MessageAccepted.model_validate(
        {"thread_id": thread_id, "source": source, "content": content, "interface": "http_api", "origin": "gateway.1"}
    )


def reply_to(message: Message, content: str = "reply") -> MessageAccepted:
    return MessageAccepted(
        message_id=reply_id(message.message_id),
        thread_id=message.thread_id,
        source="assistant",
        content=content,
        interface="http_api",
        origin="agent.1",
        in_reply_to=(message.message_id,),
    )


async def record_one(store: Store, event: MessageAccepted) -> Message:
    return (await store.record([event])).messages[event.message_id]


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
    first = await store.record([reply_to(asked, "first")])
    again = await store.record([reply_to(asked, "second opinion")])
    assert again.messages == first.messages
    assert again.settled == first.settled


async def test_a_failure_is_kept_with_its_reason_and_a_late_reply_mends_it(store: Store) -> None:
    asked = await record_one(store, said())
    gave_up = TurnFailed(thread_id="t", message_ids=(asked.message_id,), reason="No model.", origin="agent.1")
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
    ids = tuple(event.message_id for event in events)
    gave_up = TurnFailed(thread_id="t", message_ids=ids, reason="No model.", origin="agent.1")
    for _ in range(2):
        settled = (await store.record([gave_up, gave_up])).settled
        assert [(message.seq, message.rev) for _, message in settled] == [(1, 4), (2, 5), (3, 6)]
    assert await store.head("t") == 6
    assert [message.seq for message in record.messages.values()] == [1, 2, 3]


async def test_what_happened_after_a_number_is_told_in_the_order_of_numbers(store: Store) -> None:
    one, two = [await record_one(store, said(content=content)) for content in ("one", "two")]
    gave_up = TurnFailed(thread_id="t", message_ids=(one.message_id,), reason="No model.", origin="agent.1")
    ((_, failed),) = (await store.record([gave_up])).settled  # number 3
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


async def test_the_context_holds_each_reply_right_after_what_it_answers(store: Store) -> None:
    events = [said(content=str(number)) for number in range(4)]
    record = await store.record(events)
    asked = [record.messages[event.message_id] for event in events]
    for message in asked[:2]:
        await store.record([reply_to(message, f"re {message.content}")])
    waiting = await store.next_pending("t")
    assert waiting == asked[2]
    assert [m.content for m in await store.context(asked[2], 10)] == ["0", "re 0", "1", "re 1"]
    assert [m.content for m in await store.context(asked[2], 1)] == ["1", "re 1"]
    assert await store.context(asked[0], 10) == []


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


async def test_waiting_threads_are_those_with_an_old_pending_message(store: Store) -> None:
    asked = await record_one(store, said("a"))
    await record_one(store, said("b"))
    await store.record([reply_to(asked)])
    assert await store.waiting_threads(older_than=0) == ["b"]
    assert await store.waiting_threads(older_than=60) == []


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
