"""Exchanges, queues and routes fit each other."""

from typing import Literal
from uuid import UUID

import pytest

from m3 import topology
from m3.events import Lane
from m3.topology import (
    AGENT_API,
    AGENT_USER,
    CHAT_CONTROL,
    CHAT_DEAD,
    CHAT_IN,
    CHAT_OUT,
    DEAD,
    EXCHANGES,
    QUEUES,
    Queue,
    Route,
)

every_queue = pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)


def test_names_are_given_once() -> None:
    assert len({exchange.name for exchange in EXCHANGES}) == len(EXCHANGES)
    assert len({queue.name for queue in QUEUES}) == len(QUEUES)


@every_queue
def test_every_queue_is_bound_to_a_declared_exchange(queue: Queue) -> None:
    assert queue.exchange in EXCHANGES
    assert all(bool(key) == (queue.exchange.kind != "fanout") for key in queue.bindings)  # a fanout heeds no key


@every_queue
def test_no_queue_grows_without_bound(queue: Queue) -> None:
    assert 0 < queue.max_length <= 100_000
    assert queue.max_bytes == 256 * 1024 * 1024
    assert topology.PRIVATE_MAX_LENGTH == 10_000
    assert topology.PRIVATE_MAX_BYTES == 64 * 1024 * 1024


@every_queue
def test_what_fails_too_often_leaves_every_queue_but_the_dead_letters_own(queue: Queue) -> None:
    if queue is DEAD:
        assert (queue.delivery_limit, queue.dead_letters) == (None, False)
    else:
        assert queue.delivery_limit is not None
        assert queue.delivery_limit > 0
        assert queue.dead_letters


def test_queues_are_what_the_versions_before_declared() -> None:
    """RabbitMQ refuses whoever declares one otherwise than it is: one version could not run beside the other, nor on what
    it left behind."""
    declared = {(one.name, one.max_length, one.max_bytes, one.delivery_limit, one.dead_letters) for one in QUEUES}
    assert declared == {
        ("recorder", 20_000, 2**28, 100, True),
        ("agent.user", 100_000, 2**28, 100, True),
        ("agent.api", 100_000, 2**28, 100, True),
        ("dead", 100_000, 2**28, None, False),
    }


def test_dead_letters_have_a_queue() -> None:
    assert [queue for queue in QUEUES if queue.exchange is CHAT_DEAD] == [DEAD]


def test_what_is_accepted_must_arrive_at_the_one_door_in() -> None:
    assert topology.accepted() == Route(CHAT_IN.name, "", must_arrive=True)
    assert [queue.name for queue in QUEUES if queue.exchange is CHAT_IN] == ["recorder"]


@pytest.mark.parametrize(("lane", "must_arrive"), [("user", True), ("api", True), ("assistant", False)])
def test_people_and_programs_must_reach_an_agent_and_a_reply_need_not(lane: Lane, must_arrive: bool) -> None:  # noqa: FBT001  # pytest gives it by name
    assert topology.announced(lane, "t:1@x") == Route(CHAT_OUT.name, f"{lane}.t:1@x", must_arrive=must_arrive)
    heard_by = [queue.name for queue in QUEUES if queue.exchange is CHAT_OUT and f"{lane}.*" in queue.bindings]
    assert heard_by == ([f"agent.{lane}"] if must_arrive else [])


def test_people_and_programs_wait_in_queues_of_their_own() -> None:
    assert (AGENT_USER.bindings, AGENT_API.bindings) == (("user.*", "user.*.*"), ("api.*", "api.*.*"))


def test_a_pusher_hears_every_lane_of_a_thread() -> None:
    assert topology.every_lane("t:1@x") == "*.t:1@x"
    assert topology.every_lane("acme.t:1@x") == "*.acme.t:1@x"


@pytest.mark.parametrize("lane", ["user", "api"])
def test_a_knock_goes_where_an_announcement_of_its_lane_goes(lane: Literal["user", "api"]) -> None:
    assert topology.knocked(lane, "t:1@x") == topology.announced(lane, "t:1@x")


def test_a_change_is_news_for_pushers_and_for_no_agent() -> None:
    assert topology.changed("t:1@x") == Route(CHAT_OUT.name, "change.t:1@x", must_arrive=False)
    assert not any(key.startswith("change.") for queue in QUEUES for key in queue.bindings)


def test_what_the_agent_does_is_news_for_whoever_reads_along_and_for_no_agent() -> None:
    assert topology.thinking("t:1@x") == Route(CHAT_OUT.name, "turn.t:1@x", must_arrive=False, confirmed=False)
    assert not any(key.startswith("turn.") for queue in QUEUES for key in queue.bindings)


def test_a_cancellation_is_heard_by_every_agent_and_kept_for_none() -> None:
    assert topology.asked_to_cancel("t:1@x") == Route(CHAT_CONTROL.name, "cancel.t:1@x", must_arrive=False)
    assert topology.EVERY_CANCELLATION == ("cancel.*", "cancel.*.*")
    assert topology.asked_to_retell("acme.t") == Route(
        CHAT_CONTROL.name, "retell.acme.t", must_arrive=False, confirmed=False
    )
    assert topology.EVERY_RETELLING == ("retell.*", "retell.*.*")
    assert CHAT_CONTROL in EXCHANGES
    assert not any(queue.exchange is CHAT_CONTROL for queue in QUEUES)


def test_what_sockets_a_pusher_has_is_heard_by_every_pusher_and_kept_for_none() -> None:
    key = "sockets.00000000-0000-0000-0000-000000000001"  # of two words, as the binding asks
    assert topology.counted(UUID(int=1)) == Route(CHAT_CONTROL.name, key, must_arrive=False, confirmed=False)
    assert topology.EVERY_COUNT == "sockets.*"


def test_one_process_is_told_in_its_own_queue_if_it_still_lives() -> None:
    assert topology.told("gateway.1") == Route("", "gateway.1", must_arrive=False)
