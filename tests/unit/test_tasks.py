"""Work beside a block: whose error is heard, and who is stopped."""

import asyncio

import pytest

from m3.tasks import background
from tests.support.until import DEADLINE


class Work:
    """Runs until it is stopped, and tells how it ended."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        self.end = ""

    async def run(self) -> None:
        self.started.set()
        try:
            await self.stopped.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # tidying up takes a moment
            self.end = "cancelled"
            raise
        await asyncio.sleep(0)
        self.end = "stopped"


async def fail(error: BaseException) -> None:
    raise error


async def test_a_failure_of_the_work_ends_the_block_with_that_very_error() -> None:
    error = ValueError("work")
    with pytest.raises(ValueError, match="work") as raised:
        async with background("work", fail(error)), asyncio.timeout(DEADLINE):
            await asyncio.Event().wait()
    assert raised.value is error


async def test_an_error_of_the_block_passes_unchanged_and_cancels_the_work() -> None:
    work, error = Work(), ValueError("block")

    async def block() -> None:
        async with background("work", work.run()):
            await work.started.wait()
            raise error

    with pytest.raises(ValueError, match="block") as raised:
        await block()
    assert raised.value is error
    assert work.end == "cancelled"


async def test_an_error_passes_through_blocks_within_blocks() -> None:
    outer, inner, error = Work(), Work(), ValueError("inside")

    async def block() -> None:
        async with background("outer", outer.run()), background("inner", inner.run()):
            await asyncio.gather(outer.started.wait(), inner.started.wait())
            raise error

    with pytest.raises(ValueError, match="inside") as raised:
        await block()
    assert raised.value is error
    assert (outer.end, inner.end) == ("cancelled", "cancelled")


async def test_two_errors_are_both_heard() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("work") from None

    async def block() -> None:
        async with background("work", fail_when_cancelled()):
            await asyncio.sleep(0)  # it begins
            raise ValueError("block")

    with pytest.raises(ExceptionGroup) as raised:
        await block()
    assert {type(error) for error in raised.value.exceptions} == {ValueError, OSError}


async def test_leaving_cancels_the_work_and_waits_for_its_end() -> None:
    work = Work()
    async with background("work", work.run()):
        await work.started.wait()
    assert work.end == "cancelled"


async def test_where_a_stop_is_given_it_is_called_instead_and_the_end_waited_for() -> None:
    work = Work()
    async with background("work", work.run(), stop=work.stopped.set):
        await work.started.wait()
    assert work.end == "stopped"


async def test_work_that_does_not_heed_the_stop_within_the_grace_is_cancelled() -> None:
    work = Work()
    async with asyncio.timeout(DEADLINE):
        async with background("work", work.run(), stop=lambda: None, grace=0.01):
            await work.started.wait()
    assert work.end == "cancelled"


async def test_an_error_of_the_block_calls_no_stop_and_waits_for_no_grace() -> None:
    work, stops = Work(), asyncio.Event()

    async def block() -> None:
        async with background("work", work.run(), stop=stops.set, grace=3600):
            await work.started.wait()
            raise ValueError("block")

    with pytest.raises(ValueError, match="block"):
        await asyncio.wait_for(block(), DEADLINE)
    assert (work.end, stops.is_set()) == ("cancelled", False)


async def test_an_error_of_the_work_while_it_stops_is_heard() -> None:
    stopped = asyncio.Event()

    async def fail_at_the_stop() -> None:
        await stopped.wait()
        raise OSError("work")

    with pytest.raises(OSError, match="work"):
        async with background("work", fail_at_the_stop(), stop=stopped.set, grace=DEADLINE):
            await asyncio.sleep(0)  # it begins


async def test_cancelling_the_block_cancels_the_work_and_stays_a_cancellation() -> None:
    work = Work()

    async def block() -> None:
        async with background("work", work.run()):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await work.started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert work.end == "cancelled"


async def test_work_that_ends_by_itself_ends_the_block() -> None:
    async def finish() -> None:
        pass

    with pytest.raises(RuntimeError, match="'work' ended by itself"):
        async with background("work", finish()), asyncio.timeout(DEADLINE):
            await asyncio.Event().wait()


async def test_a_cancellation_that_nobody_asked_for_ends_the_block() -> None:
    """As aio-pika raises for a connection that fell silent."""
    with pytest.raises(RuntimeError, match="'work' was cancelled by nobody"):
        async with background("work", fail(asyncio.CancelledError())), asyncio.timeout(DEADLINE):
            await asyncio.Event().wait()


async def test_the_work_has_a_name() -> None:
    async with background("recorder", Work().run()):
        assert "recorder" in {task.get_name() for task in asyncio.all_tasks()}


async def test_an_error_keeps_the_cause_that_it_was_raised_from() -> None:
    root = OSError("root")

    async def fail_for_a_reason() -> None:
        raise ValueError from root

    with pytest.raises(ValueError) as raised:  # noqa: PT011  # it has no text; its cause is what matters
        async with background("work", fail_for_a_reason()), asyncio.timeout(DEADLINE):
            await asyncio.Event().wait()
    assert raised.value.__cause__ is root
