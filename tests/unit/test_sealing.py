"""What is sealed opens with its key and in its place, and nowhere else."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from m3.errors import StartError, StoreUnavailable, Unreadable
from m3.events import (
    Incoming,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    ReplyGrew,
    ThreadEvent,
    ThreadSummarised,
    TurnEnded,
    TurnNews,
    decode,
    encode,
)
from m3.sealing import UNREADABLE, Content, Masters, WrappedKey, content
from m3.sealing.cipher import Cipher, derived, new_key
from m3.settings import Settings

ONE, TWO = f"one:{'1' * 64}", f"two:{'2' * 64}"
TEXT = "Meet me at the harbour, 你好 😀"


def masters(*keys: str) -> Masters:
    return Masters.of(Settings(content_keys=SecretStr(",".join(keys)) if keys else None))


class Table:
    """Keeps threads' keys as the table does."""

    def __init__(self) -> None:
        self.kept: dict[str, WrappedKey] = {}
        self.asked = 0
        self.away = False

    async def thread_keys(self, thread_ids: Collection[str]) -> dict[str, WrappedKey]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("Away.")
        return {thread_id: self.kept[thread_id] for thread_id in thread_ids if thread_id in self.kept}

    async def add_thread_keys(self, keys: Mapping[str, WrappedKey]) -> None:
        await asyncio.sleep(0)
        self.kept = {**keys, **self.kept}


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def room(table: Table) -> Content:
    return Content(masters(ONE), table)


def said(text: str = TEXT, thread_id: str = "t") -> MessageAccepted:
    return MessageAccepted(thread_id=thread_id, source="user", content=text, interface="http_api", origin="o")


async def sealed(room: Content, text: str = TEXT, thread_id: str = "t") -> Message:
    """A message as the table has it."""
    (event,) = await room.sealed([said(text, thread_id)])
    return recorded(event)


def recorded(event: MessageAccepted) -> Message:
    told = event.model_dump(include={"message_id", "thread_id", "content", "source", "interface", "sealed"})
    return Message(id=1, seq=1, role="user", timestamp=datetime.now(UTC), fate="pending", **told)


async def opened(room: Content, message: Message) -> Message:
    (one,) = await room.opened_messages([message])
    return one


def changed(text: str) -> Iterator[str]:
    """The text with each of its characters changed."""
    for place, character in enumerate(text):
        yield text[:place] + ("A" if character != "A" else "B") + text[place + 1 :]


# ---- The cipher


def test_what_is_sealed_opens_as_it_was() -> None:
    cipher = Cipher(new_key())
    assert cipher.open(cipher.seal(b"a text", b"its place"), b"its place") == b"a text"
    assert cipher.open(cipher.seal(b"", b""), b"") == b""


def test_what_is_sealed_twice_looks_different_each_time() -> None:
    cipher = Cipher(new_key())
    assert len({cipher.seal(b"a text", b"") for _ in range(100)}) == 100


def test_a_change_of_any_bit_is_noticed() -> None:
    cipher = Cipher(new_key())
    whole = cipher.seal(b"a text", b"its place")
    for place in range(len(whole)):
        for bit in range(8):
            spoiled = bytearray(whole)
            spoiled[place] ^= 1 << bit
            with pytest.raises(Unreadable):
                cipher.open(bytes(spoiled), b"its place")


def test_what_was_cut_off_or_added_to_is_noticed() -> None:
    cipher = Cipher(new_key())
    whole = cipher.seal(b"a text", b"its place")
    for spoiled in (*(whole[:length] for length in range(len(whole))), whole + b"\0", b"\0" + whole):
        with pytest.raises(Unreadable):
            cipher.open(spoiled, b"its place")


def test_a_form_of_another_version_is_not_taken_for_this_one() -> None:
    cipher = Cipher(new_key())
    whole = cipher.seal(b"a text", b"")
    with pytest.raises(Unreadable, match="not of a form that this version knows"):
        cipher.open(b"\x02" + whole[1:], b"")


def test_neither_another_key_nor_another_place_opens_it() -> None:
    key = new_key()
    whole = Cipher(key).seal(b"a text", b"its place")
    for cipher, place in (
        (Cipher(new_key()), b"its place"),
        (Cipher(key), b"another"),
        (Cipher(derived(key, b"x")), b"its place"),
    ):
        with pytest.raises(Unreadable):
            cipher.open(whole, place)


# ---- The master keys


@pytest.mark.parametrize(
    "told",
    [
        "one",
        "1" * 64,
        f"one:{'1' * 63}",
        f"one:{'x' * 64}",
        f"{ONE},",
        f"{ONE},{ONE}",
        "off",
        "off,",
        f"{ONE},off",
        f":{'1' * 64}",
    ],
)
def test_keys_that_are_none_are_refused_without_repeating_them(told: str) -> None:
    with pytest.raises(StartError, match=r"^CONTENT_KEYS: .*\.$") as refused:
        Masters.of(Settings(content_keys=SecretStr(told)))
    assert "111" not in str(refused.value)


def test_the_first_key_wraps_and_all_of_them_unwrap() -> None:
    wrapped = masters(TWO).new_key("t")
    both = masters(ONE, TWO)
    assert (wrapped.master, both.first) == ("two", "one")
    again = both.rewrap("t", wrapped)
    assert again.master == "one"
    assert masters(ONE).unwrap("t", again) == masters(TWO).unwrap("t", wrapped)


def test_a_threads_key_opens_for_that_thread_and_by_its_own_master_key_alone() -> None:
    wrapped = masters(ONE).new_key("t")
    both = masters(ONE, TWO)
    for thread_id, key in (
        ("u", wrapped),
        ("t", replace(wrapped, master="two")),
        ("t", replace(wrapped, master="three")),
    ):
        with pytest.raises(Unreadable):
            both.unwrap(thread_id, key)


def test_keys_are_told_by_no_repr() -> None:
    assert "1111" not in repr(masters(ONE)) + repr(Settings(content_keys=SecretStr(ONE)))


# ---- What is said


async def test_a_message_opens_as_it_was_said(room: Content) -> None:
    message = await sealed(room)
    assert message.sealed
    assert TEXT not in message.content
    whole = await opened(room, message)
    assert (whole.content, whole.sealed) == (TEXT, False)


async def test_all_that_has_words_of_somebody_is_sealed_and_nothing_else_changes(room: Content) -> None:
    summary = ThreadSummarised(thread_id="t", until=7, text="They met.")
    piece = ReplyGrew(thread_id="t", turn_id=uuid4(), reply_id=uuid4(), index=0, text="Hel")
    end = TurnEnded(thread_id="t", turn_id=uuid4(), reply_id=uuid4(), outcome="answered")
    said_of_all_kinds: list[Incoming | TurnNews] = [said(), summary, piece, end]
    events = await room.sealed(said_of_all_kinds)
    body = encode(events).decode()
    assert not any(words in body for words in ("harbour", "They met", "Hel"))
    assert events[3] == end
    assert decode(encode(events)) == events
    assert await room.opened([events[2], events[3]]) == [piece, end]
    assert isinstance(events[1], ThreadSummarised)
    assert await room.opened_summary("t", 7, events[1].text) == "They met."
    for thread_id, until in (("t", 8), ("u", 7)):
        assert await room.opened_summary(thread_id, until, events[1].text) is None


async def test_news_opens_with_what_it_tells_of(room: Content) -> None:
    message, reply = await sealed(room), await sealed(room, "Ahoy")
    news: list[ThreadEvent] = [MessageRecorded(message=message), MessageSettled(message=message, reply=reply)]
    told = await room.opened(news)
    assert [event.message.content for event in told] == [TEXT, TEXT]
    assert isinstance(told[1], MessageSettled)
    assert told[1].reply is not None
    assert told[1].reply.content == "Ahoy"


@pytest.mark.parametrize("text", ["x", "xy", "xyz", TEXT])  # one of each length of padding
async def test_a_changed_message_says_that_it_cannot_be_read(room: Content, text: str) -> None:
    message = await sealed(room, text)
    for spoiled in (
        *changed(message.content),
        message.content[:-4],
        message.content[4:],
        "",
        "plain",
        "ä",
        message.content + "AAAA",
    ):
        shown = await opened(room, message.model_copy(update={"content": spoiled}))
        assert (shown.content, shown.sealed) == (UNREADABLE, True)


async def test_messages_that_were_swapped_cannot_be_read(room: Content) -> None:
    one, two = await sealed(room, "one"), await sealed(room, "two")
    swapped = [one.model_copy(update={"content": two.content}), two.model_copy(update={"content": one.content})]
    assert [message.sealed for message in await room.opened_messages(swapped)] == [True, True]


async def test_a_message_that_was_moved_to_another_thread_cannot_be_read(room: Content) -> None:
    message = await sealed(room)
    await sealed(room, "two", "u")  # so that it has a key too
    for thread_id in ("u", "never-used", "acme.t"):
        assert (await opened(room, message.model_copy(update={"thread_id": thread_id}))).sealed


async def test_who_moves_the_threads_key_too_gains_nothing(room: Content, table: Table) -> None:
    message = await sealed(room)
    table.kept["u"] = table.kept["t"]
    assert (await opened(Content(masters(ONE), table), message.model_copy(update={"thread_id": "u"}))).sealed


async def test_with_another_key_or_none_it_cannot_be_read(room: Content, table: Table) -> None:
    message = await sealed(room)
    for keys in ((TWO,), (f"one:{'3' * 64}",), ()):
        assert (await opened(Content(masters(*keys), table), message)).content == UNREADABLE


async def test_without_a_key_nothing_is_sealed_and_nobody_asks_for_keys(table: Table) -> None:
    plain = Content(masters(), table)
    (event,) = await plain.sealed([said()])
    assert (event.content, event.sealed) == (TEXT, False)
    assert event.terms
    message = recorded(event)
    assert await plain.opened_messages([message]) == [message]
    assert table.asked == 0


async def test_a_room_without_a_search_tells_of_no_words(table: Table) -> None:
    for keys in ((), (ONE,)):
        (event,) = await Content(masters(*keys), table, searchable=False).sealed([said()])
        assert event.terms is None


async def test_keys_that_only_open_seal_nothing(room: Content, table: Table) -> None:
    message = await sealed(room)
    ready = Content(masters("off", ONE), table)
    (event,) = await ready.sealed([said()])
    assert not event.sealed
    assert (await opened(ready, message)).content == TEXT


async def test_nothing_goes_out_plain_where_a_threads_key_does_not_open(room: Content, table: Table) -> None:
    await sealed(room)
    with pytest.raises(StoreUnavailable):
        await Content(masters(TWO), table).sealed([said()])


async def test_nothing_goes_out_plain_while_the_table_is_away(room: Content, table: Table) -> None:
    table.away = True
    with pytest.raises(StoreUnavailable):
        await room.sealed([said()])


async def test_all_who_make_a_threads_key_at_once_use_the_same(table: Table) -> None:
    processes = [Content(masters(ONE), table) for _ in range(20)]
    messages = await asyncio.gather(*(sealed(process) for process in processes))
    assert [message.content for message in await processes[0].opened_messages([*messages])] == [TEXT] * 20


async def test_a_key_is_asked_for_once_and_only_so_many_are_kept(
    room: Content, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "KEYS_AT_HAND", 2)
    for _ in range(3):
        message = await sealed(room)
    asked = table.asked
    await opened(room, message)
    await sealed(room, thread_id="u")
    await opened(room, message)  # which is kept, as the last that was used
    await sealed(room, thread_id="v")
    assert table.asked == asked + 4
    assert room.opened_now([MessageRecorded(message=message)])
    for thread_id in "uv":
        await sealed(room, thread_id=thread_id)
    assert room.opened_now([MessageRecorded(message=message)]) is None
    assert (await opened(room, message)).content == TEXT


async def test_a_piece_of_a_reply_that_cannot_be_read_is_left_out(room: Content) -> None:
    piece = ReplyGrew(thread_id="t", turn_id=uuid4(), reply_id=uuid4(), index=0, text="Hel")
    (event,) = await room.sealed([piece])
    moved = [event.model_copy(update=update) for update in ({"index": 1}, {"turn_id": uuid4()}, {"text": "AAAA"})]
    assert await room.opened([event, *moved]) == [piece]


async def test_a_log_of_what_cannot_be_read_names_it_and_nothing_of_it(room: Content) -> None:
    message = await sealed(room)
    with capture_logs() as lines:
        await opened(room, message.model_copy(update={"content": message.content[:-4]}))
    (line,) = lines
    assert line["message_id"] == str(message.message_id)
    assert message.content[:-4] not in str(line)


def test_a_message_of_a_plain_room_is_told_as_before() -> None:
    assert "sealed" not in recorded(said()).model_dump_json()
    assert '"sealed":true' in recorded(said()).model_copy(update={"sealed": True}).model_dump_json()


def test_a_message_is_what_became_of_what_was_said_whatever_its_ciphertext() -> None:
    event = said().model_copy(update={"message_id": UUID(int=1)})
    assert event.became(recorded(event))
    assert not event.became(recorded(event).model_copy(update={"content": "another"}))
