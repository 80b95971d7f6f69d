"""What sockets that watch a thread are told of who is here and who types, and how often, as values."""

from m3.frames import Frame
from services.pusher.attendance import TYPISTS, Crowd
from services.pusher.presence import INTERVAL, LISTED, RATE, Presence, here, typing


def crowd(*names: str, connections: int | None = None, unlisted: int = 0, typing: tuple[str, ...] = ()) -> Crowd:
    count = len(names) if connections is None else connections
    return Crowd(count, frozenset(names), unlisted, frozenset(typing))


def presence(*names: str, joined: tuple[str, ...] = (), left: tuple[str, ...] = (), **fields: object) -> Frame:
    frame: Frame = {"type": "presence", "thread_id": "t", "connections": len(names), "clients": list(names)}
    return frame | {"joined": list(joined), "left": list(left)} | fields


def test_who_opens_a_socket_is_told_who_is_here() -> None:
    assert here("t", crowd("bob", "ann", connections=5)) == presence("ann", "bob", connections=5)
    assert typing("t", crowd("ann", typing=("bob", "ann"))) == {
        "type": "typing",
        "thread_id": "t",
        "clients": ["ann", "bob"],
    }


def test_a_frame_lists_so_many_names_and_counts_the_others() -> None:
    names = [f"n{number:04}" for number in range(1000)]
    frame = here("t", crowd(*names, unlisted=7), joined=names, left=names)
    assert frame["clients"] == frame["joined"] == frame["left"] == names[:LISTED]
    assert frame["more"] == 1000 - LISTED + 7
    assert "more" not in here("t", crowd(*names[:LISTED]))
    assert typing("t", crowd(typing=tuple(names)))["clients"] == names[:TYPISTS]


def test_a_change_is_told_in_full_with_who_joined_and_left() -> None:
    told = Presence("t", crowd("ann", "carl"))
    assert told.tell(crowd("ann", "bob"), 1, now=1.0) == [presence("ann", "bob", joined=("bob",), left=("carl",))]
    assert told.tell(crowd("ann", "bob", connections=3), 1, now=2.0) == [presence("ann", "bob", connections=3)]


def test_who_types_is_told_only_when_that_changes() -> None:
    told = Presence("t", crowd("ann"))
    typed = crowd("ann", typing=("ann",))
    assert told.tell(typed, 1, now=1.0) == [typing("t", typed)]
    assert told.tell(typed, 1, now=2.0) == []
    assert told.tell(crowd("ann"), 1, now=3.0) == [{"type": "typing", "thread_id": "t", "clients": []}]


def test_the_first_change_is_told_at_once_and_the_next_after_a_while_with_all_that_came_between() -> None:
    told = Presence("t", crowd())
    assert told.ready(0.0)
    assert told.tell(crowd("ann"), 1, now=10.0) == [presence("ann", joined=("ann",))]
    assert not told.ready(10.0 + INTERVAL / 2)
    assert told.ready(10.0 + INTERVAL)
    assert told.tell(crowd("ann", "bob", "carl"), 1, now=11.0) == [
        presence("ann", "bob", "carl", joined=("bob", "carl"))
    ]


def test_who_went_and_came_back_meanwhile_is_not_told_and_holds_nothing_up() -> None:
    told = Presence("t", crowd("ann"))
    assert told.tell(crowd("ann"), 1, now=10.0) == []
    assert told.ready(10.0)


def test_a_thread_of_five_thousand_watching_sockets_sends_two_thousand_frames_a_second_and_not_25_million() -> None:
    """They come within 20 s, and each is a change; the thread is looked at as often as can be."""
    told = Presence("t", crowd())
    seconds, sent, now = 20.0, 0, 0.0
    for number in range(5_000):
        now += seconds / 5_000
        if told.ready(now):
            watchers = number + 1
            sent += watchers * len(told.tell(crowd(connections=watchers), watchers, now))
    assert told.ready(now + 5_000 / RATE)
    assert told.tell(crowd(connections=5_001), 5_000, now + 5_000 / RATE)  # nothing is kept from them for longer
    assert 0.5 * RATE * seconds < sent <= RATE * seconds + 5_000


def test_typing_and_presence_share_what_a_thread_may_send() -> None:
    told = Presence("t", crowd())
    assert len(told.tell(crowd("ann", typing=("ann",)), RATE, now=10.0)) == 2
    assert not told.ready(11.9)
    assert told.ready(12.0)
