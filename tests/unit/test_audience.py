"""Each socket of a thread is sent what it asked for: built once, and together what came together."""

from uuid import UUID

import pytest

from m3.events import MessageRecorded, MessageSettled, ReplyGrew, ThreadEvent, TurnNews, TurnStarted
from services.pusher import frames
from services.pusher.audience import Audience
from services.pusher.close_codes import Close
from services.pusher.outbox import Outbox
from tests.support.writing import Writer
from tests.unit.test_feed import MESSAGE

SAID = MessageRecorded(message=MESSAGE)
REPLY = MessageRecorded(message=MESSAGE.model_copy(update={"in_reply_to": (UUID(int=2), UUID(int=3))}))
FATE = MessageSettled(message=MESSAGE.model_copy(update={"rev": 4, "fate": "shed", "reason": "Why."}))
STARTED = TurnStarted(thread_id="t", turn_id=UUID(int=4), reply_id=UUID(int=5), in_reply_to=(UUID(int=6),))
DELTA = ReplyGrew(thread_id="t", turn_id=UUID(int=4), reply_id=UUID(int=5), index=0, text="hel")


@pytest.fixture
def sockets() -> Audience:
    return Audience(on_gap=lambda: None)


def join(sockets: Audience, *, all_events: bool = False, limit: int = 1_000_000) -> Writer:
    writer = Writer(takes=False)
    sockets.join(Outbox(writer, limit, all_events=all_events))
    return writer


def kinds(writer: Writer) -> list[str]:
    """The types of the frames in each write, such as ``message+fate``."""
    marks = {b'"new_message"': "message", b'"fate"': "fate", b'"delta"': "delta", b'"turn"': "turn"}
    return [
        "+".join(name for _, name in sorted((write.index(mark), name) for mark, name in marks.items() if mark in write))
        for write in writer.writes
    ]


def tell(sockets: Audience, *events: ThreadEvent | TurnNews) -> int:
    size = sum(sockets.gather(event) for event in events)
    sockets.flush()
    return size


def test_a_lone_message_is_one_write_to_everybody(sockets: Audience) -> None:
    plain, watcher = join(sockets), join(sockets, all_events=True)
    tell(sockets, SAID)
    assert plain.writes == watcher.writes
    assert kinds(plain) == ["message"]


def test_who_watches_from_the_middle_of_a_turn_on_is_told_it_from_its_start_in_one_write(sockets: Audience) -> None:
    tell(sockets, STARTED, DELTA)
    plain, *watchers = join(sockets), join(sockets, all_events=True), join(sockets, all_events=True)
    assert [kinds(writer) for writer in (plain, *watchers)] == [[], ["turn+delta"], ["turn+delta"]]
    tell(sockets, DELTA.model_copy(update={"index": 1, "text": "lo"}))
    assert b'"hello"' in join(sockets, all_events=True).writes[0]


def test_a_socket_with_little_room_is_spared_what_was_said_before(sockets: Audience) -> None:
    tell(sockets, STARTED, DELTA.model_copy(update={"text": "x" * 1_000}))
    watcher = join(sockets, all_events=True, limit=2_000)
    tell(sockets, SAID)
    assert kinds(watcher) == ["message"]


def test_who_is_told_a_turn_already_is_not_told_it_again(sockets: Audience) -> None:
    watcher = join(sockets, all_events=True)
    tell(sockets, STARTED, DELTA)
    tell(sockets, STARTED.model_copy(update={"again": True}), DELTA)
    assert kinds(watcher) == ["turn+delta"]


def test_nothing_is_told_of_a_turn_whose_thread_was_taken_back(sockets: Audience) -> None:
    tell(sockets, STARTED, DELTA)
    sockets.close(Close.TAKEN_BACK)
    assert join(sockets, all_events=True).writes == []


def test_what_came_together_is_one_write_to_each_socket(sockets: Audience) -> None:
    plain, watcher = join(sockets), join(sockets, all_events=True)
    tell(sockets, SAID, SAID, SAID)
    assert [len(writer.writes) for writer in (plain, watcher)] == [1, 1]
    assert plain.writes[0].count(b"new_message") == 3


def test_the_same_bytes_go_to_all_who_get_the_same(sockets: Audience) -> None:
    one, other = join(sockets), join(sockets)
    tell(sockets, SAID, SAID)
    assert one.writes[0] is other.writes[0]


def test_fates_and_turns_are_for_those_who_asked_and_stand_before_the_reply(sockets: Audience) -> None:
    plain, watcher = join(sockets), join(sockets, all_events=True)
    tell(sockets, DELTA, REPLY)
    tell(sockets, FATE)
    assert kinds(plain) == ["message"]
    assert kinds(watcher) == ["delta+fate+message", "fate"]


def test_nothing_is_built_for_nobody(sockets: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def build(text: str) -> bytes:
        built.append(text)
        return text.encode()

    monkeypatch.setattr("services.pusher.built.text_frame", build)
    monkeypatch.setattr("services.pusher.audience.text_frame", build)
    tell(sockets, REPLY, FATE, DELTA)
    assert built == []
    join(sockets)
    tell(sockets, REPLY, FATE, DELTA)
    assert built == [*frames.for_everyone(REPLY)]
    for _ in range(3):
        join(sockets, all_events=True)
    tell(sockets, REPLY)
    assert len(built) == 1 + 2 + 1  # two fates and the message, whoever gets them


def test_who_left_is_sent_nothing_more(sockets: Audience) -> None:
    writer = Writer()
    outbox = Outbox(writer, 100)
    sockets.join(outbox)
    sockets.leave(outbox)
    tell(sockets, SAID)
    assert writer.writes == []
    assert len(sockets) == 0


def test_a_slow_socket_costs_the_others_nothing(sockets: Audience) -> None:
    slow, fast = join(sockets, limit=1), join(sockets)
    for _ in range(3):
        tell(sockets, SAID)
    assert slow.closed == (Close.SLOW.code, Close.SLOW.reason)
    assert kinds(fast) == ["message"] * 3


def test_it_tells_how_much_it_gathered_for_a_socket(sockets: Audience) -> None:
    assert tell(sockets, SAID) == 0
    writer = join(sockets, all_events=True)
    size = tell(sockets, SAID, FATE, DELTA)
    assert size == len(writer.writes[0])


def test_all_can_be_closed(sockets: Audience) -> None:
    writers = [join(sockets), join(sockets, all_events=True)]
    sockets.close(Close.TAKEN_BACK)
    assert {writer.closed for writer in writers} == {(Close.TAKEN_BACK.code, Close.TAKEN_BACK.reason)}
