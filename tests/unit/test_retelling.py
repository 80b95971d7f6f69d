"""Who comes in the middle of a turn is told it from its start, as long as it runs and none of it was missed."""

from collections.abc import Sequence
from itertools import product
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

BEFORE, TURN, AFTER, REPLY, ASKED = (UUID(int=number) for number in range(5))
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
    return after(*events).so_far()


# ---- What is told of it


def test_it_is_its_start_and_all_that_was_said_as_one_piece() -> None:
    assert so_far() == []
    assert so_far(STARTED) == [AGAIN]
    turn = after(STARTED, piece(0, "Once "), piece(1, "upon "))
    assert turn.so_far() == turn.so_far() == [AGAIN, piece(0, "Once upon ", pieces=2)]
    turn.hear(piece(2, "a time"))
    assert turn.so_far() == [AGAIN, piece(0, "Once upon a time", pieces=3)]


def test_what_is_told_of_it_can_be_told_on() -> None:
    told = so_far(STARTED, piece(0, "Once "), piece(1, "upon "))
    assert so_far(*told) == told
    assert so_far(*told, piece(2, "a time"))[-1] == piece(0, "Once upon a time", pieces=3)


def test_a_turn_that_begins_anew_is_told_from_there() -> None:
    assert so_far(STARTED, piece(0), STARTED, piece(0, "anew")) == [AGAIN, piece(0, "anew")]


@pytest.mark.parametrize("missing", [[piece(0)], [STARTED, piece(1)], [STARTED, piece(0), piece(2), piece(3)]])
def test_a_turn_of_which_something_was_missed_is_not_told(missing: list[TurnNews]) -> None:
    assert so_far(*missing) == []


@pytest.mark.parametrize(
    "end",
    [
        ended(),
        ended(AFTER),
        piece(0, turn=AFTER),
        recorded(REPLY),
        settled(ASKED, "failed"),
        settled(ASKED, "cancelled"),
    ],
)
def test_a_turn_that_is_over_is_not_told_whatever_tells_its_end(end: ThreadEvent | TurnNews) -> None:
    assert so_far(STARTED, piece(0), end) == []


@pytest.mark.parametrize(
    "other",
    [ended(BEFORE), piece(0, turn=BEFORE), recorded(ASKED), settled(ASKED, "pending"), settled(UUID(int=5), "shed")],
)
def test_what_else_happens_in_the_thread_leaves_it_as_it_is(other: ThreadEvent | TurnNews) -> None:
    assert so_far(STARTED, piece(0), other) == [AGAIN, piece(0)]


def test_a_reply_as_long_as_an_agent_says_is_kept_and_no_longer_one() -> None:
    assert KEPT == MAX_REPLY
    assert len(so_far(STARTED, piece(0, "x" * MAX_REPLY))) == 2
    assert so_far(STARTED, piece(0, "x" * MAX_REPLY), piece(1, "x")) == []


# ---- What of it is new to who was told what came before


def test_what_was_told_is_no_news_when_it_is_told_again() -> None:
    turn = after(STARTED, piece(0, "Once "), piece(1, "upon "))
    assert [turn.hear(news) for news in (AGAIN, piece(0, "Once upon ", pieces=2))] == [[], []]
    assert turn.hear(piece(2, "a time")) == [piece(2, "a time")]


def test_what_was_missed_at_the_end_is_told_with_all_of_it() -> None:
    turn = after(STARTED, piece(0, "Once "))
    whole = piece(0, "Once upon ", pieces=2)
    assert (turn.hear(AGAIN), turn.hear(whole)) == ([], [STARTED, whole])
    assert turn.hear(piece(2, "a time")) == [piece(2, "a time")]


def test_a_turn_that_begins_anew_is_news() -> None:
    turn = after(STARTED, piece(0))
    assert (turn.hear(STARTED), turn.hear(piece(0))) == ([STARTED], [piece(0)])


@pytest.mark.parametrize("late", [AGAIN, piece(0), ended()])
def test_an_agent_that_lost_the_thread_to_another_tells_no_news(late: TurnNews) -> None:
    of_another = STARTED.model_copy(update={"turn_id": AFTER})
    turn = after(STARTED, of_another, piece(0, "another", turn=AFTER))
    told = turn.so_far()
    assert turn.hear(late) == []
    assert turn.so_far() == told


def test_a_gap_is_told_of_once() -> None:
    gaps: list[None] = []
    turn = RunningTurn(on_gap=lambda: gaps.append(None))
    for news in (STARTED, piece(0), piece(2), piece(3), AGAIN, piece(0, "all", pieces=4), piece(4)):
        turn.hear(news)
    assert len(gaps) == 1


class Client:
    """Shows what the documented rules of the frames make of them."""

    def __init__(self, told: Sequence[TurnNews] = ()) -> None:
        self.text, self.next, self.is_torn = "", 0, False
        self.turn: UUID | None = None
        for news in told:
            self.hear(news)

    def hear(self, news: TurnNews) -> None:
        if isinstance(news, TurnStarted) or news.turn_id != self.turn:
            self.text, self.next, self.is_torn = "", 0, False
            self.turn = news.turn_id
        if isinstance(news, ReplyGrew):
            self.is_torn |= news.index != self.next
            self.text += news.text
            self.next = news.index + news.pieces


def lived_through(history: Sequence[str]) -> tuple[list[Client], str]:
    """The clients of a thread after a history of its turn, and what was said by then.

    ``say`` and ``restart`` are told, or lost with a ``-``; ``retell`` is what an agent does that was asked, and a client
    ``join``s in the middle.
    """
    heard, clients = RunningTurn(), [Client()]
    attempt, said, told = 0, 0, RunningTurn()

    def tell(*news: TurnNews) -> None:
        for one in news:
            for passed in heard.hear(one):
                for client in clients:
                    client.hear(passed)

    tell(*told.hear(STARTED))
    for step in history:
        if step == "join":
            clients.append(Client(heard.so_far()))
        elif step == "retell":
            tell(*told.so_far())
        else:
            if step.startswith("restart"):
                attempt, said, told = attempt + 1, 0, RunningTurn()
                news = told.hear(STARTED.model_copy(update={"turn_id": UUID(int=10 + attempt)}))
            else:
                turn_id = UUID(int=10 + attempt) if attempt else TURN
                news = told.hear(piece(told.pieces, f"{attempt}{said}", turn=turn_id))
                said += 1
            if not step.endswith("-"):
                tell(*news)
    return clients, "".join(f"{attempt}{number}" for number in range(said))


def test_whatever_is_lost_nobody_sees_attempts_mixed_or_a_hole_unmarked_and_all_see_all_once_it_is_told_again() -> None:
    steps = ("say", "say-", "restart", "restart-", "retell", "join")
    for history in (history for length in range(1, 7) for history in product(steps, repeat=length)):
        if sum(step.startswith("restart") for step in history) > 1:
            continue
        clients, said = lived_through(history)
        for client in clients:
            length = len(client.text) // 2
            whole = ["".join(f"{attempt}{number}" for number in range(length)) for attempt in range(2)]
            assert client.is_torn or client.text in whole, history
            if history[-1] == "retell":
                assert (client.text, client.is_torn) == (said, False), history


# ---- Whoever asks does not wait for it


async def test_agents_are_asked_for_each_thread_once_and_for_none_that_waits_where_the_bus_takes_nothing() -> None:
    asked: list[str] = []

    class Deaf(MemoryBus):
        async def publish(self, route: Route, body: bytes) -> None:
            asked.append(route.key)
            if route.key == "retell.refused":
                raise BusUnavailable("Nobody hears.")

    bus = Deaf()
    async with bus.subscribe("late") as subscription:
        retellings = Retellings(bus, subscription)
        retellings.want("t", "other", "t")
        async with background("retellings", retellings.run()):
            await until(lambda: len(asked) == 2)
            retellings.want("waits", "refused")
            await until(lambda: len(asked) == 3)
            retellings.want("later")
            await until(lambda: len(asked) == 4)
    assert sorted(asked[:2]) == ["retell.other", "retell.t"]
    assert asked[2:] == ["retell.refused", "retell.later"]
