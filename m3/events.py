"""Every event on the wire, as past-tense facts that encode and decode themselves.

A body on the bus is a JSON array of events. A change to this file is a change of the protocol between services:
fields may be added with a default, nothing may be renamed or removed.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import not_
from typing import Annotated, Literal, TypeVar
from unicodedata import category
from uuid import UUID, uuid5

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import SkipJsonSchema
from uuid_utils.compat import uuid7

from m3.errors import UndecodableEvents
from m3.tenants import TENANT_PATTERN

_THREAD_ID = r"[A-Za-z0-9_:@-]{1,128}"
#: What a thread may be called. No dot, ``*`` or ``#``: they would mean something in a routing key.
THREAD_ID_PATTERN = f"^{_THREAD_ID}$"

#: The name space of reply ids; fixed for ever, since every reply id hangs on it.
REPLIES = UUID("6f1c5c1e-0e0b-5d5a-9a57-0d6f2e1b7c11")
#: The name space of messages whose sender gave a key; fixed for ever, since a retry may come years later.
KEYED = UUID("0b2f9a3e-6c0d-5b7e-8f43-9d1c2a7e5b64")

#: Categories of Unicode: controls, formats, halves of characters, what everybody has for themselves, breaks of lines.
_NOT_IN_A_NAME = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
_JOINERS = frozenset("\u200c\u200d")
#: What is not seen by itself beside marks and spaces: fillers of Hangul, and Braille without a dot.
_UNSEEN = _JOINERS | frozenset("\u115f\u1160\u3164\uffa0\u2800")


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


def _sayable(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return _storable(text)


def _seen(name: str) -> str:
    """A name that can be read, and runs into nothing around it: neither is what turns the direction of writing, and the
    joiners that Persian and emoji need are."""
    if any(category(one) in _NOT_IN_A_NAME and one not in _JOINERS for one in name):
        raise ValueError("must be printable")
    if all(category(one)[0] in "MZ" or one in _UNSEEN for one in name):
        raise ValueError("must not be blank")
    return name


def _whole_terms(terms: bytes) -> bytes:
    if len(terms) % 8:
        raise ValueError("must be 8 bytes each")
    return terms


def whole_number(value: object) -> object:
    """Only digits: pydantic would read ``1_0`` as 10."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("must be a whole number")
    return value


#: A thread as its tenant's people and programs call it.
ThreadId = Annotated[str, Field(pattern=THREAD_ID_PATTERN)]
#: A thread as the room knows it (m3/tenants.py). Who is shown a message is shown the id.
ThreadKey = Annotated[
    str, Field(pattern=rf"^({TENANT_PATTERN}\.)?{_THREAD_ID}$", json_schema_extra={"pattern": THREAD_ID_PATTERN})
]
Lane = Literal["user", "api", "assistant"]
#: The sources that anyone may speak as; ``assistant`` is the agent's own.
OutsideSource = Literal["user", "api"]
Interface = Literal["http_api", "websocket"]
#: What became of a message that somebody said. ``merged``: it said what another did, whose reply is its own too;
#: ``expired``: too old by the time of its turn; ``shed``: too many waited; ``ignored``: the agent is told not to
#: answer; ``cancelled``: somebody stopped its turn before the agent said anything; ``failed``: the model did.
Fate = Literal["pending", "answered", "merged", "expired", "shed", "ignored", "cancelled", "failed"]
#: The fates that a message gets without a turn of its own that ended by itself.
PassedOverFate = Literal["merged", "expired", "shed", "ignored", "cancelled"]
#: How a turn ends. One that was ``interrupted`` leaves its messages pending, for another turn.
TurnOutcome = Literal["answered", "cancelled", "failed", "interrupted"]
#: Text that PostgreSQL can keep.
Text = Annotated[str, Field(min_length=1), AfterValidator(_storable)]
#: Text that the room takes from outside; the door bounds its length.
OutsideText = Annotated[str, Field(min_length=1), AfterValidator(_sayable)]
#: What a sender may call itself, and each of its messages: printable ASCII, as a header can carry.
SenderName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$")]
SenderKey = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]
#: What a sender may call itself where any text can be carried.
Nickname = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_seen)]
#: What others in a thread know somebody by: the name of an account or a key, or what they call themselves.
ShownName = Annotated[str, Field(min_length=1, max_length=128)]
#: Who gives no name; its keys meet those of everybody else who gives none.
ANYONE = "anyone"
#: A number of a thread, as a client tells it.
Number = Annotated[int, Field(ge=0, le=2**63 - 1), BeforeValidator(whole_number)]


class Message(BaseModel):
    """A message as the table holds it.

    ``seq`` is its number in the thread and ``rev`` the number of its last change, the same as long as there was none.
    Messages and changes are numbered together, from 1 without gaps, in the order of commits. ``fate`` tells what the
    agent made of a ``user`` or ``api`` message; it is None for the agent's own, of which ``cancelled`` tells whether
    somebody stopped it before it was whole. ``sealed``: the content is not for who has no key (m3/sealing), and where
    that was tried, could not be read.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    message_id: UUID
    thread_id: ThreadKey
    seq: int
    rev: int = 0  # an older service does not tell it
    role: Literal["user", "assistant"]
    content: str
    source: Lane
    timestamp: AwareDatetime
    interface: Interface
    author: str | None = None
    in_reply_to: tuple[UUID, ...] = ()
    cancelled: bool = False
    fate: Fate | None = None
    reply_id: UUID | None = None
    reply_seq: int | None = None
    reason: str | None = None
    sealed: Annotated[bool, Field(exclude_if=not_)] = False
    traceparent: SkipJsonSchema[str | None] = None  # as in MessageAccepted; of the senders' own programs, so not shown


class Turn(BaseModel):
    """What one turn of the agent took. Times are in seconds from its start, tokens as the model's server counts them,
    or ``estimated`` where it did not say. ``attempts``: how often the model was asked."""

    model_config = ConfigDict(frozen=True)

    turn_id: UUID
    lane: OutsideSource
    model: str
    started_at: datetime
    duration: float
    first_token: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    attempts: int = 1


class Event(BaseModel):
    """A fact that one service tells the others."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")


class MessageAccepted(Event):
    """A service took a message and asks for it to be recorded. ``origin`` is the queue to tell when it is;
    ``traceparent`` what of which trace it belongs to, where it came with that (m3/tracing.py). ``sealed``: the content
    is not for who has no key; ``terms``: what it is found by, 8 bytes each (m3/sealing)."""

    type: Literal["message_accepted"] = "message_accepted"
    message_id: UUID = Field(default_factory=uuid7)
    thread_id: ThreadKey
    source: Lane
    content: Text
    interface: Interface
    origin: str
    author: str | None = None
    in_reply_to: tuple[UUID, ...] = ()
    cancelled: bool = False
    turn: Turn | None = None
    accepted_at: AwareDatetime | None = None  # an older service does not tell it
    traceparent: str = ""
    sealed: bool = False
    terms: Annotated[bytes, AfterValidator(_whole_terms)] | None = None  # who does not make them does not tell them

    def became(self, message: Message) -> bool:
        """Whether the recorded message of this id is this one, both as they were said: sealed anew a text is another. A
        key may have been used before, for another."""
        return (self.thread_id, self.source, self.content) == (message.thread_id, message.source, message.content)


class TurnFailed(Event):
    """The agent gave up on these messages. ``reason`` is a sentence for a person."""

    type: Literal["turn_failed"] = "turn_failed"
    thread_id: ThreadKey
    message_ids: tuple[UUID, ...]
    reason: Text
    origin: str
    turn: Turn | None = None


class MessagesPassedOver(Event):
    """These messages get no reply of their own. ``reason`` is a sentence for a person; ``reply_id`` is the reply to
    what ``merged`` messages repeat; ``turn`` the one that was cancelled."""

    type: Literal["messages_passed_over"] = "messages_passed_over"
    thread_id: ThreadKey
    message_ids: tuple[UUID, ...]
    fate: PassedOverFate
    reason: Text
    origin: str
    reply_id: UUID | None = None
    turn: Turn | None = None


class TurnInterrupted(Event):
    """A turn was broken off for another one, which answers its messages too."""

    type: Literal["turn_interrupted"] = "turn_interrupted"
    thread_id: ThreadKey
    turn: Turn


class RetryAsked(Event):
    """Somebody asks for another turn for a message whose turn failed or was cancelled, which was its change ``rev``:
    told twice, it is asked for once."""

    type: Literal["retry_asked"] = "retry_asked"
    thread_id: ThreadKey
    message_id: UUID
    origin: str
    rev: int | None = None


class ThreadSummarised(Event):
    """What was said in the thread up to the number ``until``, in few words, for the agent."""

    type: Literal["thread_summarised"] = "thread_summarised"
    thread_id: ThreadKey
    until: int
    text: Text
    sealed: bool = False


class MessageRecorded(Event):
    """The message is in the table, committed, with its number."""

    type: Literal["message_recorded"] = "message_recorded"
    message: Message

    @property
    def number(self) -> int:
        return self.message.seq


class MessageSettled(Event):
    """The message got its fate: a recorded reply, or the reason why there will be none. Or lost it: asked for again,
    it is ``pending``.

    ``reply`` spares the process that accepted the message a look into the table; others are told without it. A thread
    is told of what has a number of its own: all fates but an answer, of which the reply itself is the news.
    """

    type: Literal["message_settled"] = "message_settled"
    message: Message
    reply: Message | None = None

    @property
    def number(self) -> int:
        return self.message.rev


class TurnStarted(Event):
    """The agent begins to think about these messages. It may begin anew with the same ``reply_id``: what was heard of
    the reply before is void then, and the ``turn_id`` another. ``again``: it goes on, and is told to somebody who may
    have missed some of it."""

    type: Literal["turn_started"] = "turn_started"
    thread_id: ThreadKey
    turn_id: UUID
    reply_id: UUID
    in_reply_to: tuple[UUID, ...]
    again: bool = False


class ReplyGrew(Event):
    """A piece of the reply, the ``index``-th of its turn from 0, or so many ``pieces`` from there on as one. News that
    is never recorded: the reply will be."""

    type: Literal["reply_grew"] = "reply_grew"
    thread_id: ThreadKey
    turn_id: UUID
    reply_id: UUID
    index: int
    pieces: int = 1
    text: str
    sealed: bool = False


class TurnEnded(Event):
    """The turn is over. The reply, or why there is none, was recorded before, but may be told later."""

    type: Literal["turn_ended"] = "turn_ended"
    thread_id: ThreadKey
    turn_id: UUID
    reply_id: UUID
    outcome: TurnOutcome
    reason: str | None = None


class CancelAsked(Event):
    """Somebody asks whoever is at the thread to stop its turn."""

    type: Literal["cancel_asked"] = "cancel_asked"
    thread_id: ThreadKey


class RetellingAsked(Event):
    """Somebody who begins to hear a thread, or may have missed some of its turn, asks whoever is at it to tell that
    from the start. ``origin`` is the queue to tell; nobody else is to hear it again."""

    type: Literal["retelling_asked"] = "retelling_asked"
    thread_id: ThreadKey
    origin: str


class ThreadSockets(BaseModel):
    """The sockets of a thread that one pusher has: how many, the names of who has them, how many more names there are
    than are listed, and the names of who types."""

    model_config = ConfigDict(frozen=True)

    thread_id: ThreadKey
    connections: int
    names: tuple[ShownName, ...] = ()
    unlisted: int = 0
    typing: tuple[ShownName, ...] = ()


class SocketsCounted(Event):
    """A pusher tells the others what sockets it has: of threads in which that changed, or none, as a sign of life.

    Its reports are numbered without gaps. One that is ``anew`` begins to tell all of its threads, which those that
    follow go on with: what it told before is void. It ``asks`` where it has not heard all of the others: they are to
    tell anew.
    """

    type: Literal["sockets_counted"] = "sockets_counted"
    pusher: UUID
    number: int
    threads: tuple[ThreadSockets, ...] = ()
    anew: bool = False
    asks: bool = False


#: What the recorder is asked to write.
Incoming = MessageAccepted | TurnFailed | MessagesPassedOver | TurnInterrupted | RetryAsked | ThreadSummarised
#: What leaves a message without a reply of its own.
Unanswered = TurnFailed | MessagesPassedOver
#: What the agent does just now, for whoever watches; never recorded.
TurnNews = TurnStarted | ReplyGrew | TurnEnded
AnyEvent = Incoming | MessageRecorded | MessageSettled | TurnNews | CancelAsked | RetellingAsked | SocketsCounted
#: What happens in a thread and takes its next number.
ThreadEvent = MessageRecorded | MessageSettled

_E = TypeVar("_E", bound=AnyEvent)
_bodies = TypeAdapter(list[Annotated[AnyEvent, Field(discriminator="type")]])


def encode(events: Sequence[AnyEvent]) -> bytes:
    """The body that carries the events."""
    return _bodies.dump_json(list(events))


def encode_within(events: Sequence[AnyEvent], limit: int) -> list[bytes]:
    """The bodies that carry the events, in order, each of at most ``limit`` bytes unless one event alone is longer; of
    no events an empty one."""
    return [body for body, _ in parted(events, limit)] or [encode([])]


def parted(events: Iterable[_E], limit: int) -> list[tuple[bytes, list[_E]]]:
    """As ``encode_within``, each body with the events in it; of no events none."""
    parts: list[tuple[list[bytes], list[_E]]] = []
    size = limit
    for event in events:
        encoded = event.model_dump_json().encode()
        size += len(encoded) + 1
        if size > limit:
            parts.append(([], []))
            size = len(encoded) + 2
        parts[-1][0].append(encoded)
        parts[-1][1].append(event)
    return [(b"[" + b",".join(encoded) + b"]", inside) for encoded, inside in parts]


def decode(body: bytes) -> list[AnyEvent]:
    """The events that a body carries. Raises UndecodableEvents."""
    try:
        return _bodies.validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "body"
        raise UndecodableEvents(f"{where}: {problem['msg']}") from error


def reply_id(message_id: UUID) -> UUID:
    """The id of the reply to a message: always the same, so that a second worker's reply is no second row."""
    return uuid5(REPLIES, str(message_id))


def keyed_id(sender: str, key: str) -> UUID:
    """The id of the message to which its sender gave this key: always the same, so that a retry is no second row."""
    return uuid5(KEYED, f"{sender}\n{key}")
