"""What is remembered of who somebody is, and for how long."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from m3.access.memory import Memory
from tests.support.clock import Clock
from tests.support.until import until


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Memory[str, str]:
    return Memory(15, clock, most=3)


def finds(value: str) -> Callable[[], Awaitable[str]]:
    async def look() -> str:
        return value

    return look


async def raises() -> str:
    raise LookupError


class Slow:
    """A look that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        await self.end.wait()
        return f"look {self.begun}"


async def test_what_was_found_is_remembered_for_so_long_from_the_beginning_of_the_look(
    memory: Memory[str, str], clock: Clock
) -> None:
    async def look() -> str:
        clock.now += 5
        return "found"

    assert memory.recall("a") is None
    assert await memory.look("a", look) == "found" == memory.recall("a")
    clock.now = 14.9
    assert memory.recall("a") == "found"
    clock.now = 15
    assert memory.recall("a") is None


async def test_a_look_in_vain_is_not_remembered(memory: Memory[str, str]) -> None:
    with pytest.raises(LookupError):
        await memory.look("a", raises)
    assert memory.recall("a") is None
    assert await memory.look("a", finds("found")) == "found"


async def test_of_many_those_are_remembered_that_were_asked_for_last(memory: Memory[str, str]) -> None:
    for key in "abc":
        await memory.look(key, finds(key))
    memory.recall("a")
    await memory.look("d", finds("d"))
    assert [memory.recall(key) for key in "abcd"] == ["a", None, "c", "d"]


async def test_who_asks_for_the_same_at_once_shares_one_look(memory: Memory[str, str]) -> None:
    slow = Slow()
    asking = [asyncio.create_task(memory.look("a", slow)) for _ in range(5)]
    await until(lambda: slow.begun == 1)
    slow.end.set()
    assert await asyncio.gather(*asking) == ["look 1"] * 5


async def test_who_shares_a_look_shares_its_error(memory: Memory[str, str]) -> None:
    told = await asyncio.gather(*(memory.look("a", raises) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in told] == [LookupError] * 3


async def test_where_the_one_who_looks_goes_away_another_looks(memory: Memory[str, str]) -> None:
    slow = Slow()
    first, second = (asyncio.create_task(memory.look("a", slow)) for _ in range(2))
    await until(lambda: slow.begun == 1)
    first.cancel()
    await until(lambda: slow.begun == 2)
    slow.end.set()
    assert await second == "look 2"
    assert first.cancelled()


async def test_who_waits_may_go_away_without_breaking_off_the_look(memory: Memory[str, str]) -> None:
    slow = Slow()
    first, second = (asyncio.create_task(memory.look("a", slow)) for _ in range(2))
    await until(lambda: slow.begun == 1)
    second.cancel()
    slow.end.set()
    assert await first == "look 1"


async def test_what_is_forgotten_is_looked_for_anew(memory: Memory[str, str]) -> None:
    for key in "ab":
        await memory.look(key, finds(key))
    memory.forget(lambda key, _: key == "a")
    assert [memory.recall(key) for key in "ab"] == [None, "b"]


async def test_a_look_that_has_begun_when_something_is_forgotten_is_not_remembered(memory: Memory[str, str]) -> None:
    slow = Slow()
    looking = asyncio.create_task(memory.look("a", slow))
    await until(lambda: slow.begun == 1)
    memory.forget(lambda *_: False)
    later = asyncio.create_task(memory.look("a", finds("later")))
    assert await later == "later"
    slow.end.set()
    assert await looking == "look 1"
    assert memory.recall("a") == "later"
