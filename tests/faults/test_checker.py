"""Each promise that the checker looks after, broken once: a checker that cannot fail is worthless."""

from dataclasses import replace

import pytest

from tests.faults.checker import REPLY, Frame, Heard, Log, Row, Said, Sitting, violations

ONE = Row("t", 1, 1, "m1", "one", "answered", reply_id="r1")
ONES_REPLY = Row("t", 2, 2, "r1", REPLY + "one", None, in_reply_to=("m1",))
TWO = Row("t", 3, 4, "m2", "two", "failed")
THREE = Row("t", 5, 5, "m3", "three", "answered", reply_id="r3")
THREES_REPLY = Row("t", 6, 6, "r3", REPLY + "three", None, in_reply_to=("m3",))
ROWS = (ONE, ONES_REPLY, TWO, THREE, THREES_REPLY)

SAID = (
    Said("t", "one", "acknowledged", 10, "m1", 1, "r1"),
    Said("t", "two", "acknowledged", 20, "m2", 3),
    Said("t", "three", "unknown", 30),
    Said("t", "four", "refused", 40),
)


def message(number: int) -> Frame:
    return Frame("new_message", number, "t", next(row.message_id for row in ROWS if row.seq == number))


def plain() -> Heard:
    return Heard(
        "plain",
        "t",
        everything=False,
        sittings=[Sitting(0, 0, [message(1), message(2)]), Sitting(2, 15, [message(n) for n in (3, 5, 6)])],
    )


FATE = Frame("fate", 4, "t", "m2")
ANSWER_ONE = Frame("fate:answered", 2, "t", "m1")
ANSWER_THREE = Frame("fate:answered", 6, "t", "m3")


def everything() -> Heard:
    frames = [message(1), ANSWER_ONE, message(2), message(3), FATE, message(5), ANSWER_THREE, message(6)]
    return Heard("everything", "t", everything=True, sittings=[Sitting(0, 0, frames)])


def news() -> Heard:
    frames = [message(n) for n in (3, 5, 6)]
    return Heard("news", "t", everything=False, sittings=[Sitting(None, 15, frames)])


GOOD = Log(
    said=SAID,
    rows=ROWS,
    heads={"t": 6},
    heard=(plain(), everything(), news()),
    news=("m1", "m3"),
    queues={"recorder": 0},
    dead=(b"poison",),
    poison=(b"poison", b"harmless"),
    deadly=(b"poison",),
)


def broken(log: Log) -> set[str]:
    return {violation.what for violation in violations(log)}


def without(*gone: Row) -> tuple[Row, ...]:
    return tuple(row for row in ROWS if row not in gone)


def test_a_room_that_kept_its_promises_has_no_violation() -> None:
    assert violations(GOOD) == []


@pytest.mark.parametrize(
    ("what", "log"),
    [
        ("lost", replace(GOOD, rows=without(TWO))),
        ("doubled", replace(GOOD, rows=(*ROWS, Row("t", 7, 8, "m9", "three", "failed")), heads={"t": 8})),
        ("refused but recorded", replace(GOOD, rows=(*ROWS, Row("t", 7, 8, "m9", "four", "failed")))),
        ("never said", replace(GOOD, rows=(*ROWS, Row("t", 7, 8, "m9", "five", "failed")))),
        ("not as acknowledged", replace(GOOD, said=(replace(SAID[0], seq=3), *SAID[1:]))),
        ("not as acknowledged", replace(GOOD, said=(replace(SAID[0], message_id="m2"), *SAID[1:]))),
        ("not as acknowledged", replace(GOOD, said=(replace(SAID[0], thread="u"), *SAID[1:]))),
        ("wrong reply", replace(GOOD, said=(replace(SAID[0], reply_id="r3"), *SAID[1:]))),
        ("numbers", replace(GOOD, heads={"t": 7})),
        ("numbers", replace(GOOD, heads={"t": 5})),
        ("numbers", replace(GOOD, heads={})),
        ("numbers", replace(GOOD, rows=(*without(TWO), replace(TWO, rev=5)))),
        ("numbers", replace(GOOD, rows=(*without(TWO), replace(TWO, rev=3)))),
        ("numbers", replace(GOOD, rows=(*without(TWO), replace(TWO, seq=4, rev=3)))),
        ("pending", replace(GOOD, rows=(*without(THREE), replace(THREE, fate="pending")))),
        ("replies", replace(GOOD, rows=without(THREES_REPLY))),
        ("replies", replace(GOOD, rows=(*ROWS, replace(THREES_REPLY, seq=7, rev=7, message_id="r9")))),
        ("replies", replace(GOOD, rows=(*ROWS, Row("t", 7, 7, "r9", REPLY + "two", None, in_reply_to=("m2",))))),
        ("wrong reply", replace(GOOD, rows=(*without(ONES_REPLY), replace(ONES_REPLY, content=REPLY + "three")))),
        ("wrong reply", replace(GOOD, rows=(*without(ONE), replace(ONE, reply_id="r3")))),
        ("wrong reply", replace(GOOD, rows=(*without(ONES_REPLY), replace(ONES_REPLY, thread="u")))),
        ("reply to nothing", replace(GOOD, rows=(*without(ONES_REPLY), replace(ONES_REPLY, in_reply_to=())))),
        ("queue not empty", replace(GOOD, queues={"recorder": 1})),
        ("dead letter", replace(GOOD, dead=(b"poison", b"a good message"))),
        ("dead letter", replace(GOOD, dead=(b"poison", b"poison"))),
        ("odd answer", replace(GOOD, odd=("500",))),
        ("foreign news", replace(GOOD, news=("m1", "m9"))),
        ("poison vanished", replace(GOOD, dead=())),
    ],
)
def test_a_broken_promise_is_found(what: str, log: Log) -> None:
    assert what in broken(log)


def plain_with(*second: Frame) -> Heard:
    heard = plain()
    heard.sittings[1].frames = list(second)
    return heard


def all_with(*frames: Frame) -> Heard:
    heard = everything()
    heard.sittings[0].frames = list(frames)
    return heard


@pytest.mark.parametrize(
    ("what", "heard"),
    [
        ("socket", plain_with(message(5), message(6))),  # a gap between two connections
        ("socket", plain_with(message(3), message(6))),  # a gap within one
        ("socket", plain_with(message(3), message(5))),  # short of the head
        ("socket", plain_with(message(2), message(3), message(5), message(6))),  # a repeat between two
        ("socket", plain_with(message(3), message(3), message(5), message(6))),  # a repeat within one
        ("socket", plain_with(message(5), message(3), message(6))),  # out of order
        ("socket", plain_with(message(3), FATE, message(5), message(6))),  # more than it asked for
        ("socket", plain_with(message(3), message(5), message(6), ANSWER_THREE)),
        ("socket", plain_with(message(3), replace(message(5), message_id="m1"), message(6))),
        ("foreign thread", plain_with(message(3), message(5), replace(message(6), thread="u"))),
        ("reset", plain_with(Frame("reset", 0, "t"), message(3), message(5), message(6))),
        ("socket", all_with(message(1), message(2), ANSWER_ONE, message(3), message(5), message(6), ANSWER_THREE)),
        ("socket", all_with(*(message(n) for n in (1, 2, 3)), FATE, message(5), message(6), ANSWER_THREE)),
        ("socket", all_with(*everything().sittings[0].frames, ANSWER_THREE)),
        ("socket", all_with(ANSWER_ONE, *everything().sittings[0].frames)),
        ("socket", Heard("deaf", "t", everything=False, sittings=[Sitting(0, 0)])),
        ("socket", Heard("deaf", "t", everything=False, sittings=[Sitting(None, 15)])),
        ("socket", Heard("late", "t", everything=False, sittings=[Sitting(None, 15, [message(5), message(6)])])),
    ],
)
def test_a_socket_that_was_told_wrongly_is_found(what: str, heard: Heard) -> None:
    assert what in broken(replace(GOOD, heard=(heard,)))


def test_a_cut_between_an_answer_and_its_reply_is_no_violation() -> None:
    heard = everything()
    frames = heard.sittings[0].frames
    heard.sittings = [Sitting(0, 0, frames[:2]), Sitting(1, 5, frames[1:])]
    assert violations(replace(GOOD, heard=(heard,))) == []
