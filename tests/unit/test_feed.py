"""Each number of a thread goes out once, in order, without a gap."""

import random
from datetime import UTC, datetime
from uuid import UUID

import pytest

from m3.events import Message, MessageRecorded, MessageSettled, ThreadEvent
from services.pusher.feed import Feed

MESSAGE = Message(
    id=1,
    message_id=UUID(int=1),
    thread_id="t",
    seq=0,
    rev=0,
    role="user",
    content="hi",
    source="user",
    timestamp=datetime(2025, 1, 2, tzinfo=UTC),
    interface="http_api",
)


def numbered(*numbers: int) -> list[ThreadEvent]:
    return [MessageRecorded(message=MESSAGE.model_copy(update={"seq": number})) for number in numbers]


def numbers(events: list[ThreadEvent]) -> list[int]:
    return [event.number for event in events]


def announce(feed: Feed, *announced: int) -> list[int]:
    return numbers([passed for event in numbered(*announced) for passed in feed.announce(event)])


def fill(feed: Feed, *found: int) -> list[int]:
    """Ask the table and get this answer."""
    feed.ask()
    return numbers(feed.fill(numbered(*found)))


@pytest.fixture
def feed() -> Feed:
    """A thread that is open from its number 5 on."""
    feed = Feed()
    feed.start(5)
    return feed


def test_nothing_goes_out_before_the_start() -> None:
    feed = Feed()
    assert announce(feed, 1, 2) == []
    assert not feed.started
    assert not feed.behind


def test_what_was_heard_before_the_start_is_fetched_after_it() -> None:
    feed = Feed()
    announce(feed, 6, 7)
    feed.start(5)
    assert feed.started
    assert feed.behind
    assert fill(feed, 6, 7) == [6, 7]


def test_a_doubt_from_before_the_start_is_kept() -> None:
    feed = Feed()
    feed.doubt()
    feed.start(5)
    assert feed.behind


def test_an_empty_thread_begins_with_its_first_number() -> None:
    feed = Feed()
    feed.start(0)
    assert announce(feed, 1) == [1]


def test_the_next_numbers_go_out_at_once(feed: Feed) -> None:
    assert announce(feed, 6) == [6]
    assert announce(feed, 7, 8) == [7, 8]
    assert not feed.behind


def test_a_change_of_an_earlier_message_goes_out_at_its_own_number(feed: Feed) -> None:
    changed = MessageSettled(message=MESSAGE.model_copy(update={"seq": 2, "rev": 6}))
    assert feed.announce(changed) == [changed]
    assert announce(feed, 7) == [7]


def test_what_went_out_before_does_not_go_out_again(feed: Feed) -> None:
    announce(feed, 6)
    assert announce(feed, 5, 6, 6, 7) == [7]
    assert announce(feed, 1) == []


def test_what_comes_again_makes_the_table_be_asked_once_whether_it_was_taken_back(feed: Feed) -> None:
    announce(feed, 5)
    assert feed.behind
    assert fill(feed) == []
    assert not feed.behind


def test_a_thread_that_was_taken_back_goes_on_from_its_new_head(feed: Feed) -> None:
    announce(feed, 3)
    fill(feed)
    feed.start(3)
    assert announce(feed, 4, 5) == [4, 5]
    assert not feed.behind


def test_a_gap_is_put_aside_and_filled_from_the_table_in_order(feed: Feed) -> None:
    assert announce(feed, 8) == []
    assert feed.behind
    assert fill(feed, 6, 7, 8) == [6, 7, 8]


def test_what_comes_before_a_gap_goes_out(feed: Feed) -> None:
    assert announce(feed, 6, 8) == [6]
    assert feed.behind


def test_what_closes_a_gap_late_lets_the_rest_go_out_and_nobody_asks_the_table(feed: Feed) -> None:
    announce(feed, 8, 7)
    assert announce(feed, 6) == [6, 7, 8]
    assert not feed.behind


def test_only_so_much_is_put_aside(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.pusher.feed.ASIDE", 2)
    announce(feed, 7, 8, 9)
    assert announce(feed, 6) == [6, 7, 8]
    assert feed.behind
    assert fill(feed, 9) == [9]


def test_the_table_is_asked_until_it_has_nothing_more(feed: Feed) -> None:
    """However long the gap is, and whatever the size of a page."""
    feed.doubt()
    assert fill(feed, 6, 7) == [6, 7]
    assert feed.behind
    assert fill(feed, 8) == [8]
    assert feed.behind
    assert fill(feed) == []
    assert not feed.behind


def test_the_table_is_asked_for_what_follows_the_last_number_that_went_out(feed: Feed) -> None:
    announce(feed, 6, 9)
    assert feed.ask() == 6


def test_a_table_without_what_was_heard_of_is_not_asked_for_ever(feed: Feed) -> None:
    announce(feed, 7)
    assert fill(feed) == []
    assert not feed.behind


def test_what_is_heard_while_the_table_answers_is_not_forgotten(feed: Feed) -> None:
    feed.doubt()
    feed.ask()
    announce(feed, 7)
    assert feed.fill([]) == []  # an answer from before 6 was committed
    assert feed.behind


def test_announcements_that_cross_the_tables_answer_are_not_forgotten(feed: Feed) -> None:
    assert announce(feed, 61, 100) == []
    feed.ask()
    assert announce(feed, *range(6, 61)) == [*range(6, 61)]
    assert feed.fill(numbered(*range(6, 56))) == []
    assert feed.behind


def test_the_table_is_the_truth_even_where_it_lacks_a_number(feed: Feed) -> None:
    feed.doubt()
    assert fill(feed, 7, 9) == [7, 9]
    assert announce(feed, 10) == [10]


def test_a_doubt_while_the_table_answers_is_not_forgotten(feed: Feed) -> None:
    feed.doubt()
    feed.ask()
    feed.doubt()
    feed.fill([])
    assert feed.behind


def spoil(announced: list[ThreadEvent], chance: random.Random) -> None:
    """Lose, double or shuffle what is on its way."""
    some = chance.randint(1, 5)
    match chance.choice(["lose", "double", "shuffle"]):
        case "lose":
            del announced[:some]
        case "double":
            announced += announced[:some]
        case "shuffle":
            chance.shuffle(announced)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_lost_late_doubled_or_shuffled_each_number_goes_out_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    start, head, page = chance.randint(0, 5), chance.randint(6, 60), chance.randint(1, 7)
    table = numbered(*range(1, head + 1))
    committed = start  # what the table has so far; nothing else can be announced
    announced = numbered(*range(1, start + 1))
    answer: list[ThreadEvent] | None = None  # of the table, on its way
    feed = Feed()
    feed.start(start)
    went_out: list[ThreadEvent] = []
    while committed < head or announced or answer is not None:
        some = chance.randint(1, 5)
        match chance.choice(["commit", "hear", "spoil", "ask", "answer", "doubt"]):
            case "commit":
                announced += table[committed : committed + some]
                committed = min(committed + some, head)
            case "hear":
                went_out += [passed for event in announced[:some] for passed in feed.announce(event)]
                del announced[:some]
            case "spoil":
                spoil(announced, chance)
            case "ask" if feed.behind and answer is None:
                answer = table[feed.ask() : committed][:page]
            case "answer" if answer is not None:
                went_out += feed.fill(answer)
                answer = None
            case "doubt":
                feed.doubt()
    feed.doubt()  # as after a connection that was lost, when nobody speaks any more
    while feed.behind:
        went_out += feed.fill(table[feed.ask() :][:page])
    assert numbers(went_out) == list(range(start + 1, head + 1))
