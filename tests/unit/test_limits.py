"""How often somebody may do something, as far as a process counts by itself."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI

from m3.access import limits
from m3.access.limits import PER_ADDRESS, Limits, What
from m3.access.principals import ANYONE, Principal
from m3.errors import StartError, TooOften
from m3.settings import Settings
from m3.web.rates import rate_headers
from services.gateway import asking
from tests.support.clock import Clock

ANNA = Principal("person", id=UUID(int=1), name="anna")
BEN = Principal("person", id=UUID(int=2), name="ben")
HERE, THERE = "203.0.113.7", "2001:db8::7"


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


def limited(clock: Clock, **settings: Any) -> Limits:
    """Without a store, which only passwords need."""
    return Limits(Settings(auth="required", **settings), None, clock=clock)  # type: ignore[arg-type]


async def test_so_many_are_taken_in_a_window_and_then_no_more_until_it_is_over(clock: Clock) -> None:
    limits = limited(clock, limit_posts="2/minute")
    first = await limits.hit("post", ANNA, HERE)
    clock.now += 20
    second = await limits.hit("post", ANNA, HERE)
    assert first is not None
    assert second is not None
    assert (first.limit, first.remaining, first.reset) == (2, 1, 60)
    assert (second.limit, second.remaining, second.reset) == (2, 0, 40)
    for _ in range(3):  # which are not counted, and do not make it longer
        with pytest.raises(TooOften) as refused:
            await limits.hit("post", ANNA, HERE)
        assert (refused.value.limit, refused.value.window, refused.value.retry_after) == (2, 60, 40)
    clock.now += 40
    assert await limits.hit("post", ANNA, HERE) == first


async def test_each_thing_that_is_limited_is_counted_by_itself(clock: Clock) -> None:
    limits = limited(
        clock,
        limit_posts="1/minute",
        limit_feeds="1/minute",
        limit_batches="1/minute",
        limit_changes="1/minute",
        limit_socket_messages="1/minute",
        limit_sockets="1/minute",
        limit_tickets="1/minute",
    )
    every: tuple[What, ...] = ("post", "feed", "batch", "change", "socket_message", "socket", "ticket")
    for what in every:
        await limits.hit(what, ANNA, HERE)
    for what in every:
        with pytest.raises(TooOften):
            await limits.hit(what, ANNA, HERE)


async def test_what_a_program_says_counts_as_fed_by_whatever_door(clock: Clock) -> None:
    limits = limited(clock, limit_posts="1/minute", limit_socket_messages="1/minute", limit_feeds="3/minute")
    feed = Principal("program", id=UUID(int=7), name="feed")
    await limits.hit("post", feed, HERE, cost=2)
    await limits.hit("socket_message", feed, HERE)
    with pytest.raises(TooOften):
        await limits.hit("post", feed, HERE)
    await limits.hit("post", ANNA, HERE)


async def test_one_who_asks_too_often_takes_nothing_from_others(clock: Clock) -> None:
    limits = limited(clock, limit_posts="1/minute")
    await limits.hit("post", ANNA, HERE)
    for _ in range(20 * PER_ADDRESS):
        with pytest.raises(TooOften):
            await limits.hit("post", ANNA, HERE)
    await limits.hit("post", BEN, HERE)
    await limits.hit("post", replace(ANNA, tenant="acme"), HERE)


async def test_an_address_may_ten_times_as_much_and_an_ipv6_address_counts_as_its_network(clock: Clock) -> None:
    limits = limited(clock, limit_posts="2/minute")
    people = [Principal("person", id=UUID(int=number)) for number in range(100)]
    for number, person in enumerate(people[:20]):
        await limits.hit("post", person, f"2001:db8::{number}")
    with pytest.raises(TooOften, match="at most 20 in 60 seconds"):
        await limits.hit("post", people[20], "2001:db8::ffff")
    left = await limits.hit("post", people[20], "2001:db8:0:1::1")
    assert left is not None
    assert left.remaining == 1, "the one that was refused must not count for the person"


async def test_the_allowance_that_is_told_is_the_one_that_is_used_up_first(clock: Clock) -> None:
    limits = limited(clock, limit_posts="2/minute")
    people = [Principal("person", id=UUID(int=number)) for number in range(20)]
    *_, last = [await limits.hit("post", person, HERE) for person in people]
    assert last is not None
    assert (last.limit, last.remaining) == (20, 0)


async def test_many_at_once_count_as_many_or_not_at_all(clock: Clock) -> None:
    limits = limited(clock, limit_socket_messages="10/minute")
    await limits.hit("socket_message", ANNA, HERE, cost=8)
    with pytest.raises(TooOften):
        await limits.hit("socket_message", ANNA, HERE, cost=3)
    left = await limits.hit("socket_message", ANNA, HERE, cost=2)
    assert left is not None
    assert left.remaining == 0


async def test_what_alone_is_more_than_the_limit_takes_all_of_it(clock: Clock) -> None:
    """Or it would be told to come again, for ever."""
    limits = limited(clock, limit_socket_messages="10/minute")
    left = await limits.hit("socket_message", ANNA, HERE, cost=500)
    assert left is not None
    assert left.remaining == 0


async def test_counters_do_not_pile_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COUNTERS", 50)
    limited_ = limited(clock, limit_posts="2/minute")
    kept = limited_._limits["post"]._limiter.storage._windows  # type: ignore[attr-defined]
    for number in range(100):
        await limited_.hit("post", Principal("person", id=UUID(int=number)), f"10.0.0.{number}")
    assert len(kept) == 50
    clock.now += 60
    await limited_.hit("post", ANNA, HERE)
    assert len(kept) == 2


async def test_in_a_room_that_asks_nobody_who_they_are_nothing_is_limited() -> None:
    limits = Limits(Settings(limit_posts="1/minute", limit_logins="1/minute"), None)  # type: ignore[arg-type]
    for _ in range(50):
        assert await limits.hit("post", ANYONE, HERE) is None
        async with limits.guess("default", "anna", HERE) as left:
            assert left is None


@pytest.mark.parametrize(
    "name", ["posts", "feeds", "batches", "changes", "socket_messages", "sockets", "tickets", "logins"]
)
@pytest.mark.parametrize(
    "rate", ["rubbish", "0/minute", "-1/minute", "5", "5/fortnight", "1/minute;2/hour", "1/2 days"]
)
def test_a_setting_that_is_no_rate_is_said_at_the_start(name: str, rate: str) -> None:
    settings = Settings.model_validate({f"limit_{name}": rate})
    with pytest.raises(StartError, match=f"^LIMIT_{name.upper()}: must be a number .* such as 1200/minute"):
        Limits(settings, None)  # type: ignore[arg-type]


async def test_headers_tell_whole_seconds_and_never_too_few(clock: Clock) -> None:
    limits = limited(clock, limit_posts="1/minute")
    left = await limits.hit("post", ANNA, HERE)
    clock.now += 0.5
    assert left is not None
    assert rate_headers(left) == {
        "X-RateLimit-Limit": "1",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "60",
    }
    with pytest.raises(TooOften) as refused:
        await limits.hit("post", ANNA, HERE)
    assert rate_headers(refused.value) == rate_headers(left) | {"Retry-After": "60"}
    clock.now += 59.4
    with pytest.raises(TooOften) as refused:
        await limits.hit("post", ANNA, HERE)
    assert rate_headers(refused.value)["Retry-After"] == "1"


def test_a_route_that_changes_something_and_is_in_no_limit_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.add_api_route("/api/logout", lambda: None, methods=["POST"])
        return app

    asking.ask_who(app(), None, None)  # type: ignore[arg-type]
    monkeypatch.delitem(asking.COUNTED, ("POST", "/api/logout"))
    with pytest.raises(StartError, match=r"^No limit says how often one may POST /api/logout\.$"):
        asking.ask_who(app(), None, None)  # type: ignore[arg-type]
