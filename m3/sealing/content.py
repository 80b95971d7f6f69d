"""Seals what is said before it leaves a process, and opens what comes back: everything between has only ciphertext.

Each thread has a key of its own, which the table keeps wrapped with a master key. Whoever accepts something seals it,
so that neither the broker nor the recorder ever has the words; whoever shows it, or asks the model, opens it. What does
not open is shown as a message that says so, and keeps its mark ``sealed``.
"""

from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast
from uuid import UUID

import structlog

from m3.errors import StoreUnavailable, Unreadable
from m3.events import (
    AnyEvent,
    Incoming,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    ReplyGrew,
    ThreadSummarised,
    TurnNews,
)
from m3.sealing.cipher import Cipher, derived
from m3.sealing.masters import Masters, WrappedKey
from m3.sealing.terms import Number, keyed_number, packed, plain_number, words, words_asked_for

#: Threads whose keys a process keeps at hand.
KEYS_AT_HAND = 10_000
#: What a message says that does not open.
UNREADABLE = "[This message cannot be read: it was sealed with another key, or changed since.]"

#: The numbers of all that a message must have, or of as many others.
Asked = tuple[list[int], list[int] | None]

E = TypeVar("E", bound=AnyEvent)
Sealable = MessageAccepted | ThreadSummarised | ReplyGrew
S = TypeVar("S", bound=Incoming | TurnNews)

log = structlog.get_logger(__name__)


class WrappedKeys(Protocol):
    """Where threads' keys are kept."""

    async def thread_keys(self, thread_ids: Collection[str]) -> dict[str, WrappedKey]:
        """Those of the threads that have one."""

    async def add_thread_keys(self, keys: Mapping[str, WrappedKey]) -> None:
        """Keep them, but for threads that have one by then."""


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """What a thread's key is good for. Pieces of replies are many, and have one of their own: a key of AES-GCM must not
    seal more than some billions of things with random nonces."""

    texts: Cipher
    pieces: Cipher
    number: Number

    @classmethod
    def of(cls, key: bytes) -> "ThreadKey":
        return cls(
            Cipher(derived(key, b"texts")), Cipher(derived(key, b"pieces")), keyed_number(derived(key, b"search"))
        )

    def seal(self, text: str, about: bytes) -> str:
        """A message, or a summary."""
        return b64encode(self.texts.seal(text.encode(), about)).decode()

    def seal_piece(self, piece: ReplyGrew) -> str:
        return b64encode(self.pieces.seal(piece.text.encode(), _about_piece(piece))).decode()

    def terms(self, text: str) -> bytes:
        """What a sealed message with the text is found by."""
        return packed(map(self.number, words(text)))

    def open(self, sealed: str, about: bytes) -> str:
        """A message, or a summary. Raises Unreadable."""
        return _opened(self.texts, sealed, about)

    def open_piece(self, piece: ReplyGrew) -> str:
        """Raises Unreadable."""
        return _opened(self.pieces, piece.text, _about_piece(piece))


def about_message(thread_id: str, message_id: UUID) -> bytes:
    return b"m3 message\n" + message_id.bytes + thread_id.encode()


def about_summary(thread_id: str, until: int) -> bytes:
    return f"m3 summary\n{until}\n{thread_id}".encode()


def _about_piece(piece: ReplyGrew) -> bytes:
    place = f"{piece.index}" if piece.pieces == 1 else f"{piece.index}+{piece.pieces}"
    return b"m3 piece\n" + piece.turn_id.bytes + f"{place}\n{piece.thread_id}".encode()


def _opened(cipher: Cipher, sealed: str, about: bytes) -> str:
    try:
        raw = b64decode(sealed, validate=True)
    except ValueError:  # as of characters that no base64 has
        raise Unreadable("It is no sealed text.") from None
    if b64encode(raw).decode() != sealed:  # its last character may have bits to spare
        raise Unreadable("It was changed.")
    return cipher.open(raw, about).decode()


def plain_terms(thread_id: str, text: str) -> bytes:
    """What a message with the text is found by that is not sealed."""
    return packed(map(plain_number(thread_id), words(text)))


class Content:
    """One for each store, whose threads' keys it uses. ``searchable``: what is sealed is told what it is found by."""

    def __init__(self, masters: Masters, wrapped_keys: WrappedKeys, *, searchable: bool = True) -> None:
        self._masters = masters
        self._searchable = searchable
        self._wrapped_keys = wrapped_keys
        self._at_hand: OrderedDict[str, ThreadKey] = OrderedDict()
        self._lacking: set[str] = set()  # master keys, as was said in the log

    @property
    def masters(self) -> Masters:
        return self._masters

    async def sealed(self, events: Sequence[S]) -> list[S]:
        """The events as they leave the process that accepted them: with what messages are found by, and where the room
        has keys, sealed. Raises StoreUnavailable, also where a thread's key is there and does not open."""
        if self._masters.first is None:
            return [_with_terms(event) for event in events] if self._searchable else list(events)
        threads = {event.thread_id for event in events if isinstance(event, Sealable)}
        keys = await self.keys(threads, make=True)
        if threads - keys.keys():
            raise StoreUnavailable("The key of the thread does not open.")
        return [
            _sealed(event, keys[event.thread_id], searchable=self._searchable) if isinstance(event, Sealable) else event
            for event in events
        ]

    async def opened(self, events: Sequence[E]) -> list[E]:
        """The events with what can be read in them. Pieces of a reply that cannot are left out: news, after all.
        Raises StoreUnavailable; never where nothing is sealed."""
        threads = _sealed_threads(events)
        if not threads:
            return list(events)
        return self._opened(events, await self.keys(threads))

    async def opened_messages(self, messages: list[Message]) -> list[Message]:
        """As ``opened``."""
        threads = {message.thread_id for message in messages if message.sealed}
        if not threads:
            return messages
        keys = await self.keys(threads)
        return [_open_message(message, keys) for message in messages]

    def _opened(self, events: Iterable[E], keys: Mapping[str, ThreadKey]) -> list[E]:
        return [one for event in events if (one := _open(event, keys)) is not None]

    async def opened_summary(self, thread_id: str, until: int, sealed: str) -> str | None:
        """None where it cannot be read."""
        key = (await self.keys({thread_id})).get(thread_id)
        if key is None:
            return None
        try:
            return key.open(sealed, about_summary(thread_id, until))
        except Unreadable as error:
            log.error("summary cannot be read", thread_id=thread_id, reason=str(error))
            return None

    def opened_now(self, events: Sequence[E]) -> list[E] | None:
        """As ``opened``, for who must not wait: None where a thread's key is not at hand."""
        keys = {thread_id: key for thread_id in _sealed_threads(events) if (key := self._known(thread_id))}
        if self._masters.names and _sealed_threads(events) - keys.keys():
            return None
        return self._opened(events, keys)

    async def asked(self, thread_id: str, text: str) -> Asked:
        """What messages of the thread are found by that have every word of the text: as a plain room has it, which old
        messages of a sealed one may be found by too, and with the thread's key where there is one."""
        wanted = words_asked_for(text)
        keys = await self.keys({thread_id}) if self._masters.names else {}
        key = keys.get(thread_id)
        return list(map(plain_number(thread_id), wanted)), list(map(key.number, wanted)) if key else None

    async def prepare(self, thread_id: str) -> None:
        """Have the thread's key at hand, as far as there is one by now. Raises StoreUnavailable."""
        if self._masters.names:
            await self.keys({thread_id})

    async def keys(self, thread_ids: Collection[str], *, make: bool = False) -> dict[str, ThreadKey]:
        """Those of the threads' keys that can be had. Whoever makes one for the same thread in the same moment gets the
        same: the table keeps the first."""
        keys = {thread_id: key for thread_id in thread_ids if (key := self._known(thread_id))}
        missing = set(thread_ids) - keys.keys()
        if missing and not self._masters.names:
            self._tell_of_lack("any")
        if not missing or not self._masters.names:
            return keys
        wrapped = await self._wrapped_keys.thread_keys(missing)
        if make and (new := missing - wrapped.keys()):
            await self._wrapped_keys.add_thread_keys({thread_id: self._masters.new_key(thread_id) for thread_id in new})
            wrapped |= await self._wrapped_keys.thread_keys(new)
        for thread_id, one in wrapped.items():
            if one.master not in self._masters.names:
                self._tell_of_lack(one.master)
                continue
            try:
                keys[thread_id] = self._keep(thread_id, ThreadKey.of(self._masters.unwrap(thread_id, one)))
            except Unreadable as error:
                log.error("key of a thread does not open", thread_id=thread_id, master=one.master, reason=str(error))
        return keys

    def _tell_of_lack(self, master: str) -> None:
        """Once, or there would be a line for each message."""
        if master not in self._lacking:
            self._lacking.add(master)
            log.warning(
                "sealed messages cannot be read here; give CONTENT_KEYS what the other services have, and start anew",
                lacking=master,
            )

    def _known(self, thread_id: str) -> ThreadKey | None:
        key = self._at_hand.get(thread_id)
        if key is not None:
            self._at_hand.move_to_end(thread_id)
        return key

    def _keep(self, thread_id: str, key: ThreadKey) -> ThreadKey:
        self._at_hand[thread_id] = key
        if len(self._at_hand) > KEYS_AT_HAND:
            self._at_hand.popitem(last=False)
        return key


def _with_terms(event: S) -> S:
    if not isinstance(event, MessageAccepted):
        return event
    return event.model_copy(update={"terms": plain_terms(event.thread_id, event.content)})


def _sealed(event: S, key: ThreadKey, *, searchable: bool) -> S:
    changes: dict[str, object]
    match event:
        case MessageAccepted(content=text):
            about = about_message(event.thread_id, event.message_id)
            changes = {"content": key.seal(text, about), "terms": key.terms(text) if searchable else None}
        case ThreadSummarised(text=text):
            changes = {"text": key.seal(text, about_summary(event.thread_id, event.until))}
        case ReplyGrew():
            changes = {"text": key.seal_piece(event)}
        case _:
            return event
    return cast(S, event.model_copy(update={**changes, "sealed": True}))


def _sealed_threads(events: Iterable[AnyEvent]) -> set[str]:
    threads = set()
    for event in events:
        match event:
            case MessageRecorded(message=message) | MessageSettled(message=message):
                if message.sealed:
                    threads.add(message.thread_id)
                if isinstance(event, MessageSettled) and event.reply and event.reply.sealed:
                    threads.add(event.reply.thread_id)
            case ReplyGrew(sealed=True):
                threads.add(event.thread_id)
    return threads


def _open(event: E, keys: Mapping[str, ThreadKey]) -> E | None:
    match event:
        case MessageRecorded():
            return event.model_copy(update={"message": _open_message(event.message, keys)})
        case MessageSettled():
            reply = event.reply and _open_message(event.reply, keys)
            return event.model_copy(update={"message": _open_message(event.message, keys), "reply": reply})
        case ReplyGrew(sealed=True):
            key = keys.get(event.thread_id)
            if key is None:
                return None
            try:
                text = key.open_piece(event)
            except Unreadable as error:
                log.warning("piece of a reply cannot be read", thread_id=event.thread_id, reason=str(error))
                return None
            return event.model_copy(update={"text": text, "sealed": False})
        case _:
            return event


def _open_message(message: Message, keys: Mapping[str, ThreadKey]) -> Message:
    if not message.sealed:
        return message
    key = keys.get(message.thread_id)
    if key is None:
        return message.model_copy(update={"content": UNREADABLE})
    try:
        content = key.open(message.content, about_message(message.thread_id, message.message_id))
    except Unreadable as error:
        log.error("message cannot be read", message_id=str(message.message_id), reason=str(error))
        return message.model_copy(update={"content": UNREADABLE})
    return message.model_copy(update={"content": content, "sealed": False})
