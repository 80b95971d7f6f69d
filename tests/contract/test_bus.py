"""What both buses promise (m3/bus/interface.py), one test a promise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from m3 import topology
from m3.bus import Bus, Consumer, Delivery, open_bus
from m3.bus.interface import MAX_REASON
from m3.errors import BusFull, StartError, Unroutable
from m3.tenants import DEFAULT, key_of
from m3.topology import AGENT_API, AGENT_USER, CHAT_CONTROL, CHAT_OUT, DEAD, QUEUES, RECORDER, Queue, Route
from tests.support.counting import Since
from tests.support.until import DEADLINE, until


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(DEADLINE):
        while len(taken) < count:
            taken += await consumer.take(count - len(taken))
    return taken


async def bodies(consumer: Consumer, count: int) -> list[bytes]:
    return [delivery.body for delivery in await take(consumer, count)]


async def rest(consumer: Consumer) -> list[Delivery]:
    """What a stopped consumer still holds."""
    taken: list[Delivery] = []
    async with asyncio.timeout(DEADLINE):
        while more := await consumer.take(100):
            taken += more
    return taken


async def hear(subscription: object, count: int) -> list[bytes]:
    heard: list[bytes] = []
    async with asyncio.timeout(DEADLINE):
        while len(heard) < count:
            heard += await subscription.take(count - len(heard))  # type: ignore[attr-defined]  # either bus's
    return heard


@asynccontextmanager
async def bus_with(bus_url: str, *instead: Queue) -> AsyncIterator[Bus]:
    """A bus whose queues have other limits."""
    queues = tuple({queue.name: queue for queue in (*QUEUES, *instead)}.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m3.bus.memory.QUEUES", queues)
        patch.setattr("m3.bus.rabbit.QUEUES", queues)
        async with open_bus(bus_url) as bus:
            yield bus


async def test_a_body_arrives_byte_for_byte(bus: Bus) -> None:
    body = bytes(range(256)) + "你好".encode()
    await bus.publish(topology.accepted(), body)
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        assert await bodies(consumer, 1) == [body]


async def test_messages_come_in_the_order_in_which_they_were_published(bus: Bus) -> None:
    sent = [str(number).encode() for number in range(200)]
    async with bus.consume(RECORDER, prefetch=500) as consumer:
        for body in sent:
            await bus.publish(topology.accepted(), body)
        assert await bodies(consumer, 200) == sent


async def test_what_is_not_confirmed_arrives_in_order_too(bus: Bus) -> None:
    sent = [str(number).encode() for number in range(200)]
    async with bus.subscribe("reader") as subscription:
        await subscription.bind(topology.CHAT_OUT, "turn.t")
        for body in sent:
            await bus.publish(topology.thinking("t"), body)
        assert await hear(subscription, 200) == sent


async def test_take_returns_what_has_piled_up_and_no_more_than_asked(bus: Bus) -> None:
    for number in range(5):
        await bus.publish(topology.accepted(), str(number).encode())
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        first = await take(consumer, 3)
        assert [delivery.body for delivery in first] == [b"0", b"1", b"2"]
        assert await bodies(consumer, 2) == [b"3", b"4"]


async def test_a_consumer_never_holds_more_than_its_prefetch(bus: Bus) -> None:
    for number in range(4):
        await bus.publish(topology.accepted(), str(number).encode())
    async with bus.consume(RECORDER, prefetch=2) as consumer:
        held = await take(consumer, 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await consumer.take(1)
        await consumer.ack(held[:1])
        assert await bodies(consumer, 1) == [b"2"]


async def test_consumers_of_one_queue_share_its_messages(bus: Bus) -> None:
    async with bus.consume(RECORDER, prefetch=1) as one, bus.consume(RECORDER, prefetch=1) as other:
        await bus.publish(topology.accepted(), b"0")
        await bus.publish(topology.accepted(), b"1")
        assert sorted([*await bodies(one, 1), *await bodies(other, 1)]) == [b"0", b"1"]


async def test_what_a_closed_consumer_left_unacked_goes_to_another_and_says_so(bus: Bus) -> None:
    await bus.publish(topology.accepted(), b"a")
    await bus.publish(topology.accepted(), b"b")
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        acked, unacked = await take(consumer, 2)
        assert not unacked.redelivered
        await consumer.ack([acked])
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        (again,) = await take(consumer, 1)
        assert (again.body, again.redelivered) == (b"b", True)


async def test_an_ack_in_the_middle_leaves_the_others_unacked(bus: Bus) -> None:
    for body in (b"a", b"b", b"c"):
        await bus.publish(topology.accepted(), body)
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        await consumer.ack([(await take(consumer, 3))[1]])
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        assert sorted(await bodies(consumer, 2)) == [b"a", b"c"]


async def test_acking_twice_does_no_harm(bus: Bus) -> None:
    await bus.publish(topology.accepted(), b"a")
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        held = await take(consumer, 1)
        await consumer.ack(held)
        await consumer.ack(held)
        await bus.publish(topology.accepted(), b"b")
        assert await bodies(consumer, 1) == [b"b"]


async def test_a_stopped_consumer_gives_what_it_had_fetched_and_leaves_the_rest_to_others(bus: Bus) -> None:
    sent = [str(number).encode() for number in range(8)]
    for body in sent[:7]:
        await bus.publish(topology.accepted(), body)
    async with bus.consume(RECORDER, prefetch=3) as consumer:
        held = await take(consumer, 1)
        consumer.stop()
        held += await rest(consumer)
        await consumer.ack(held)  # which makes room, that nothing may fill
        await bus.publish(topology.accepted(), sent[7])
        assert await rest(consumer) == []
    async with bus.consume(RECORDER, prefetch=10) as another:
        others = await take(another, 8 - len(held))
    assert [delivery.body for delivery in (*held, *others)] == sent
    assert not any(delivery.redelivered for delivery in others)


async def test_what_was_taken_before_a_stop_can_be_acked_and_rejected_after_it(bus: Bus) -> None:
    for body in (b"good", b"bad", b"later"):
        await bus.publish(topology.accepted(), body)
    async with bus.consume(RECORDER, prefetch=2) as consumer:
        good, bad = await take(consumer, 2)
        consumer.stop()
        consumer.stop()  # does no harm
        await consumer.ack([good])
        await consumer.reject(bad, "bad")
        assert await rest(consumer) == []
    async with bus.consume(RECORDER, prefetch=10) as another, bus.consume(DEAD, prefetch=10) as dead:
        assert [(d.body, d.redelivered) for d in await take(another, 1)] == [(b"later", False)]
        assert await bodies(dead, 1) == [b"bad"]


async def test_a_stop_wakes_whoever_waits_for_a_message(bus: Bus) -> None:
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        waiting = asyncio.create_task(consumer.take(10))
        await asyncio.sleep(0)  # it finds nothing and waits
        consumer.stop()
        async with asyncio.timeout(DEADLINE):
            assert await waiting == []


async def test_what_a_stopped_consumer_does_not_settle_goes_to_another(bus: Bus) -> None:
    await bus.publish(topology.accepted(), b"a")
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        await take(consumer, 1)
        consumer.stop()
    async with bus.consume(RECORDER, prefetch=10) as another:
        assert [(d.body, d.redelivered) for d in await take(another, 1)] == [(b"a", True)]


async def test_a_rejected_message_goes_to_the_dead_letter_queue_with_its_key_and_the_reason(bus: Bus) -> None:
    await bus.publish(topology.announced("user", "t"), b"poison")
    async with bus.consume(AGENT_USER, prefetch=10) as consumer, bus.consume(DEAD, prefetch=10) as dead:
        (delivery,) = await take(consumer, 1)
        assert delivery.reason == ""
        await consumer.reject(delivery, "it is 坏的")
        await consumer.reject(delivery, "and settled")
        assert [(d.body, d.key, d.reason) for d in await take(dead, 1)] == [(b"poison", "user.t", "it is 坏的")]
        await bus.publish(topology.announced("user", "t"), b"next")
        await consumer.reject((await take(consumer, 1))[0], "x" * 1_000_000)
        assert [(d.body, d.reason) for d in await take(dead, 1)] == [(b"next", "x" * MAX_REASON)]
    async with bus.consume(AGENT_USER, prefetch=10) as consumer:
        await bus.publish(topology.announced("user", "t"), b"last")
        assert await bodies(consumer, 1) == [b"last"]  # the others do not come again


async def test_how_long_a_message_waited_counts_when_it_is_taken_first_and_what_is_rejected_counts(bus: Bus) -> None:
    since = Since()
    await bus.publish(topology.accepted(), b"good")
    await bus.publish(topology.accepted(), b"bad")
    for _ in range(2):
        async with bus.consume(RECORDER, prefetch=10) as consumer:
            _, bad = await take(consumer, 2)
            assert since.counted("m3_queue_wait_seconds_count", queue="recorder") == 2
            assert 0 <= since.counted("m3_queue_wait_seconds_sum", queue="recorder") < 2 * DEADLINE
            assert since.counted("m3_dead_letters_total", queue="recorder") == 0
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        _, bad = await take(consumer, 2)
        await consumer.reject(bad, "bad")
        assert since.counted("m3_dead_letters_total", queue="recorder") == 1


async def test_what_a_full_dead_letter_queue_refuses_comes_again(bus_url: str) -> None:
    sent = [str(number).encode() for number in range(20)]
    async with bus_with(bus_url, replace(DEAD, max_length=2)) as bus:
        for body in sent:
            await bus.publish(topology.accepted(), body)
        async with bus.consume(RECORDER, prefetch=100) as consumer:
            for delivery in await take(consumer, len(sent)):
                await consumer.reject(delivery, "bad")
        async with bus.consume(RECORDER, prefetch=100) as consumer, bus.consume(DEAD, prefetch=100) as dead:
            again: set[bytes] = set()
            buried: set[bytes] = set()

            async def gather(into: set[bytes], of: Consumer) -> None:
                while again | buried != set(sent):
                    into |= {delivery.body for delivery in await of.take(100)}
                consumer.stop()
                dead.stop()

            async with asyncio.timeout(DEADLINE):
                await asyncio.gather(gather(again, consumer), gather(buried, dead))
            assert again
            assert len(buried) >= 2
            assert not again & buried


async def test_a_message_that_comes_back_too_often_goes_to_the_dead_letter_queue(bus: Bus) -> None:
    """After 1 + delivery_limit deliveries, neither more nor less."""
    assert AGENT_USER.delivery_limit is not None
    await bus.publish(topology.announced("user", "t"), b"kills its consumer")
    for _ in range(AGENT_USER.delivery_limit + 1):
        async with bus.consume(AGENT_USER, prefetch=1) as consumer:
            assert await bodies(consumer, 1) == [b"kills its consumer"]
    async with bus.consume(DEAD, prefetch=1) as dead:
        (letter,) = await take(dead, 1)
        assert (letter.body, letter.key) == (b"kills its consumer", "user.t")
        assert letter.reason == "delivered too often from agent.user"
    await bus.publish(topology.announced("user", "t"), b"next")
    async with bus.consume(AGENT_USER, prefetch=1) as consumer:
        assert await bodies(consumer, 1) == [b"next"]


async def test_a_publish_that_must_arrive_is_refused_where_no_queue_takes_it(bus: Bus) -> None:
    since = Since()
    with pytest.raises(Unroutable):
        await bus.publish(Route(CHAT_OUT.name, "nobody.thread", must_arrive=True), b"lost")
    assert since.counted("m3_publish_failures_total", exchange="chat.out", reason="unroutable") == 1


async def test_news_for_nobody_is_dropped(bus: Bus) -> None:
    await bus.publish(topology.told("gateway.gone"), b"news")
    await bus.publish(topology.announced("assistant", "thread"), b"news")


@pytest.mark.parametrize("limit", [{"max_length": 3}, {"max_bytes": 3000}], ids=["messages", "bytes"])
async def test_a_full_queue_refuses_and_the_refused_is_not_kept(bus_url: str, limit: dict[str, int]) -> None:
    since = Since()
    async with bus_with(bus_url, replace(RECORDER, **limit)) as bus:  # type: ignore[arg-type]  # both are numbers
        accepted: list[bytes] = []
        while await _accepts(bus, body := str(len(accepted)).encode().ljust(1000)):
            accepted.append(body)
        assert 3 <= len(accepted) < 30  # RabbitMQ lets a few more in before it notices
        assert since.counted("m3_publish_seconds_count", exchange="chat.in") == len(accepted)
        assert since.counted("m3_publish_failures_total", exchange="chat.in", reason="full") == 1
        async with bus.consume(RECORDER, prefetch=100) as consumer:
            held = await take(consumer, len(accepted))
            assert [delivery.body for delivery in held] == accepted
            await consumer.ack(held)
            await until(lambda: _accepts(bus, b"next"))  # there is room again
            assert await bodies(consumer, 1) == [b"next"]


async def _accepts(bus: Bus, body: bytes) -> bool:
    try:
        await bus.publish(topology.accepted(), body)
    except BusFull:
        return False
    return True


async def test_each_lane_reaches_its_agents_and_every_lane_the_pushers(bus: Bus) -> None:
    async with (
        bus.consume(AGENT_USER, prefetch=10) as people,
        bus.consume(AGENT_API, prefetch=10) as programs,
        bus.subscribe("pusher") as one,
        bus.subscribe("pusher") as other,
    ):
        for subscription in (one, other):
            await subscription.bind(CHAT_OUT, topology.every_lane("t:1@x_y-z"))
        for lane in ("user", "api", "assistant"):
            await bus.publish(topology.announced(lane, "t:1@x_y-z"), lane.encode())
        assert [(d.key, d.body) for d in await take(people, 1)] == [("user.t:1@x_y-z", b"user")]
        assert await bodies(programs, 1) == [b"api"]
        assert await hear(one, 3) == [b"user", b"api", b"assistant"]
        assert await hear(other, 3) == [b"user", b"api", b"assistant"]


#: Threads of three tenants that could be taken for each other's.
LOOK_ALIKES = [
    key_of(tenant, thread_id)
    for tenant in (DEFAULT, "acme", "a")
    for thread_id in ("acme", "a", "default", "t", "user", "cancel")
]


async def test_every_tenants_messages_reach_the_agents_and_no_other_tenants_pushers(bus: Bus) -> None:
    async with (
        bus.consume(AGENT_USER, prefetch=100) as people,
        bus.consume(AGENT_API, prefetch=100) as programs,
        AsyncExitStack() as stack,
    ):
        pushers = {key: await stack.enter_async_context(bus.subscribe("pusher")) for key in LOOK_ALIKES}
        for key, pusher in pushers.items():
            await pusher.bind(CHAT_OUT, topology.every_lane(key))
        for key in LOOK_ALIKES:
            for lane in ("user", "api", "assistant"):
                await bus.publish(topology.announced(lane, key), f"{lane} {key}".encode())
            await bus.publish(topology.changed(key), f"change {key}".encode())
        assert await bodies(people, len(LOOK_ALIKES)) == [f"user {key}".encode() for key in LOOK_ALIKES]
        assert await bodies(programs, len(LOOK_ALIKES)) == [f"api {key}".encode() for key in LOOK_ALIKES]
        for key, pusher in pushers.items():
            expected = [f"{lane} {key}".encode() for lane in ("user", "api", "assistant", "change")]
            assert await hear(pusher, 4) == expected
        for key in LOOK_ALIKES:  # what comes next is all that came
            await bus.publish(topology.changed(key), b"last")
        for pusher in pushers.values():
            assert await hear(pusher, 1) == [b"last"]


async def test_a_subscription_hears_only_the_threads_that_it_has_bound(bus: Bus) -> None:
    async with bus.subscribe("pusher") as subscription:
        await subscription.bind(CHAT_OUT, topology.every_lane("mine"))
        await subscription.bind(CHAT_OUT, topology.every_lane("left"))
        await subscription.unbind(CHAT_OUT, topology.every_lane("left"))
        for thread in ("other", "left", "mine"):
            await bus.publish(topology.announced("assistant", thread), thread.encode())
        assert await hear(subscription, 1) == [b"mine"]


async def test_what_the_agent_does_in_a_thread_reaches_its_pushers_in_order_and_no_agent(bus: Bus) -> None:
    async with (
        bus.consume(AGENT_USER, prefetch=10) as people,
        bus.consume(AGENT_API, prefetch=10) as programs,
        bus.subscribe("pusher") as pusher,
    ):
        await pusher.bind(CHAT_OUT, topology.every_lane("t"))
        pieces = [str(number).encode() for number in range(100)]
        for piece in pieces:
            await bus.publish(topology.thinking("t"), piece)
        await bus.publish(topology.thinking("another"), b"elsewhere")
        assert await hear(pusher, 100) == pieces
        await bus.publish(topology.knocked("user", "t"), b"for people's")
        await bus.publish(topology.knocked("api", "t"), b"for programs'")
        assert await bodies(people, 1) == [b"for people's"]
        assert await bodies(programs, 1) == [b"for programs'"]


async def test_every_agent_hears_of_every_cancellation_and_nobody_needs_to(bus: Bus) -> None:
    await bus.publish(topology.asked_to_cancel("t"), b"unheard")
    async with bus.subscribe("agent") as one, bus.subscribe("agent") as other, bus.subscribe("pusher") as pusher:
        for agent in (one, other):
            for key in topology.EVERY_CANCELLATION:
                await agent.bind(CHAT_CONTROL, key)
        await pusher.bind(CHAT_OUT, topology.every_lane("t"))
        for thread in ("t", "t:1@x_y-z", "acme.t"):
            await bus.publish(topology.asked_to_cancel(thread), thread.encode())
        await bus.publish(topology.changed("t"), b"a change")
        for agent in (one, other):
            assert await hear(agent, 3) == [b"t", b"t:1@x_y-z", b"acme.t"]
        assert await hear(pusher, 1) == [b"a change"]


async def test_one_process_can_be_told(bus: Bus) -> None:
    async with bus.subscribe("gateway") as mine, bus.subscribe("gateway") as another:
        await bus.publish(topology.told(another.name), b"for the other")
        await bus.publish(topology.told(mine.name), b"for me")
        assert await hear(mine, 1) == [b"for me"]


async def test_a_private_queue_ends_with_its_block(bus: Bus) -> None:
    async with bus.subscribe("gateway") as subscription:
        name = subscription.name
        await bus.publish(Route("", name, must_arrive=True), b"here")

    async def gone() -> bool:
        try:
            await bus.publish(Route("", name, must_arrive=True), b"gone")
        except Unroutable:
            return True
        return False

    await until(gone)


async def test_a_bus_is_connected_once_it_is_open(bus: Bus) -> None:
    await until(lambda: bus.connected)


@pytest.mark.parametrize("url", ["kafka://somewhere", "guest:hush@host:5672", ""])
def test_an_unknown_scheme_is_refused_with_a_sentence_that_does_not_tell_the_url(url: str) -> None:
    with pytest.raises(StartError, match="BROKER_URL") as refused:
        open_bus(url)
    assert "hush" not in str(refused.value)
