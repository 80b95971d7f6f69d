"""Who gets the next place for a turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from m3.events import OutsideSource
from services.agent.places import Places
from tests.support.until import until


class Queue:
    """Everybody who was let in, in order; each leaves when told."""

    def __init__(self, places: Places, group: asyncio.TaskGroup) -> None:
        self.let_in: list[str] = []
        self._places = places
        self._group = group
        self._leaving: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, lane: OutsideSource) -> None:
        self._leaving[name] = asyncio.Event()
        self.tasks[name] = self._group.create_task(self._visit(name, lane), name=name)
        await asyncio.sleep(0)

    async def leave(self, name: str) -> None:
        self._leaving[name].set()
        await asyncio.wait([self.tasks[name]])
        await asyncio.sleep(0)

    async def leave_all(self) -> None:
        """One after the other, as they came in."""
        left = 0
        while left < len(self._leaving):
            assert len(self.let_in) > left, "nobody was let in"
            await self.leave(self.let_in[left])
            left += 1

    async def _visit(self, name: str, lane: OutsideSource) -> None:
        async with self._places.taken(lane):
            self.let_in.append(name)
            await self._leaving[name].wait()


@asynccontextmanager
async def queue(places: Places) -> AsyncIterator[Queue]:
    async with asyncio.TaskGroup() as group:
        yield Queue(places, group)


async def test_as_many_are_let_in_at_once_as_there_are_places() -> None:
    places = Places(2, in_a_row=3)
    async with queue(places) as comers:
        for name in ("a", "b", "c"):
            await comers.come(name, "user")
        assert comers.let_in == ["a", "b"]
        assert places.full
        await comers.leave("a")
        assert comers.let_in == ["a", "b", "c"]
        await comers.leave("b")
        await comers.leave("c")
        assert not places.full


async def test_people_come_before_programs_and_programs_after_some_of_them() -> None:
    async with queue(Places(1, in_a_row=2)) as comers:
        await comers.come("first", "api")
        for number in range(3):
            await comers.come(f"api {number}", "api")
        for number in range(5):
            await comers.come(f"user {number}", "user")
        await comers.leave_all()
        assert comers.let_in == [
            "first", "user 0", "user 1", "api 0", "user 2", "user 3", "api 1", "user 4", "api 2",
        ]  # fmt: skip


async def test_people_that_come_while_no_program_waits_do_not_count() -> None:
    async with queue(Places(1, in_a_row=2)) as comers:
        for name in ("user 0", "user 1", "user 2", "user 3"):
            await comers.come(name, "user")
        for name in ("user 0", "user 1", "user 2"):
            await comers.leave(name)
        await comers.come("api", "api")
        await comers.come("user 4", "user")
        await comers.come("user 5", "user")
        for name in ("user 3", "user 4", "user 5", "api"):
            await comers.leave(name)
        assert comers.let_in[-3:] == ["user 4", "user 5", "api"]


@pytest.mark.parametrize("lane", ["user", "api"])
async def test_one_that_goes_away_while_it_waits_leaves_its_place_to_the_next(lane: OutsideSource) -> None:
    async with queue(Places(1, in_a_row=3)) as comers:
        await comers.come("first", lane)
        await comers.come("impatient", lane)
        await comers.come("patient", lane)
        comers.tasks["impatient"].cancel()
        await comers.leave("first")
        assert comers.let_in == ["first", "patient"]
        await comers.leave("patient")


async def test_one_that_goes_away_in_the_moment_it_is_let_in_leaves_its_place_to_the_next() -> None:
    places = Places(1, in_a_row=3)
    holding = places.taken("user")
    await holding.__aenter__()
    async with queue(places) as comers:
        await comers.come("impatient", "user")
        await comers.come("patient", "user")
        await holding.__aexit__(None, None, None)  # lets the impatient one in, which has not noticed yet
        comers.tasks["impatient"].cancel()
        await until(lambda: comers.let_in == ["patient"])
        await comers.leave("patient")
    assert not places.full


async def test_once_opened_everybody_is_let_in() -> None:
    places = Places(1, in_a_row=3)
    async with queue(places) as comers:
        for name, lane in (("a", "user"), ("b", "api"), ("c", "user")):
            await comers.come(name, "user" if lane == "user" else "api")
        places.open()
        await asyncio.sleep(0)
        assert set(comers.let_in) == {"a", "b", "c"}
        await comers.come("late", "api")
        assert "late" in comers.let_in
        for name in ("a", "b", "c", "late"):
            await comers.leave(name)
