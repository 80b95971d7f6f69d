"""What waits for one socket goes out in order and within a bound."""

import asyncio

import pytest

from m3.tasks import background
from services.pusher.close_codes import TAKEN_BACK
from services.pusher.outbox import Closed, Outbox
from tests.support.until import DEADLINE, until


class Socket:
    """Takes frames while it is open."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.waited_for = False

    async def send(self, frame: str) -> None:
        self.waited_for = True
        await self.open.wait()
        self.got.append(frame)


LIMIT = 10


async def test_frames_go_out_in_the_order_in_which_they_came() -> None:
    outbox, socket = Outbox(1_000), Socket()
    frames = [f"frame {number}" for number in range(100)]
    for frame in frames[:50]:
        outbox.put(frame)
    async with background("writer", outbox.write(socket.send)):
        await until(lambda: len(socket.got) == 50)
        for frame in frames[50:]:
            outbox.put(frame)
        await until(lambda: len(socket.got) == 100)
    assert socket.got == frames


async def test_a_frame_put_while_another_is_written_follows_it() -> None:
    outbox, socket = Outbox(1_000), Socket()
    socket.open.clear()
    outbox.put("first")
    async with background("writer", outbox.write(socket.send)):
        await until(lambda: socket.waited_for)
        outbox.put("second")
        socket.open.set()
        await until(lambda: socket.got == ["first", "second"])


async def test_as_much_may_wait_as_the_bound_allows() -> None:
    outbox, socket = Outbox(LIMIT), Socket()
    outbox.put("12345")
    outbox.put("67890")
    async with background("writer", outbox.write(socket.send)):
        await until(lambda: socket.got == ["12345", "67890"])


async def test_one_character_more_is_too_slow() -> None:
    outbox, socket = Outbox(LIMIT), Socket()
    for frame in ("12345", "67890", "x"):
        outbox.put(frame)
    with pytest.raises(Closed, match="Too slow"):
        async with asyncio.timeout(DEADLINE):
            await outbox.write(socket.send)


async def test_past_the_bound_nothing_more_is_kept() -> None:
    outbox = Outbox(LIMIT)
    for _ in range(1000):
        outbox.put("12345")
    assert list(outbox._frames) == ["12345", "12345"]


async def test_the_frame_that_is_being_written_counts_as_waiting() -> None:
    outbox, socket = Outbox(LIMIT), Socket()
    socket.open.clear()
    outbox.put("1234567890")
    writing = asyncio.create_task(outbox.write(socket.send))
    await until(lambda: socket.waited_for)
    outbox.put("x")
    socket.open.set()
    with pytest.raises(Closed, match="Too slow"):
        await asyncio.wait_for(writing, DEADLINE)
    assert socket.got == ["1234567890"]


async def test_what_was_written_makes_room() -> None:
    outbox, socket = Outbox(LIMIT), Socket()
    async with background("writer", outbox.write(socket.send)):
        for _ in range(5):
            socket.got.clear()
            outbox.put("1234567890")
            await until(lambda: socket.got == ["1234567890"])


async def test_a_socket_that_hangs_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.pusher.outbox.WRITE_TIMEOUT", 0.01)
    outbox, socket = Outbox(LIMIT), Socket()
    socket.open.clear()
    outbox.put("frame")
    with pytest.raises(Closed, match="Too slow"):
        async with asyncio.timeout(DEADLINE):
            await outbox.write(socket.send)
    assert socket.got == []


async def test_an_error_of_the_socket_is_not_taken_for_slowness() -> None:
    async def broken(_: str) -> None:
        raise ConnectionResetError

    outbox = Outbox(LIMIT)
    outbox.put("frame")
    with pytest.raises(ConnectionResetError):
        await outbox.write(broken)


async def test_a_socket_can_be_closed_with_a_reason_whatever_waits() -> None:
    outbox, socket = Outbox(LIMIT), Socket()
    outbox.put("frame")
    outbox.close(TAKEN_BACK)
    outbox.put("x" * LIMIT)  # the first reason stands
    with pytest.raises(Closed) as closed:
        await outbox.write(socket.send)
    assert closed.value.why == TAKEN_BACK
    assert socket.got == []


async def test_a_frame_longer_than_the_bound_goes_out_where_nothing_else_waits() -> None:
    outbox, socket = Outbox(LIMIT), Socket()
    async with background("writer", outbox.write(socket.send)):
        for _ in range(3):
            outbox.put("x" * 100)
            await asyncio.wait_for(outbox.empty(), DEADLINE)
    assert socket.got == ["x" * 100] * 3


async def test_nothing_more_waits_for_a_socket_that_went_away() -> None:
    outbox = Outbox(LIMIT)
    outbox.mute()
    for _ in range(1000):
        outbox.put("12345")
    assert not outbox._frames


async def test_whoever_has_much_to_put_can_wait_until_all_is_written() -> None:
    outbox, socket = Outbox(LIMIT), Socket()

    async def put_much() -> None:
        for number in range(100):
            outbox.put(f"{number:5}")
            await outbox.empty()

    async with background("writer", outbox.write(socket.send)):
        await asyncio.wait_for(put_much(), DEADLINE)
        await until(lambda: len(socket.got) == 100)
