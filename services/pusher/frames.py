"""What sockets alone are sent and may send, and m3.frames as the text that they are sent."""

import time
from collections.abc import Iterator
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from m3.door import MAX_BATCH
from m3.events import Message, MessageRecorded, OutsideSource, OutsideText, SenderKey, ThreadEvent, TurnNews
from m3.frames import Frame, fates, new_message, text, turn_news
from m3.frames import recorded as recorded_frame
from m3.tenants import thread_id_of
from m3.tracing import understood


class SocketFrame(BaseModel):
    """What a socket may say. ``{"type": "cancel"}`` stops the agent's turn in the thread."""

    model_config = ConfigDict(frozen=True)

    type: Literal["message", "messages", "typing", "cancel"]


class Said(BaseModel):
    """``{"type": "message", "message": …, "source": "user"}``, said over a socket. With a ``client_id`` it can be said
    again without being recorded twice; with a ``traceparent`` it belongs to a trace, unless that is none."""

    model_config = ConfigDict(frozen=True)

    message: OutsideText
    source: OutsideSource = "user"
    client_id: Annotated[SenderKey | None, Field(validation_alias=AliasChoices("client_id", "key"))] = None
    traceparent: Annotated[str, BeforeValidator(understood)] = ""


class SocketBatch(BaseModel):
    """``{"type": "messages", "messages": [{"message": …}, …]}``: as many messages at once, each answered as if it came
    alone. What is wrong with one of them is no fault of the others."""

    model_config = ConfigDict(frozen=True)

    messages: Annotated[list[object], Field(min_length=1, max_length=MAX_BATCH)]


class SocketTyping(BaseModel):
    """``{"type": "typing"}``, to be said again every few seconds; ``{"type": "typing", "active": false}`` to stop. A
    message said stops it too."""

    model_config = ConfigDict(frozen=True)

    active: bool = True


def for_everyone(event: ThreadEvent) -> Iterator[str]:
    """What every socket of the thread is sent of an event: what the predecessor's clients know."""
    if isinstance(event, MessageRecorded):
        yield text(new_message(event.message))


def for_all_events(event: ThreadEvent) -> Iterator[str]:
    """What sockets that asked for all events are sent before it: fates. Whoever breaks off between a reply, which has
    the number, and the fates that it is, is told them again."""
    return map(text, fates(event))


def of_turn(event: TurnNews) -> str:
    """What sockets that asked for all events are sent of a turn."""
    return text(turn_news(event))


class _Named(BaseModel):
    client_id: SenderKey | None = None


def client_id_of(text: str) -> str | None:
    """The ``client_id`` of a frame that is not understood otherwise, if it has one."""
    try:
        return _Named.model_validate_json(text).client_id
    except ValidationError:
        return None


def connected(key: str, connections: int, head: int) -> str:
    """``head``: the thread's last number just now. What a socket with ``after`` is sent up to it, it missed."""
    thread_id = thread_id_of(key)
    return _text(
        type="connected",
        thread_id=thread_id,
        message=f"Connected to thread {thread_id}",
        connections=connections,
        head=head,
    )


def pong() -> str:
    return _text(type="pong", timestamp=time.time())


def reset(key: str, head: int) -> str:
    """The socket has seen numbers that the thread does not have, so what it knows is to be read anew."""
    return _text(type="reset", thread_id=thread_id_of(key), head=head)


def recorded(message: Message, client_id: str | None) -> str:
    extra: Frame = {} if client_id is None else {"client_id": client_id}
    return text(recorded_frame(message) | extra)


def cancelling(key: str) -> str:
    """The agents were asked to stop. Whether one had something to stop, the turn's end tells."""
    return _text(type="cancelling", thread_id=thread_id_of(key))


def error(
    code: str,
    message: str,
    *,
    message_id: UUID | None = None,
    client_id: str | None = None,
    retry_after: int | None = None,
) -> str:
    """``retry_after``: in so many seconds it is taken."""
    known = {"message_id": message_id and str(message_id), "client_id": client_id, "retry_after": retry_after}
    extra = {name: value for name, value in known.items() if value is not None}
    return _text(type="error", code=code, message=message, **extra)


def _text(**fields: object) -> str:
    return text(fields)
