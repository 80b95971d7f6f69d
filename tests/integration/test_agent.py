"""The agent beside a recorder and an accepting process, on a real PostgreSQL and a real model server.

Both buses where the bus matters. Agents sweep once, at their start, unless a test says otherwise: what is answered
later was brought by a knock.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from m3 import topology
from m3.bus import Bus, Delivery
from m3.errors import BusUnavailable, StoreUnavailable, Unstorable
from m3.events import (
    Incoming,
    MessageAccepted,
    MessageRecorded,
    OutsideSource,
    decode,
    encode,
    reply_id,
)
from m3.settings import Settings
from m3.store import Record, Store, ThreadLocks
from m3.threads import ThreadSettings
from m3.topology import AGENT_USER, CHAT_DEAD, DEAD, Route
from services.agent.conversation import THREE_PARTIES
from services.agent.spoken import MAX_REPLY
from services.recorder import recorder
from tests.support.answering import KEY, PROMPT, Agents, accepted, repeats, running_agents, spoken, visited, work
from tests.support.scripted_model import (
    Behaviour,
    answers,
    holds,
    keeps_silent,
    prompt,
    says,
    scripted_model,
)
from tests.support.until import DEADLINE, until

#: Nobody listens there.
NO_DATABASE = "postgresql://127.0.0.1:1/room"
SOURCES: tuple[OutsideSource, ...] = ("user", "api")


# ---- One message and its reply


async def test_a_message_gets_its_reply_recorded_as_an_answer_to_it(bus: Bus, store: Store, agents: Agents) -> None:
    async with scripted_model(lambda _: says("hello")) as model, visited(bus, store) as visitor, agents(bus, model):
        asked = await visitor.ask("hi")
        assert asked.reply_id == reply_id(asked.message_id)
        reply = await store.message(asked.reply_id)
        assert reply
        assert (asked.fate, asked.seq, asked.reply_seq, asked.reason) == ("answered", 1, 2, None)
        assert (reply.content, reply.seq, reply.role, reply.source) == ("hello", 2, "assistant", "assistant")
        assert (reply.in_reply_to, reply.fate, reply.interface) == ((asked.message_id,), None, asked.interface)


async def test_people_and_programs_are_both_answered(bus: Bus, store: Store, agents: Agents) -> None:
    async with scripted_model(repeats) as model, visited(bus, store) as visitor, agents(bus, model):
        for source in ("user", "api"):
            asked = await visitor.ask("hi", thread_id=f"of-{source}", source=source)
            assert asked.fate == "answered"
            assert await spoken(store, f"of-{source}") == ["hi", f"heard [{source}] hi"]


async def test_the_server_is_asked_for_the_model_of_the_settings_with_their_key(
    memory_bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    async with (
        scripted_model(repeats) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        assert (await visitor.ask("hi")).fate == "answered"
        (asked,) = model.asked
        assert asked.path == "/v1/chat/completions"
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert asked.body["model"] == "scripted"


async def test_a_doubled_knock_costs_no_second_turn(bus: Bus, store: Store, agents: Agents) -> None:
    async with scripted_model(repeats) as model, visited(bus, store) as visitor, agents(bus, model):
        asked = await visitor.ask("once")
        await bus.publish(topology.announced("user", "thread"), encode([MessageRecorded(message=asked)]))
        await visitor.ask("and then")
        assert model.prompts == ["[user] once", "[user] and then"]


# ---- Order


async def test_three_agents_answer_one_thread_in_order_and_one_message_at_a_time(
    bus: Bus, store: Store, agents: Agents
) -> None:
    texts = [f"message {number}" for number in range(12)]
    all_said = asyncio.Event()
    script = lambda body: holds(all_said, repeats(body))  # noqa: E731  # a script reads best in its test
    async with (
        scripted_model(script) as model,
        visited(bus, store) as visitor,
        agents(bus, model, count=3),
    ):
        said = [await visitor.say(text) for text in texts]
        all_said.set()
        outcomes = [await visitor.outcome(message_id) for message_id in said]
        assert {outcome.fate for outcome in outcomes} == {"answered"}
        assert [outcome.reply_seq for outcome in outcomes] == list(range(13, 25))
        assert [text.partition("] ")[2] for text in model.prompts] == texts
        assert model.most_at_once == 1


async def test_threads_are_answered_side_by_side(bus: Bus, store: Store, agents: Agents) -> None:
    both = asyncio.Event()
    script = lambda body: holds(both, repeats(body))  # noqa: E731  # as above
    async with scripted_model(script) as model, visited(bus, store) as visitor, agents(bus, model):
        said = [await visitor.say("hi", thread_id=thread_id) for thread_id in ("one", "other")]
        await until(lambda: len(model.asked) == 2)  # neither has its answer yet
        both.set()
        assert [(await visitor.outcome(message_id)).fate for message_id in said] == ["answered", "answered"]


async def test_an_agent_runs_no_more_turns_at_once_than_it_is_set_to(bus: Bus, store: Store, agents: Agents) -> None:
    full = asyncio.Event()
    script = lambda body: holds(full, repeats(body))  # noqa: E731  # as above
    async with (
        scripted_model(script) as model,
        visited(bus, store) as visitor,
        agents(bus, model, agent_concurrency=2),
    ):
        said = [
            await visitor.say("hi", thread_id=f"thread-{number}", source="api" if number % 2 else "user")
            for number in range(8)
        ]
        await until(lambda: len(model.asked) == 2)
        full.set()
        assert {(await visitor.outcome(message_id)).fate for message_id in said} == {"answered"}
        assert model.most_at_once == 2


async def test_messages_that_pile_up_during_a_turn_are_answered_one_by_one_and_not_shown_before_their_turn(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    piled_up = asyncio.Event()
    script = lambda body: holds(piled_up, repeats(body))  # noqa: E731  # as above
    async with (
        scripted_model(script) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        first = await visitor.say("first")
        await until(lambda: len(model.asked) == 1)
        second, third = await visitor.say("second"), await visitor.say("third")
        piled_up.set()
        for message_id in (first, second, third):
            assert (await visitor.outcome(message_id)).fate == "answered"
        assert [asked.chat[1:] for asked in model.asked] == [
            [("user", "[user] first")],
            [("user", "[user] first"), ("assistant", "heard [user] first"), ("user", "[user] second")],
            [
                ("user", "[user] first"),
                ("assistant", "heard [user] first"),
                ("user", "[user] second"),
                ("assistant", "heard [user] second"),
                ("user", "[user] third"),
            ],
        ]
        assert await spoken(store) == [
            "first",
            "second",
            "third",
            "heard [user] first",
            "heard [user] second",
            "heard [user] third",
        ]


# ---- What the model is shown


async def test_the_model_is_shown_the_system_prompt_and_who_said_what(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    async with (
        scripted_model(lambda _: says("I see")) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        await visitor.ask("from a person")
        await visitor.ask("[user] from a program", source="api")
        await visitor.ask("not shown", thread_id="another")
        await visitor.ask("again", source="user")
        assert model.asked[-1].chat == [
            ("system", f"{PROMPT}\n\n{THREE_PARTIES}"),
            ("user", "[user] from a person"),
            ("assistant", "I see"),
            ("user", "[api] [user] from a program"),
            ("assistant", "I see"),
            ("user", "[user] again"),
        ]


@pytest.mark.parametrize("limit", [0, 2])
async def test_the_model_is_shown_no_more_earlier_messages_than_it_is_set_to(
    memory_bus: Bus, store: Store, agents: Agents, limit: int
) -> None:
    async with (
        scripted_model(repeats) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, context_messages=limit),
    ):
        for number in range(5):
            await visitor.ask(f"message {number}")
        assert [text for _, text in model.asked[-1].chat[1:]] == [
            *["[user] message 2", "heard [user] message 2", "[user] message 3", "heard [user] message 3"][: 2 * limit],
            "[user] message 4",
        ]


# ---- When the model fails


async def test_a_failure_is_told_with_its_reason_and_the_thread_goes_on(bus: Bus, store: Store, agents: Agents) -> None:
    def script(body: dict[str, Any]) -> Behaviour:
        return answers('{"error": {"message": "overloaded"}}', 500) if "bad luck" in prompt(body) else repeats(body)

    async with scripted_model(script) as model, visited(bus, store) as visitor, agents(bus, model, llm_attempts=2):
        failed, next_one = await visitor.say("bad luck"), await visitor.say("better luck")
        outcome = await visitor.outcome(failed)
        assert (outcome.fate, outcome.reply_id) == ("failed", None)
        assert outcome.reason == "The model's server answered with status 500."
        assert (await visitor.outcome(next_one)).fate == "answered"
        assert len(model.asked) == 3  # the attempts at the first, and the next one
        assert [text for _, text in model.asked[-1].chat[1:]] == ["[user] bad luck", "[user] better luck"]


# ---- What becomes of a reply's text


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        pytest.param("a\x00b", "ab", id="NUL"),
        pytest.param("half a \ud83d pair", "half a ? pair", id="lone surrogate"),
        pytest.param("\n 你好 🐈 \n", "你好 🐈", id="blanks around"),
        pytest.param("x" * (MAX_REPLY + 1), "x" * MAX_REPLY, id="too long"),
    ],
)
async def test_a_reply_is_recorded_as_the_database_can_keep_it(
    memory_bus: Bus, store: Store, agents: Agents, said: str, kept: str
) -> None:
    async with (
        scripted_model(lambda _: says(said)) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        assert (await visitor.ask("hi")).fate == "answered"
        assert await spoken(store) == ["hi", kept]


# ---- Agents that come and go


async def test_what_an_agent_left_in_the_middle_of_a_turn_is_answered_by_another_once(
    bus: Bus, store: Store, agents: Agents
) -> None:
    never = asyncio.Event()
    async with (
        scripted_model(lambda _: keeps_silent()) as stuck,
        scripted_model(repeats) as willing,
        visited(bus, store) as visitor,
        asyncio.TaskGroup() as group,
    ):
        stopped = group.create_task(work(agents(bus, stuck), never))
        said = await visitor.say("hi")
        await until(lambda: len(stuck.asked) == 1)
        stopped.cancel()
        await asyncio.wait([stopped])
        left = await store.message(said)
        assert left
        assert left.fate == "pending"

        other = group.create_task(work(agents(bus, willing), never))
        assert (await visitor.outcome(said)).fate == "answered"
        assert await spoken(store) == ["hi", "heard [user] hi"]
        other.cancel()


async def test_the_knock_of_an_agent_that_left_goes_to_one_that_is_there(
    bus: Bus, store: Store, agents: Agents
) -> None:
    never = asyncio.Event()
    released = asyncio.Event()
    script = lambda body: holds(released, repeats(body))  # noqa: E731  # as above
    async with (
        scripted_model(script) as one,
        scripted_model(script) as other,
        visited(bus, store) as visitor,
        asyncio.TaskGroup() as group,
    ):
        workers = {model.url: group.create_task(work(agents(bus, model), never)) for model in (one, other)}
        await until(lambda: [task.get_name() for task in asyncio.all_tasks()].count("agent sweep") == 2)  # both run
        filling = [await visitor.say("hi", thread_id=f"thread-{number}") for number in range(10)]
        said = await visitor.say("whose will it be?")
        await until(lambda: "[user] whose will it be?" in one.prompts + other.prompts)
        leaver, stayer = (one, other) if "[user] whose will it be?" in one.prompts else (other, one)
        workers[leaver.url].cancel()
        await asyncio.wait([workers[leaver.url]])
        released.set()
        for message_id in (said, *filling):
            assert (await visitor.outcome(message_id)).fate == "answered"
        assert "[user] whose will it be?" in stayer.prompts
        assert len(await spoken(store)) == 2
        workers[stayer.url].cancel()


async def test_what_was_recorded_without_a_knock_is_found_at_the_start(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    waiting = [accepted("one", "a"), accepted("two", "a"), accepted("three", "b", "api")]
    await store.record(waiting)
    async with scripted_model(repeats) as model, recorder(memory_bus, store, grace=DEADLINE), agents(memory_bus, model):
        await until(lambda: _all_answered(store, waiting))
        assert await spoken(store, "a") == ["one", "two", "heard [user] one", "heard [user] two"]
        assert await spoken(store, "b") == ["three", "heard [api] three"]


async def test_what_was_recorded_without_a_knock_is_found_by_a_later_look(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    async with (
        scripted_model(repeats) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, sweep_interval=0.1),
    ):
        await visitor.ask("hi")  # the agent is past its start
        unheard = accepted("unheard", "another")
        await store.record([unheard])
        await until(lambda: _all_answered(store, [unheard]))
        assert await spoken(store, "another") == ["unheard", "heard [user] unheard"]


async def test_a_reply_that_nobody_records_is_handed_in_until_somebody_does_and_thought_of_once(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    waiting = accepted("hi")
    await store.record([waiting])
    async with scripted_model(repeats) as model, memory_bus.consume(topology.RECORDER, prefetch=10) as nobody:
        async with agents(memory_bus, model, record_timeout=0.05):
            for _ in range(3):
                await nobody.ack(await nobody.take(1))  # lost
            async with recorder(memory_bus, store, grace=DEADLINE):
                await until(lambda: _all_answered(store, [waiting]))
        assert model.prompts == ["[user] hi"]
        assert await spoken(store) == ["hi", "heard [user] hi"]


async def test_an_agent_that_loses_its_threads_breaks_their_turns_off_for_whoever_takes_them_next(
    bus: Bus, store: Store, agents: Agents, database_url: str
) -> None:
    def script(_: dict[str, Any]) -> Behaviour:
        return keeps_silent() if len(model.asked) == 1 else says("hello")

    async with scripted_model(script) as model, visited(bus, store) as visitor, agents(bus, model, count=2):
        said = await visitor.say("hi")
        await until(lambda: len(model.asked) == 1)
        await _end_lock_sessions(database_url)
        assert (await visitor.outcome(said)).fate == "answered"
        assert (model.broken_off, len(model.asked), model.most_at_once) == (1, 2, 1)
        assert await spoken(store) == ["hi", "hello"]


async def test_two_agents_that_both_answered_leave_one_reply(
    memory_bus: Bus, store: Store, agents: Agents, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.threads.Threads._drop_lost", lambda _: None)  # as one that stands still
    released = asyncio.Event()
    async with (
        scripted_model(lambda _: holds(released, says("from the first"))) as first,
        scripted_model(lambda body: says(f"from the second to {prompt(body)}")) as second,
        visited(memory_bus, store) as visitor,
    ):
        async with agents(memory_bus, first, agent_concurrency=1):  # it takes no second knock
            said = await visitor.say("hi")
            await until(lambda: len(first.asked) == 1)
            await _end_lock_sessions(database_url)  # the thread is free though the first agent is at it
            async with agents(memory_bus, second):
                await memory_bus.publish(topology.knocked("user", "thread"), encode([]))
                assert (await visitor.outcome(said)).fate == "answered"
            released.set()
            assert (await visitor.ask("go on")).fate == "answered"
            assert first.prompts == ["[user] hi", "[user] go on"]
        assert await spoken(store) == ["hi", "from the second to [user] hi", "go on", "from the first"]


# ---- Outcomes that are not recorded


class Particular(Store):
    """As a database that refuses one reply for good."""

    async def record(self, events: Sequence[Incoming]) -> Record:
        if any(isinstance(event, MessageAccepted) and event.content == "heard [user] one" for event in events):
            raise Unstorable("not that")
        return await super().record(events)


async def test_a_reply_that_cannot_be_recorded_fails_its_turn_and_the_thread_goes_on(
    bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.settling.SETTLE_TIMEOUT", 1)
    async with (
        scripted_model(repeats) as model,
        visited(bus, Particular(store._pool, store._url)) as visitor,
        agents(bus, model, record_timeout=0.3),
    ):
        refused = await visitor.ask("one")
        assert (refused.fate, refused.reason) == ("failed", "The reply could not be recorded.")
        assert (await visitor.ask("two")).fate == "answered"
        assert model.prompts == ["[user] one", "[user] two"]


async def test_no_reply_is_given_up_while_the_database_is_away(
    memory_bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Store) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr("services.agent.settling.SETTLE_TIMEOUT", 0.01)
    waiting = accepted("hi")
    await store.record([waiting])
    async with scripted_model(repeats) as model, memory_bus.consume(topology.RECORDER, prefetch=10) as nobody:
        with monkeypatch.context() as outage:
            outage.setattr(Store, "ping", away)
            async with agents(memory_bus, model, record_timeout=0.02):
                for _ in range(5):  # handed in again and again
                    (handed_in,) = await nobody.take(1)
                    (outcome,) = decode(handed_in.body)
                    assert isinstance(outcome, MessageAccepted)
                    await nobody.ack([handed_in])
                async with recorder(memory_bus, store, grace=DEADLINE):
                    await until(lambda: _all_answered(store, [waiting]))
        assert model.prompts == ["[user] hi"]


async def test_a_thread_whose_outcome_nobody_records_is_let_go_and_taken_up_again(
    memory_bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.settling.SETTLE_TIMEOUT", 0.01)
    waiting = accepted("hi")
    await store.record([waiting])
    async with (
        scripted_model(repeats) as model,
        memory_bus.consume(topology.RECORDER, prefetch=100) as nobody,
        agents(memory_bus, model, record_timeout=0.01),
    ):
        await until(lambda: len(model.asked) == 2)
        kinds = [event.type for delivery in await nobody.take(2) for event in decode(delivery.body)]
        assert kinds == ["message_accepted", "turn_failed"]
        nobody.stop()
        async with recorder(memory_bus, store, grace=DEADLINE):
            await until(lambda: _is_settled(store, waiting))


# ---- Agents that stop, and threads that never fall quiet


async def test_a_turn_that_runs_at_the_stop_is_finished(bus: Bus, store: Store, agents: Agents) -> None:
    over, released = asyncio.Event(), asyncio.Event()
    script = lambda body: holds(released, repeats(body))  # noqa: E731  # as above
    async with scripted_model(script) as model, visited(bus, store) as visitor, asyncio.TaskGroup() as group:
        leaving = group.create_task(work(agents(bus, model), over))
        said = await visitor.say("hi")
        await until(lambda: len(model.asked) == 1)
        over.set()
        await until(_is_stopping)
        released.set()
        await leaving
        assert [message.fate for message in await store.latest("thread", 2)] == ["answered", None]
        assert (await visitor.outcome(said)).fate == "answered"


async def test_a_turn_that_ends_late_in_a_stop_is_recorded_before_another_agent_looks(
    bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Store.record

    async def slow(self: Store, events: Sequence[Incoming]) -> Record:
        await asyncio.sleep(0.1)
        return await record(self, events)

    monkeypatch.setattr(Store, "record", slow)
    over, released = asyncio.Event(), asyncio.Event()
    script = lambda body: holds(released, repeats(body))  # noqa: E731  # as above
    async with scripted_model(script) as model, visited(bus, store) as visitor, asyncio.TaskGroup() as group:
        leaving = group.create_task(work(agents(bus, model, record_timeout=0.4), over))
        said = await visitor.say("hi")
        await until(lambda: len(model.asked) == 1)
        over.set()
        await until(_is_stopping)
        async with agents(bus, model):
            now = asyncio.get_running_loop().time
            late = now() + 0.6  # when it has stopped for longer than it waits for one record
            await until(lambda: now() > late)
            released.set()
            await leaving
            assert (await visitor.outcome(said)).fate == "answered"
            assert (await visitor.ask("and then")).fate == "answered"
        assert model.prompts == ["[user] hi", "[user] and then"]


async def test_an_agent_that_stops_without_a_recorder_does_not_pass_the_same_over_again_and_again(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    await store.record([accepted("hi")])
    await store.change_settings("thread", ThreadSettings(pause="ignore"))
    over = asyncio.Event()
    async with (
        scripted_model(repeats) as model,
        memory_bus.consume(topology.RECORDER, prefetch=1000) as nobody,
        asyncio.TaskGroup() as group,
    ):
        leaving = group.create_task(work(agents(memory_bus, model, record_timeout=0.2), over))
        assert len(await nobody.take(1)) == 1
        over.set()
        await leaving
        nobody.stop()
        assert len(await nobody.take(1000)) <= 3


async def test_what_an_agent_that_stops_does_not_begin_is_answered_by_another_at_once(
    bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it fetched and has no place for, what it never fetched, and what came in its thread meanwhile."""
    monkeypatch.setattr("services.agent.worker._Worker.sweep", lambda *_: asyncio.Event().wait())
    over, released = asyncio.Event(), asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as busy,
        scripted_model(repeats) as willing,
        visited(bus, store) as visitor,
        asyncio.TaskGroup() as group,
    ):
        leaving = group.create_task(work(agents(bus, busy, agent_concurrency=1), over))
        begun = await visitor.say("begun")
        await until(lambda: len(busy.asked) == 1)
        elsewhere = [await visitor.say("hi", f"{source}-{number}", source) for source in SOURCES for number in range(3)]
        later = await visitor.say("later")
        over.set()
        await until(_is_stopping)
        async with agents(bus, willing):
            for message_id in elsewhere:
                assert (await visitor.outcome(message_id)).fate == "answered"
            assert not leaving.done()
            released.set()
            assert (await visitor.outcome(begun)).fate == "answered"
            assert (await visitor.outcome(later)).fate == "answered"
            await leaving
        assert busy.prompts == ["[user] begun"]
        assert sorted(willing.prompts) == sorted(["[user] hi"] * 3 + ["[api] hi"] * 3 + ["[user] later"])
        assert await spoken(store) == ["begun", "later", "heard [user] begun", "heard [user] later"]


async def test_a_turn_that_does_not_end_within_the_grace_goes_to_another(
    bus: Bus, store: Store, agents: Agents
) -> None:
    over = asyncio.Event()
    async with (
        scripted_model(lambda _: keeps_silent()) as stuck,
        scripted_model(repeats) as willing,
        visited(bus, store) as visitor,
        asyncio.TaskGroup() as group,
    ):
        leaving = group.create_task(work(agents(bus, stuck, grace=0.1), over))
        said = await visitor.say("hi")
        await until(lambda: len(stuck.asked) == 1)
        over.set()
        await asyncio.wait_for(leaving, DEADLINE)
        async with agents(bus, willing):
            assert (await visitor.outcome(said)).fate == "answered"
        assert await spoken(store) == ["hi", "heard [user] hi"]


async def test_a_stop_waits_no_longer_than_its_grace_for_a_silent_database(
    memory_bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: ThreadLocks, __: str, *___: str) -> bool:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    over = asyncio.Event()
    async with (
        scripted_model(lambda _: keeps_silent()) as stuck,
        visited(memory_bus, store) as visitor,
        asyncio.TaskGroup() as group,
    ):
        leaving = group.create_task(work(agents(memory_bus, stuck, grace=0.1), over))
        await visitor.say("hi")
        await until(lambda: len(stuck.asked) == 1)
        monkeypatch.setattr(ThreadLocks, "_ask", silent)
        over.set()
        await asyncio.wait_for(leaving, DEADLINE)


async def test_agents_that_are_stopped_again_and_again_hand_their_knocks_on_and_none_counts_as_failed(
    bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More often than the delivery limit, each time with a full prefetch; what they lack to begin is a database."""
    monkeypatch.setattr("services.agent.threads.RETRY_INTERVAL", 0.01)
    prefetch = Settings().agent_concurrency
    async with scripted_model(repeats) as model, visited(bus, store) as visitor:
        said = [await visitor.say("hi", thread_id=f"thread-{number}") for number in range(prefetch)]
        for _ in range(10):
            async with running_agents(NO_DATABASE, bus, model):
                await until(lambda: _knocks() == prefetch)
        knocks = await _waiting_knocks(bus, prefetch)
        assert {knock.key for knock in knocks} == {f"user.thread-{number}" for number in range(prefetch)}
        assert not any(knock.redelivered for knock in knocks)
        async with agents(bus, model):
            for message_id in said:
                assert (await visitor.outcome(message_id)).fate == "answered"
    await bus.publish(Route(CHAT_DEAD.name, "", must_arrive=True), b"the first")
    async with bus.consume(DEAD, prefetch=1) as dead:
        assert [letter.body for letter in await dead.take(1)] == [b"the first"]


async def test_a_knock_that_cannot_be_handed_on_at_the_stop_comes_again(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Route, __: bytes) -> None:
        raise BusUnavailable("away")

    publish = bus.publish
    async with scripted_model(repeats) as model, visited(bus, store) as visitor:
        await visitor.say("hi")
        async with running_agents(NO_DATABASE, bus, model):
            await until(lambda: _knocks() == 1)
            monkeypatch.setattr(bus, "publish", away)
    monkeypatch.setattr(bus, "publish", publish)
    assert [knock.redelivered for knock in await _waiting_knocks(bus, 1)] == [True]


async def test_a_thread_that_does_not_fall_quiet_lets_others_have_their_turn(
    bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.threads.MAX_HOLD", 0.1)

    def takes_its_time(body: dict[str, Any]) -> Behaviour:
        async def behave(writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.15)
            await repeats(body)(writer)

        return behave

    busy, quiet = [accepted(f"busy {number}", "busy") for number in range(3)], accepted("quiet", "quiet")
    await store.record([*busy, quiet])
    async with (
        scripted_model(takes_its_time) as model,
        recorder(bus, store, grace=DEADLINE),
        agents(bus, model, agent_concurrency=1),
    ):
        await until(lambda: _all_answered(store, [*busy, quiet]))
        assert model.prompts.index("[user] quiet") < model.prompts.index("[user] busy 2")
        assert len(model.prompts) == 4


async def _all_answered(store: Store, messages: list[MessageAccepted]) -> bool:
    found = [await store.message(message.message_id) for message in messages]
    return all(message and message.fate == "answered" for message in found)


async def _is_settled(store: Store, message: MessageAccepted) -> bool:
    found = await store.message(message.message_id)
    return found is not None and found.fate != "pending"


async def _waiting_knocks(bus: Bus, count: int) -> list[Delivery]:
    """So many knocks from the queue, to which they go back."""
    knocks: list[Delivery] = []
    async with bus.consume(AGENT_USER, prefetch=count) as looker, asyncio.timeout(DEADLINE):
        while len(knocks) < count:
            knocks += await looker.take(count)
    return knocks


def _is_stopping() -> bool:
    """Whether the agent of this process has begun to stop: first of all it sweeps no more."""
    return "agent sweep" not in {task.get_name() for task in asyncio.all_tasks()}


def _knocks() -> int:
    """How many knocks the agents of this process have in hand."""
    return sum(task.get_name().startswith("knock ") for task in asyncio.all_tasks())


async def _end_lock_sessions(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        ended = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database AS d ON d.oid = database"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        )
        assert ended
    finally:
        await connection.close()
