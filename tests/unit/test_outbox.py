"""What waits for one socket is bounded, and a socket that does not take it is given up."""

import pytest

from services.pusher.close_codes import Close
from services.pusher.outbox import Outbox
from tests.support.writing import Writer

LIMIT = 10


def test_what_is_put_is_written_at_once_and_in_order() -> None:
    writer = Writer()
    outbox = Outbox(writer, LIMIT)
    for number in range(100):
        outbox.put(b"%d" % number)
    assert writer.writes == [b"%d" % number for number in range(100)]


def test_a_frame_is_told_as_text_of_a_server() -> None:
    writer = Writer()
    Outbox(writer, LIMIT).tell("你好")
    assert writer.writes == [b"\x81\x06" + "你好".encode()]


def test_as_much_may_wait_as_the_bound_allows() -> None:
    writer = Writer(takes=False)
    outbox = Outbox(writer, LIMIT)
    outbox.put(b"12345")
    outbox.put(b"67890")
    assert writer.closed is None
    assert writer.unsent == LIMIT


def test_one_byte_more_is_too_slow_and_lost() -> None:
    writer = Writer(takes=False)
    outbox = Outbox(writer, LIMIT)
    for frame in (b"12345", b"67890", b"x"):
        outbox.put(frame)
    assert writer.closed == (Close.SLOW.code, Close.SLOW.reason)
    assert writer.writes == [b"12345", b"67890"]


def test_what_was_taken_makes_room() -> None:
    writer = Writer(takes=False)
    outbox = Outbox(writer, LIMIT)
    for _ in range(5):
        outbox.put(b"1234567890")
        writer.unsent = 0
    assert writer.closed is None
    assert len(writer.writes) == 5


def test_what_is_longer_than_the_bound_is_written_where_nothing_else_waits() -> None:
    writer = Writer()
    outbox = Outbox(writer, LIMIT)
    for _ in range(3):
        outbox.put(b"x" * 100)
    assert writer.writes == [b"x" * 100] * 3
    assert writer.closed is None


def test_who_waits_for_the_client_in_between_has_no_bound() -> None:
    writer = Writer(takes=False)
    unbounded = Outbox(writer, LIMIT, all_events=True).unbounded()
    for _ in range(3):
        unbounded.put(b"1234567890")
    assert writer.closed is None
    assert unbounded.all_events


@pytest.mark.parametrize("why", Close)
def test_a_socket_is_closed_with_a_code_and_a_sentence(why: Close) -> None:
    writer = Writer()
    Outbox(writer, LIMIT).close(why)
    assert writer.closed == (why.code, why.reason)
    assert len(why.reason.encode()) <= 123  # as a close frame can carry (RFC 6455, 5.5)
