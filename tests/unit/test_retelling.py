"""Who comes in the middle of a turn is told it from its start, as long as it runs and none of it was missed."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from m3.bus.memory import MemoryBus
from m3.errors import BusUnavailable
from m3.events import MessageRecorded, MessageSettled, ReplyGrew, ThreadEvent, TurnEnded, TurnNews, TurnStarted
from m3.retelling import KEPT, Retellings, RunningTurn
from m3.tasks import background
from m3.topology import Route
from services.agent.spoken import MAX_REPLY
from tests.support.until import until
from tests.unit.test_feed import MESSAGE

TURN, OTHER, REPLY, ASKED = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)
STARTED = TurnStarted(thread_id="t", turn_id=TURN, reply_id=REPLY, in_reply_to=(ASKED,))
AGAIN = STARTED.model_copy(update={"again": True})


def piece(index: int, text: str = "…", turn: UUID = TURN, pieces: int = 1) -> ReplyGrew:
    return ReplyGrew(thread_id="t", turn_id=turn, reply_id=REPLY, index=index, pieces=pieces, text=text)


def ended(turn: UUID = TURN) -> TurnEnded:
    return TurnEnded(thread_id="t", turn_id=turn, reply_id=REPLY, outcome="answered")


def recorded(message_id: UUID) -> MessageRecorded:
    return MessageRecorded(message=MESSAGE.model_copy(update={"message_id": message_id}))


def settled(message_id: UUID, fate: str) -> MessageSettled:
    return MessageSettled(message=MESSAGE.model_copy(update={"message_id": message_id, "fate": fate}))


def after(*events: ThreadEvent | TurnNews) -> RunningTurn:
    turn = RunningTurn()
    for event in events:
        if isinstance(event, TurnNews):
            turn.hear(event)
        else:
            turn.see(event)
    return turn


def so_far(*events: ThreadEvent | TurnNews) -> Sequence[TurnNews]:
    return after(*events).so_far


# ---- What is told of it


def test_it_is_its_start_and_all_that_was_said_as_one_piece() -> None:
    assert so_far() == []
    assert so_far(STARTED) == [AGAIN]
    turn = after(STARTED, piece(0, "Once "), piece(1, "upon "))
    assert turn.so_far == turn.so_far == [AGAIN, piece(0, "Once upon ", pieces=2)]
    turn.hear(piece(2, "a time"))
    assert turn.so_far == [AGAIN, piece(0, "Once upon a time", pieces=3)]


def test_what_is_told_of_it_can_be_told_on() -> None:
    told = so_far(STARTED, piece(0, "Once "), piece(1, "upon "))
    assert so_far(*told) == told
    assert so_far(*told, piece(2, "a time"))[-1] == piece(0, "Once upon a time", pieces=3)


def test_a_turn_that_begins_anew_is_told_from_there() -> None:
    assert so_far(STARTED, piece(0), STARTED, piece(0, "anew")) == [AGAIN, piece(0, "anew")]


@pytest.mark.parametrize("missing", [[piece(0)], [STARTED, piece(1)], [STARTED, piece(0), piece(2), piece(3)]])
def test_a_turn_of_which_something_was_missed_is_not_told(missing: list[TurnNews]) -> None:
    assert so_far(*missing) == []


@pytest.mark.parametrize("end", [ended(), recorded(REPLY), settled(ASKED, "failed"), settled(ASKED, "cancelled")])
def test_a_turn_that_is_over_is_not_told_whatever_tells_its_end(end: ThreadEvent | TurnNews) -> None:
    assert so_far(STARTED, piece(0), end) == []


@pytest.mark.parametrize(
    "other",
    [ended(OTHER), piece(0, turn=OTHER), recorded(ASKED), settled(ASKED, "pending"), settled(UUID(int=5), "shed")],
)
def test_what_else_happens_in_the_thread_leaves_it_as_it_is(other: ThreadEvent | TurnNews) -> None:
    assert so_far(STARTED, piece(0), other) == [AGAIN, piece(0)]


def test_a_reply_as_long_as_an_agent_says_is_kept_and_no_longer_one() -> None:
    assert KEPT == MAX_REPLY
    assert len(so_far(STARTED, piece(0, "x" * MAX_REPLY))) == 2
    assert so_far(STARTED, piece(0, "x" * MAX_REPLY), piece(1, "x")) == []


# ---- What of it is new to who was told what came before


def test_what_was_told_is_no_news_when_it_is_told_again() -> None:
    turn = after(STARTED, piece(0), piece(1))
    assert [turn.hear(news) for news in (AGAIN, piece(0, "……", pieces=2), piece(1))] == [[], [], []]
    assert turn.hear(piece(2)) == [piece(2)]


def test_what_was_missed_at_the_end_is_told_with_all_of_it() -> None:
    turn = after(STARTED, piece(0))
    whole = piece(0, "……", pieces=2)
    assert (turn.hear(AGAIN), turn.hear(whole)) == ([], [STARTED, whole])
    assert turn.hear(piece(2)) == [piece(2)]


def test_a_turn_that_was_torn_is_news_when_it_is_told_again() -> None:
    turn = after(STARTED, piece(0), piece(2))
    told: list[TurnNews] = [AGAIN, piece(0, "………", pieces=3), piece(3), ended()]
    assert [turn.hear(news) for news in told] == [[news] for news in told]


def test_a_turn_that_begins_anew_is_news() -> None:
    turn = after(STARTED, piece(0))
    assert (turn.hear(STARTED), turn.hear(piece(0))) == ([STARTED], [piece(0)])


# ---- Whoever asks does not wait for it


async def test_agents_are_asked_for_each_thread_once_whatever_becomes_of_another() -> None:
    asked: list[str] = []

    class Deaf(MemoryBus):
        async def publish(self, route: Route, body: bytes) -> None:
            asked.append(route.key)
            if route.key == "retell.refused":
                raise BusUnavailable("Nobody hears.")

    bus = Deaf()
    async with bus.subscribe("late") as subscription:
        retellings = Retellings(bus, subscription)
        retellings.want("t", "refused", "t")
        async with background("retellings", retellings.run()):
            await until(lambda: len(asked) == 2)
            retellings.want("other")
            await until(lambda: len(asked) == 3)
    assert sorted(asked) == ["retell.other", "retell.refused", "retell.t"]
