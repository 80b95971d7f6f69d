"""Who comes in the middle of a turn is told it from its start, as long as it runs and none of it was missed."""

from uuid import UUID

import pytest

from m3.events import MessageRecorded, MessageSettled, ReplyGrew, ThreadEvent, TurnEnded, TurnNews, TurnStarted
from services.pusher.running_turn import KEPT, RunningTurn
from tests.unit.test_feed import MESSAGE

TURN, OTHER, REPLY, ASKED = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)
STARTED = TurnStarted(thread_id="t", turn_id=TURN, reply_id=REPLY, in_reply_to=(ASKED,))


def piece(index: int, text: str = "…", turn: UUID = TURN) -> ReplyGrew:
    return ReplyGrew(thread_id="t", turn_id=turn, reply_id=REPLY, index=index, text=text)


def ended(turn: UUID = TURN) -> TurnEnded:
    return TurnEnded(thread_id="t", turn_id=turn, reply_id=REPLY, outcome="answered")


def recorded(message_id: UUID) -> MessageRecorded:
    return MessageRecorded(message=MESSAGE.model_copy(update={"message_id": message_id}))


def settled(message_id: UUID, fate: str) -> MessageSettled:
    return MessageSettled(message=MESSAGE.model_copy(update={"message_id": message_id, "fate": fate}))


def after(*events: ThreadEvent | TurnNews) -> list[TurnNews]:
    turn = RunningTurn()
    for event in events:
        turn.hear(event)
    return list(turn.heard)


def test_it_is_all_that_was_told_of_the_turn() -> None:
    assert after() == []
    assert after(STARTED, piece(0), piece(1)) == [STARTED, piece(0), piece(1)]


def test_a_turn_that_begins_anew_is_told_from_there() -> None:
    assert after(STARTED, piece(0), STARTED, piece(0, "anew")) == [STARTED, piece(0, "anew")]


@pytest.mark.parametrize("missing", [[piece(0)], [STARTED, piece(1)], [STARTED, piece(0), piece(2), piece(3)]])
def test_a_turn_of_which_something_was_missed_is_not_told(missing: list[TurnNews]) -> None:
    assert after(*missing) == []


@pytest.mark.parametrize("end", [ended(), recorded(REPLY), settled(ASKED, "failed"), settled(ASKED, "cancelled")])
def test_a_turn_that_is_over_is_not_told_whatever_tells_its_end(end: ThreadEvent | TurnNews) -> None:
    assert after(STARTED, piece(0), end) == []


@pytest.mark.parametrize(
    "other",
    [ended(OTHER), piece(0, turn=OTHER), recorded(ASKED), settled(ASKED, "pending"), settled(UUID(int=5), "shed")],
)
def test_what_else_happens_in_the_thread_leaves_it_as_it_is(other: ThreadEvent | TurnNews) -> None:
    assert after(STARTED, piece(0), other) == [STARTED, piece(0)]


def test_a_reply_longer_than_any_is_not_kept() -> None:
    half = "x" * (KEPT // 2)
    assert len(after(STARTED, piece(0, half), piece(1, half))) == 3
    assert after(STARTED, piece(0, half), piece(1, half), piece(2)) == []
