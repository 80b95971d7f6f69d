"""What an agent does beyond answering one message after the other: it speaks as it thinks, can be stopped, has lanes and
policies, bears floods, and can be paused."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from m3 import topology
from m3.bus import Bus, Subscription
from m3.events import (
    CancelAsked,
    Incoming,
    Message,
    MessageRecorded,
    ReplyGrew,
    RetellingAsked,
    RetryAsked,
    TurnEnded,
    TurnNews,
    TurnStarted,
    decode,
    encode,
    reply_id,
)
from m3.store import Record, Store
from m3.tasks import background
from m3.threads import ThreadSettings
from tests.support.answering import Agents, accepted, repeats, spoken, visited
from tests.support.proxy import frail_bus
from tests.support.scripted_model import (
    Behaviour,
    answers,
    holds,
    in_turn,
    keeps_silent,
    prompt,
    says,
    scripted_model,
    streams,
    streams_and_breaks_off,
    streams_until,
)
from tests.support.until import DEADLINE, until


class Watcher:
    """Reads along in a thread as a pusher does."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.news: list[TurnNews] = []

    async def until_ended(self, times: int = 1) -> list[TurnNews]:
        """All that turns told, until so many have ended."""
        await self._hear_until(lambda: sum(isinstance(news, TurnEnded) for news in self.news) >= times)
        return self.news

    async def until_said(self, text: str) -> None:
        """Until the pieces of the reply are this text."""
        await self._hear_until(lambda: self.text == text)

    async def _hear_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                for body in await self._subscription.take(1):
                    self.news += [event for event in decode(body) if isinstance(event, TurnNews)]

    @property
    def text(self) -> str:
        return "".join(news.text for news in self.news if isinstance(news, ReplyGrew))


@asynccontextmanager
async def watching(bus: Bus, thread_id: str = "thread") -> AsyncIterator[Watcher]:
    async with bus.subscribe("watcher") as subscription:
        await subscription.bind(topology.CHAT_OUT, f"turn.{thread_id}")
        yield Watcher(subscription)


async def cancel(bus: Bus, thread_id: str = "thread") -> None:
    await bus.publish(topology.asked_to_cancel(thread_id), encode([CancelAsked(thread_id=thread_id)]))


async def fates(store: Store, thread_id: str = "thread") -> list[tuple[str, str | None]]:
    return [(message.content, message.fate) for message in await store.latest(thread_id, 1000) if message.fate]


# ---- It speaks as it thinks


async def test_a_turn_is_told_while_it_runs_from_its_start_over_its_text_to_its_end(
    bus: Bus, store: Store, agents: Agents
) -> None:
    script = streams("Hello", ", ", "you ", "there", pause=0.03)
    async with (
        scripted_model(lambda _: script) as model,
        visited(bus, store) as visitor,
        watching(bus) as watcher,
        agents(bus, model),
    ):
        asked = await visitor.ask("hi")
        started, *grown, ended = await watcher.until_ended()
        assert isinstance(started, TurnStarted)
        assert started.in_reply_to == (asked.message_id,)
        assert started.reply_id == reply_id(asked.message_id) == asked.reply_id
        assert [news.index for news in grown if isinstance(news, ReplyGrew)] == list(range(len(grown)))
        assert watcher.text == "Hello, you there" == (await spoken(store))[-1]
        assert len(grown) > 1
        assert isinstance(ended, TurnEnded)
        assert (ended.outcome, ended.reason) == ("answered", None)
        assert {news.turn_id for news in watcher.news} == {started.turn_id}
        assert {news.reply_id for news in watcher.news} == {started.reply_id}


async def test_the_first_words_are_told_before_the_model_has_said_more(bus: Bus, store: Store, agents: Agents) -> None:
    more = asyncio.Event()
    async with (
        scripted_model(lambda _: streams_until(more, "Well")) as model,
        visited(bus, store) as visitor,
        watching(bus) as watcher,
        agents(bus, model),
    ):
        said = await visitor.say("hi")
        await watcher.until_said("Well")
        more.set()
        assert (await visitor.outcome(said)).fate == "answered"


async def test_a_reply_that_broke_off_is_begun_anew_and_told_so(memory_bus: Bus, store: Store, agents: Agents) -> None:
    script = in_turn(streams_and_breaks_off("Once upon"), streams("Anew"))
    async with (
        scripted_model(script) as model,
        visited(memory_bus, store) as visitor,
        watching(memory_bus) as watcher,
        agents(memory_bus, model),
    ):
        await visitor.ask("hi")
        news = await watcher.until_ended()
        last_start = max(place for place, one in enumerate(news) if isinstance(one, TurnStarted))
        assert [one.text for one in news[last_start:] if isinstance(one, ReplyGrew)] == ["Anew"]
        assert await spoken(store) == ["hi", "Anew"]


async def test_who_asks_in_the_middle_is_told_the_turn_from_its_start_and_nobody_else_is(
    bus: Bus, store: Store, agents: Agents
) -> None:
    more = asyncio.Event()
    async with (
        scripted_model(lambda _: streams_until(more, "Once ", "upon ", then="a time")) as model,
        visited(bus, store) as visitor,
        watching(bus) as watcher,
        watching(bus, "foreign") as foreign,
        agents(bus, model, count=2),
    ):
        said = await visitor.say("tell me a story")
        await watcher.until_said("Once upon ")
        async with bus.subscribe("late") as subscription:
            late = Watcher(subscription)
            await subscription.bind(topology.CHAT_OUT, "turn.thread")
            for thread_id in ("thread", "foreign"):
                asked = RetellingAsked(thread_id=thread_id, origin=subscription.name)
                await bus.publish(topology.asked_to_retell(thread_id), encode([asked]))
            await late.until_said("Once upon ")
            more.set()
            started, *_, ended = await watcher.until_ended()
            assert isinstance(started, TurnStarted)
            told, *pieces, end = await late.until_ended()
            assert (told, end) == (started.model_copy(update={"again": True}), ended)
            so_far, rest = (one for one in pieces if isinstance(one, ReplyGrew))
            assert (so_far.index, rest.index) == (0, so_far.pieces)
            assert late.text == "Once upon a time" == (await spoken(store))[-1]
            assert (await visitor.outcome(said)).fate == "answered"
            assert not foreign.news


async def test_an_agent_that_lost_the_broker_tells_its_turn_again_to_who_may_have_missed_some(
    rabbit: Bus, broker_url: str, store: Store, agents: Agents
) -> None:
    more = asyncio.Event()
    async with (
        scripted_model(lambda _: streams_until(more, "Once ", "upon ", then="a time")) as model,
        visited(rabbit, store) as visitor,
        watching(rabbit) as watcher,
        frail_bus(broker_url) as (line, frail),
        agents(frail, model),
    ):
        said = await visitor.say("tell me a story")
        await watcher.until_said("Once upon ")
        heard = len(watcher.news)
        line.cut()
        await watcher.until_said("Once upon Once upon ")
        started, *pieces = watcher.news[heard:]
        assert isinstance(started, TurnStarted)
        assert started.again
        assert [one.text for one in pieces if isinstance(one, ReplyGrew)] == ["Once upon "]
        more.set()
        assert (await visitor.outcome(said)).fate == "answered"


async def test_a_failed_turn_tells_its_end_and_the_reason(memory_bus: Bus, store: Store, agents: Agents) -> None:
    async with (
        scripted_model(lambda _: answers("", 401)) as model,
        visited(memory_bus, store) as visitor,
        watching(memory_bus) as watcher,
        agents(memory_bus, model),
    ):
        asked = await visitor.ask("hi")
        ended = (await watcher.until_ended())[-1]
        assert isinstance(ended, TurnEnded)
        assert (ended.outcome, ended.reason) == ("failed", asked.reason)


# ---- It can be stopped


async def test_a_cancelled_turn_is_ended_at_the_model_and_what_was_said_stands_as_the_reply(
    bus: Bus, store: Store, agents: Agents
) -> None:
    async with (
        scripted_model(lambda _: streams_until(asyncio.Event(), "Once ", "upon")) as model,
        visited(bus, store) as visitor,
        watching(bus) as watcher,
        agents(bus, model, count=2),
    ):
        said = await visitor.say("tell me a story")
        await until(lambda: len(model.asked) == 1)
        await watcher.until_said("Once upon")
        await cancel(bus)
        outcome = await visitor.outcome(said)
        await until(lambda: model.broken_off == 1)
        reply = await store.message(reply_id(said))
        assert reply
        assert (outcome.fate, reply.content, reply.cancelled) == ("answered", "Once upon", True)
        ended = (await watcher.until_ended())[-1]
        assert isinstance(ended, TurnEnded)
        assert ended.outcome == "cancelled"


async def test_a_turn_that_is_cancelled_before_a_word_leaves_the_fate_cancelled_and_can_be_had_again(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    async with (
        scripted_model(in_turn(keeps_silent(), says("hello"))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        said = await visitor.say("hi")
        await until(lambda: len(model.asked) == 1)
        await cancel(memory_bus)
        outcome = await visitor.outcome(said)
        assert (outcome.fate, outcome.reply_id) == ("cancelled", None)
        assert outcome.reason
        await visitor.hand_in(RetryAsked(thread_id="thread", message_id=said, origin="nobody"))
        await until(lambda: _has_fate(store, "answered", said))
        assert await spoken(store) == ["hi", "hello"]


async def test_a_cancellation_concerns_the_turn_that_runs_and_nothing_else(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        first, second = await visitor.say("first"), await visitor.say("second")
        elsewhere = await visitor.say("elsewhere", "another")
        await until(lambda: len(model.asked) == 2)
        await cancel(memory_bus)
        await cancel(memory_bus, "where-nothing-runs")
        assert (await visitor.outcome(first)).fate == "cancelled"
        released.set()
        assert (await visitor.outcome(second)).fate == "answered"
        assert (await visitor.outcome(elsewhere)).fate == "answered"


# ---- Lanes and policies


async def test_what_programs_say_during_a_turn_is_answered_together_and_the_reply_names_it_all(
    bus: Bus, store: Store, agents: Agents
) -> None:
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as model,
        visited(bus, store) as visitor,
        agents(bus, model, count=2),
    ):
        first = await visitor.say("first", source="api")
        await until(lambda: len(model.asked) == 1)
        rest = [await visitor.say(f"comment {number}", source="api") for number in range(3)]
        released.set()
        outcomes = [await visitor.outcome(message_id) for message_id in (first, *rest)]
        assert {outcome.fate for outcome in outcomes} == {"answered"}
        assert [text for _, text in model.asked[1].chat[-3:]] == [f"[api] comment {number}" for number in range(3)]
        assert len({outcome.reply_id for outcome in outcomes[1:]}) == 1
        reply = await store.message(reply_id(rest[0]))
        assert reply
        assert reply.in_reply_to == tuple(rest)


async def test_people_come_before_programs_and_programs_get_a_turn_after_some_of_them(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    waiting = [accepted(f"feed {number}", source="api") for number in range(2)]
    waiting += [accepted(f"person {number}") for number in range(4)]
    await store.record(waiting)
    async with (
        scripted_model(repeats) as model,
        visited(memory_bus, store),
        agents(memory_bus, model, user_turns_in_a_row=2, batch_messages=1),
    ):
        await until(lambda: _all_settled(store))
        assert model.prompts == [
            "[user] person 0",
            "[user] person 1",
            "[api] feed 0",
            "[user] person 2",
            "[user] person 3",
            "[api] feed 1",
        ]


async def test_a_person_in_another_thread_does_not_wait_for_programs_that_were_there_before(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, agent_concurrency=1),
    ):
        first = await visitor.say("first", "0", "api")
        await until(lambda: len(model.asked) == 1)
        feeds = [await visitor.say("feed", f"{number}", "api") for number in range(1, 4)]
        person = await visitor.say("person", "of-people")
        await until(lambda: sum(task.get_name().startswith("knock ") for task in asyncio.all_tasks()) >= 2)
        released.set()
        for message_id in (first, *feeds, person):
            assert (await visitor.outcome(message_id)).fate == "answered"
        assert model.prompts.index("[user] person") == 1


async def test_one_place_goes_to_people_first_and_to_programs_after_some_of_them(
    bus: Bus, store: Store, agents: Agents
) -> None:
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as model,
        visited(bus, store) as visitor,
        agents(bus, model, agent_concurrency=1, user_turns_in_a_row=3),
    ):
        first = await visitor.say("first", "first")
        await until(lambda: len(model.asked) == 1)
        said = [await visitor.say("feed", f"feed-{number}", "api") for number in range(4)]
        said += [await visitor.say("person", f"person-{number}") for number in range(9)]
        released.set()
        for message_id in (first, *said):
            assert (await visitor.outcome(message_id)).fate == "answered"
        order = ["api" if "feed" in text else "user" for text in model.prompts[1:]]
        for place, lane in enumerate(order):
            if lane == "user":
                continue
            assert order[:place].count("user") >= min(9, 3 * (order[:place].count("api") + 1))


async def test_a_person_whose_thread_owes_programs_a_turn_does_not_wait_behind_all_programs(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    async with (
        scripted_model(lambda body: streams(prompt(body), pause=0.02)) as model,
        visited(memory_bus, store) as visitor,
    ):
        talk = [await visitor.say(f"talk {number}", "talk") for number in range(4)]
        await store.record([accepted("comment", "talk", "api")])
        said = [await visitor.say("feed", f"feed-{number}", "api") for number in range(30)]
        said += [await visitor.say("person", f"person-{number}") for number in range(10)]
        async with agents(memory_bus, model, agent_concurrency=2):
            for message_id in (*talk, *said):
                assert (await visitor.outcome(message_id)).fate == "answered"
        assert model.prompts.index("[user] talk 3") < 30


async def test_a_new_message_interrupts_the_turn_and_both_are_answered_together(
    bus: Bus, store: Store, agents: Agents
) -> None:
    async with (
        scripted_model(in_turn(streams_until(asyncio.Event(), "Half a"), says("both"))) as model,
        visited(bus, store) as visitor,
        watching(bus) as watcher,
        agents(bus, model, count=2, user_policy="interrupt"),
    ):
        first = await visitor.say("first")
        await until(lambda: len(model.asked) == 1)
        second = await visitor.say("no, wait")
        outcomes = [await visitor.outcome(first), await visitor.outcome(second)]
        assert {outcome.reply_id for outcome in outcomes} == {reply_id(first)}
        assert await spoken(store) == ["first", "no, wait", "both"]
        assert [text for _, text in model.asked[1].chat[1:]] == ["[user] first", "[user] no, wait"]
        ends = [news.outcome for news in await watcher.until_ended(2) if isinstance(news, TurnEnded)]
        assert ends == ["interrupted", "answered"]


async def test_a_message_that_comes_while_a_turn_is_prepared_interrupts_it_too(
    bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, reading, released = Store.context, asyncio.Event(), asyncio.Event()

    async def slow(self: Store, messages: Sequence[Message], limit: int) -> list[Message]:
        reading.set()
        await released.wait()
        return await context(self, messages, limit)

    monkeypatch.setattr(Store, "context", slow)
    async with (
        scripted_model(repeats) as model,
        visited(bus, store) as visitor,
        bus.subscribe("pusher") as pusher,
        agents(bus, model, user_policy="interrupt"),
    ):
        await pusher.bind(topology.CHAT_OUT, topology.every_lane("thread"))
        first = await visitor.say("one")
        await reading.wait()
        second = await visitor.say("two")
        await _until_heard(pusher, second)
        released.set()
        assert {(await visitor.outcome(message_id)).reply_id for message_id in (first, second)} == {reply_id(first)}


async def test_who_never_falls_silent_is_answered_all_the_same(
    memory_bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.threads.MAX_INTERRUPTED", 0.0)
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, user_policy="interrupt"),
    ):
        first = await visitor.say("first")
        await until(lambda: len(model.asked) == 1)
        second = await visitor.say("second")
        released.set()
        assert (await visitor.outcome(first)).reply_id != (await visitor.outcome(second)).reply_id
        assert model.broken_off == 0


async def test_a_turn_is_not_interrupted_by_what_could_not_join_it(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, user_policy="interrupt", batch_messages=2),
    ):
        said = [await visitor.say("one")]
        await until(lambda: len(model.asked) == 1)
        said.append(await visitor.say("two"))
        await until(lambda: len(model.asked) == 2)
        said.append(await visitor.say("three"))
        released.set()
        outcomes = [await visitor.outcome(message_id) for message_id in said]
        assert [outcome.reply_id for outcome in outcomes] == [reply_id(said[0]), reply_id(said[0]), reply_id(said[2])]
        assert model.broken_off == 1


async def test_a_turn_is_not_interrupted_when_its_message_has_waited_for_long(
    memory_bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.threads.MAX_INTERRUPTED", 0.3)
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, repeats(body))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, user_policy="interrupt"),
    ):
        first = await visitor.say("first")
        await until(lambda: len(model.asked) == 1)
        await until(lambda: _is_old(store, first, 0.5))
        second = await visitor.say("second")
        released.set()
        assert (await visitor.outcome(first)).reply_id != (await visitor.outcome(second)).reply_id
        assert model.broken_off == 0


async def test_a_thread_has_settings_of_its_own(memory_bus: Bus, store: Store, agents: Agents) -> None:
    await store.change_settings("quiet", ThreadSettings(api_policy="ignore"))
    await store.change_settings("polite", ThreadSettings(system_prompt="Be polite."))
    async with (
        scripted_model(repeats) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        ignored = await visitor.ask("feed", "quiet", "api")
        assert (ignored.fate, ignored.reply_id) == ("ignored", None)
        assert ignored.reason == "The agent does not answer programs in this thread."
        assert (await visitor.ask("person", "quiet")).fate == "answered"
        await visitor.ask("person", "polite")
        assert model.asked[-1].chat[0][1].startswith("Be polite.")


async def test_no_thread_has_two_turns_at_once_while_agents_come_and_go(bus: Bus, store: Store, agents: Agents) -> None:
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Behaviour:
        async def behave(writer: asyncio.StreamWriter) -> None:
            thread = prompt(body).split()[-1]
            running[thread] += 1
            most[thread] = max(most[thread], running[thread])
            try:
                await asyncio.sleep(0.02)
                await repeats(body)(writer)
            finally:
                running[thread] -= 1

        return behave

    async def come_and_go(number: int) -> None:
        while not done.is_set():
            async with agents(bus, model, agent_concurrency=4):
                with suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), 0.2 + 0.1 * number)

    done = asyncio.Event()
    threads = [f"t{number}" for number in range(6)]
    async with scripted_model(script) as model, visited(bus, store) as visitor, asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(come_and_go(number), name=f"agent {number}")
        said = [await visitor.say(f"{number} {thread}", thread) for number in range(15) for thread in threads]
        outcomes = [await visitor.outcome(message_id) for message_id in said]
        done.set()
    assert {outcome.fate for outcome in outcomes} == {"answered"}
    assert most == dict.fromkeys(threads, 1)
    assert len(model.asked) == len(said)


# ---- Floods


async def test_a_flood_is_answered_in_batches_and_everything_has_a_fate(bus: Bus, store: Store, agents: Agents) -> None:
    released = asyncio.Event()
    async with (
        scripted_model(lambda body: holds(released, says("you all"))) as model,
        visited(bus, store) as visitor,
        agents(bus, model, api_cap=20, batch_messages=8),
    ):
        person = await visitor.say("person")
        await until(lambda: len(model.asked) == 1)
        await visitor.hand_in(*(accepted(f"comment {number}", source="api") for number in range(50)))
        await until(lambda: _recorded(store, 51))
        released.set()
        assert (await visitor.outcome(person)).fate == "answered"
        await until(lambda: _all_settled(store))
        found = [fate for content, fate in await fates(store) if content.startswith("comment")]
        assert found == ["shed"] * 30 + ["answered"] * 20
        assert len(model.asked) == 4


async def test_a_repeated_text_is_answered_once_and_shares_the_reply(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    await store.record([accepted(text, source="api") for text in ("666", "666 ", "hello", "666")])
    async with (
        scripted_model(lambda _: says("wow")) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        await until(lambda: _all_settled(store))
        assert [fate for _, fate in await fates(store)] == ["answered", "merged", "answered", "merged"]
        messages = await store.latest("thread", 4, before=5)
        assert {(message.reply_id, message.reply_seq) for message in messages} == {(messages[0].reply_id, 5)}
        later = await visitor.ask("666", source="api")
        assert (later.fate, later.reply_seq) == ("merged", 5)
        assert len(model.asked) == 1


async def test_what_programs_said_too_long_ago_is_not_answered(memory_bus: Bus, store: Store, agents: Agents) -> None:
    await store.record([accepted("stale", source="api"), accepted("patient")])
    await until(lambda: _has_age(store, 0.2))
    async with scripted_model(repeats) as model, visited(memory_bus, store), agents(memory_bus, model, api_ttl=0.2):
        await until(lambda: _all_settled(store))
        assert await fates(store) == [("stale", "expired"), ("patient", "answered")]
        assert model.prompts == ["[user] patient"]


async def test_a_flood_that_is_slow_to_be_recorded_leaves_the_agent_its_turns(
    memory_bus: Bus, store: Store, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look sheds something, which takes longer than a thread may be held."""
    monkeypatch.setattr("services.agent.threads.MAX_HOLD", 0.1)
    record = Store.record

    async def slow(self: Store, events: Sequence[Incoming]) -> Record:
        await asyncio.sleep(0.2)
        return await record(self, events)

    async def flood() -> None:
        for number in itertools.count():
            await record(store, [accepted(f"{number} {place}", source="api") for place in range(8)])
            await memory_bus.publish(topology.knocked("api", "thread"), encode([]))
            await asyncio.sleep(0.05)

    monkeypatch.setattr(Store, "record", slow)
    async with (
        scripted_model(repeats) as model,
        visited(memory_bus, store),
        agents(memory_bus, model, api_cap=5),
        background("flood", flood()),
    ):
        await until(lambda: len(model.asked) >= 3)


async def test_what_is_asked_for_again_does_not_expire(memory_bus: Bus, store: Store, agents: Agents) -> None:
    async with (
        scripted_model(in_turn(answers("", 401), says("hello"))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, api_ttl=0.3),
    ):
        failed = await visitor.ask("hi", source="api")
        await until(lambda: _is_old(store, failed.message_id, 0.3))
        await visitor.hand_in(RetryAsked(thread_id="thread", message_id=failed.message_id, origin="nobody"))
        await until(lambda: _has_fate(store, "answered", failed.message_id))


# ---- Pauses


async def test_a_paused_agent_ignores_what_is_said_and_has_it_as_context_afterwards(
    bus: Bus, store: Store, agents: Agents
) -> None:
    await store.change_settings("thread", ThreadSettings(pause="ignore"))
    async with scripted_model(repeats) as model, visited(bus, store) as visitor, agents(bus, model):
        assert (await visitor.ask("are you there?")).fate == "ignored"
        assert (await visitor.ask("I am the host")).fate == "ignored"
        await store.change_settings("thread", ThreadSettings())
        assert (await visitor.ask("go on")).fate == "answered"
        assert [text for _, text in model.asked[0].chat[1:]] == [
            "[user] are you there?",
            "[user] I am the host",
            "[user] go on",
        ]


async def test_messages_can_wait_for_a_paused_agent(bus: Bus, store: Store, agents: Agents) -> None:
    await store.change_settings("thread", ThreadSettings(pause="wait"))
    async with scripted_model(repeats) as model, visited(bus, store) as visitor, agents(bus, model):
        waiting = [await visitor.say("one"), await visitor.say("two", source="api")]
        assert (await visitor.ask("elsewhere", "another")).fate == "answered"
        assert model.prompts == ["[user] elsewhere"]
        await store.change_settings("thread", ThreadSettings())
        await bus.publish(topology.knocked("user", "thread"), encode([]))
        assert [(await visitor.outcome(message_id)).fate for message_id in waiting] == ["answered", "answered"]
        assert (await visitor.ask("go on")).fate == "answered"


# ---- Failures, and asking again


async def test_a_failed_message_can_be_had_again(bus: Bus, store: Store, agents: Agents) -> None:
    async with (
        scripted_model(in_turn(answers("", 401), says("hello"))) as model,
        visited(bus, store) as visitor,
        agents(bus, model),
    ):
        failed = await visitor.ask("hi")
        assert failed.fate == "failed"
        await visitor.hand_in(RetryAsked(thread_id="thread", message_id=failed.message_id, origin="nobody"))
        await until(lambda: _has_fate(store, "answered", failed.message_id))
        events = await store.events_after("thread", 0, 100)
        assert [event.number for event in events] == [1, 3, 4]  # the failure's number gave way to the retry's


async def test_a_conversation_that_is_too_long_is_cut_and_asked_once_more(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    def script(body: dict[str, Any]) -> Behaviour:
        too_long = sum(len(message["content"]) for message in body["messages"][1:]) > 2_000
        return (
            answers('{"error": {"code": "context_length_exceeded"}}', 400)
            if too_long
            else repeats({"messages": [{"content": "it"}]})
        )

    async with (
        scripted_model(script) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        for number in range(4):
            await visitor.ask(f"{number} " + "word " * 100)
        assert (await visitor.ask("the last")).fate == "answered"
        assert (await visitor.ask("x" * 3_000)).fate == "failed"


async def test_a_turn_that_takes_too_long_fails_and_other_threads_go_on(
    memory_bus: Bus, store: Store, agents: Agents
) -> None:
    script = lambda body: keeps_silent() if "slow" in prompt(body) else repeats(body)  # noqa: E731  # reads best here
    async with (
        scripted_model(script) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, turn_timeout=0.5),
    ):
        slow = await visitor.say("slow", "another")
        assert (await visitor.ask("quick")).fate == "answered"
        outcome = await visitor.outcome(slow)
        assert (outcome.fate, outcome.reason) == ("failed", "The model took longer than 0.5 seconds.")


# ---- What it took


async def test_every_turn_leaves_what_it_took(memory_bus: Bus, store: Store, agents: Agents, database_url: str) -> None:
    script = in_turn(streams("one two"), answers("", 401), streams("three", usage=False))
    async with (
        scripted_model(script) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model),
    ):
        answered, failed, _ = [await visitor.ask(text) for text in ("a", "b", "c")]
        turns = await _turns(database_url)
        assert [turn["outcome"] for turn in turns] == ["answered", "failed", "answered"]
        assert [turn["reply_id"] for turn in turns][:2] == [answered.reply_id, None]
        assert turns[1]["reason"] == failed.reason
        assert [turn["estimated"] for turn in turns] == [False, True, True]
        assert turns[0]["completion_tokens"] == 2
        assert [turn["prompt_tokens"] > 0 for turn in turns] == [True, False, True]
        assert turns[0]["first_token"] <= turns[0]["duration"]
        assert {turn["model"] for turn in turns} == {"scripted"}


async def test_every_attempt_of_a_turn_is_counted_whatever_comes_of_it(
    memory_bus: Bus, store: Store, agents: Agents, database_url: str
) -> None:
    script = in_turn(answers("", 500), streams_and_breaks_off("Once upon"), keeps_silent())
    async with (
        scripted_model(script) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, turn_timeout=3),
    ):
        assert (await visitor.ask("hi")).reason == "The model took longer than 3 seconds."
        assert [turn["attempts"] for turn in await _turns(database_url)] == [3]


async def test_a_turn_that_was_interrupted_leaves_what_it_took_too(
    memory_bus: Bus, store: Store, agents: Agents, database_url: str
) -> None:
    async with (
        scripted_model(in_turn(keeps_silent(), says("both"))) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, user_policy="interrupt"),
    ):
        first = await visitor.say("first")
        await until(lambda: len(model.asked) == 1)
        await visitor.ask("second")
        assert (await visitor.outcome(first)).fate == "answered"
        assert [turn["outcome"] for turn in await _turns(database_url)] == ["interrupted", "answered"]
        assert await store.last_lanes("thread", 5) == ["user"]


async def test_what_no_longer_fits_is_summed_up_for_later_turns(memory_bus: Bus, store: Store, agents: Agents) -> None:
    def script(body: dict[str, Any]) -> Behaviour:
        return (
            says("They spoke of cats.")
            if "sum" in body["messages"][0]["content"].lower()[:200]
            else says("Meow. " * 10)
        )

    async with (
        scripted_model(script) as model,
        visited(memory_bus, store) as visitor,
        agents(memory_bus, model, context_tokens=120, summarise=True),
    ):
        for number in range(6):
            await visitor.ask(f"cat {number} " + "purrs " * 12)
        await until(lambda: _has_summary(store))
        await visitor.ask("what was it about?")
        (question,) = [one for one in model.asked if one.chat[-1] == ("user", "[user] what was it about?")]
        assert "They spoke of cats." in "".join(text for _, text in question.chat)
        assert "cat 0" not in "".join(text for _, text in question.chat)


async def _until_heard(subscription: Subscription, message_id: UUID) -> None:
    """Until the announcement of the message is out."""
    async with asyncio.timeout(DEADLINE):
        while True:
            for body in await subscription.take(100):
                for event in decode(body):
                    if isinstance(event, MessageRecorded) and event.message.message_id == message_id:
                        return


async def _is_old(store: Store, message_id: UUID, seconds: float) -> bool:
    message = await store.message(message_id)
    return message is not None and (datetime.now(UTC) - message.timestamp).total_seconds() > seconds


async def _has_summary(store: Store) -> bool:
    return await store.summary("thread") is not None


async def _recorded(store: Store, count: int) -> bool:
    return len([one for one in await store.latest("thread", 1000) if one.fate]) == count


async def _all_settled(store: Store) -> bool:
    return not (await store.mailbox("thread", 1)).waiting


async def _has_fate(store: Store, fate: str, message_id: Any) -> bool:
    found = await store.message(message_id)
    return found is not None and found.fate == fate


async def _has_age(store: Store, age: float) -> bool:
    return min(one.age for one in (await store.mailbox("thread", 10)).waiting) > age


async def _turns(database_url: str) -> Sequence[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        turns: Sequence[Any] = await connection.fetch("SELECT * FROM turns ORDER BY started_at")
        return turns
    finally:
        await connection.close()
