"""What sockets that come back have missed is read once for all of them, and has an end however busy the thread is."""

import asyncio
from collections.abc import Sequence

import pytest

from m3.events import ThreadEvent
from services.pusher import replay
from services.pusher.audience import Audience
from services.pusher.close_codes import Close, Closed
from services.pusher.replay import Replay
from tests.unit.test_feed import numbered


class Table:
    """A thread whose last number is ``head``; ``missing`` are numbers that gave way to later changes."""

    def __init__(self, head: int, *missing: int) -> None:
        self.asked: list[tuple[int, int]] = []
        self._head = head
        self._missing = set(missing)

    async def read(self, after: int, until: int) -> Sequence[ThreadEvent]:
        self.asked.append((after, until))
        await asyncio.sleep(0)
        return numbered(*(number for number in range(after + 1, until + 1) if number not in self._missing))


async def caught_up(replay: Replay, after: int) -> list[int]:
    told = []
    while page := await replay.page(after):
        told += [one.number for one in page]
        after = told[-1]
    return told + [one.number for one in replay.rest(after)]


@pytest.fixture(autouse=True)
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PAGE", 10)


@pytest.mark.parametrize("after", [0, 3, 9, 10, 25, 34, 35])
async def test_whatever_came_after_a_number_is_told_in_order(after: int) -> None:
    assert await caught_up(Replay(35, Table(35).read), after) == [*range(after + 1, 36)]


async def test_numbers_that_gave_way_to_others_are_passed_over() -> None:
    missing = [*range(10, 32), 35]
    assert await caught_up(Replay(35, Table(35, *missing).read), 5) == [6, 7, 8, 9, 32, 33, 34]


async def test_those_who_come_back_together_share_what_is_read() -> None:
    table = Table(35)
    shared = Replay(35, table.read)
    told = await asyncio.gather(*(caught_up(shared, after) for after in range(11, 20) for _ in range(50)))
    assert {numbers[-1] for numbers in told} == {35}
    assert sorted(set(table.asked)) == [(10, 20), (20, 30), (30, 35)]
    assert len(table.asked) == 3


async def test_only_so_many_pages_are_kept() -> None:
    table = Table(100)
    shared = Replay(100, table.read)
    await caught_up(shared, 0)
    assert len(shared._pages) == replay.PAGES


async def test_what_goes_out_meanwhile_is_told_last() -> None:
    audience = Audience(on_gap=lambda: None)
    with audience.replaying(5, Table(5).read) as shared:
        page = await shared.page(0)
        for event in numbered(6, 7):
            audience.gather(event)
        audience.flush()
        assert [one.number for one in (*page, *shared.rest(5))] == [1, 2, 3, 4, 5, 6, 7]
        assert [one.number for one in shared.rest(6)] == [7]


async def test_what_is_too_much_to_be_kept_is_read_from_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    audience, table = Audience(on_gap=lambda: None), Table(100)
    with audience.replaying(5, table.read) as shared:
        monkeypatch.setattr(replay, "KEPT", 1_000)
        for event in numbered(*range(6, 101)):
            audience.gather(event)
        assert shared.start > 90
        assert await caught_up(shared, 0) == [*range(1, 101)]


async def test_nothing_is_kept_when_nobody_catches_up_any_more() -> None:
    audience = Audience(on_gap=lambda: None)
    with audience.replaying(5, Table(5).read) as one, audience.replaying(9, Table(5).read) as other:
        assert one is other
    with audience.replaying(9, Table(9).read) as later:
        assert later is not one


async def test_who_catches_up_with_a_thread_that_is_taken_back_is_closed() -> None:
    audience = Audience(on_gap=lambda: None)
    with audience.replaying(35, Table(35).read) as shared:
        await shared.page(0)
        audience.close(Close.TAKEN_BACK)
        with pytest.raises(Closed, match="taken back"):
            await shared.page(10)
        with pytest.raises(Closed, match="taken back"):
            shared.rest(35)
        with audience.replaying(3, Table(3).read) as new:
            assert await caught_up(new, 0) == [1, 2, 3]
