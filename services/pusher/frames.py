"""What sockets are sent and may send, one JSON object a frame."""

import json
import time
from collections.abc import Iterator
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from m3.events import Message, MessageRecorded, OutsideSource, OutsideText, SenderKey, ThreadEvent


class SocketMessage(BaseModel):
    """``{"type": "message", "message": …, "source": "user"}``, said over a socket. With a ``client_id`` it can be said
    again without being recorded twice."""

    model_config = ConfigDict(frozen=True)

    type: Literal["message"]
    message: OutsideText
    source: OutsideSource = "user"
    client_id: SenderKey | None = None


def for_everyone(event: ThreadEvent) -> Iterator[str]:
    """What every socket of the thread is sent of an event: what the predecessor's clients know."""
    if isinstance(event, MessageRecorded):
        yield new_message(event.message)


def for_all_events(event: ThreadEvent) -> Iterator[str]:
    """What sockets that asked for all events are sent before it: fates. A reply is the fate of what it answers, and has
    the number; whoever breaks off between the two is told both again."""
    message = event.message
    if isinstance(event, MessageRecorded):
        for answered in message.in_reply_to:
            yield _fate(message, answered, fate="answered", reply_id=str(message.message_id), reply_seq=message.seq)
    elif message.fate == "answered":  # it had failed, and a late reply mended it
        reply = {"reply_id": str(message.reply_id), "reply_seq": message.reply_seq}
        yield _fate(message, message.message_id, number=event.number, fate="answered", **reply)
    else:
        yield _fate(message, message.message_id, number=event.number, fate=message.fate, reason=message.reason)


def connected(thread_id: str, connections: int) -> str:
    return _frame(
        type="connected", thread_id=thread_id, message=f"Connected to thread {thread_id}", connections=connections
    )


def pong() -> str:
    return _frame(type="pong", timestamp=time.time())


def new_message(message: Message) -> str:
    """The predecessor's frame, with the message's numbers added."""
    return _frame(
        type="new_message",
        thread_id=message.thread_id,
        role=message.role,
        content=message.content,
        source=message.source,
        timestamp=message.timestamp.timestamp(),
        id=message.id,
        seq=message.seq,
        message_id=str(message.message_id),
        in_reply_to=[str(answered) for answered in message.in_reply_to],
    )


def _fate(message: Message, message_id: UUID, **what: object) -> str:
    return _frame(type="fate", thread_id=message.thread_id, message_id=str(message_id), **what)


def reset(thread_id: str, head: int) -> str:
    """The socket has seen numbers that the thread does not have, so what it knows is to be read anew."""
    return _frame(type="reset", thread_id=thread_id, head=head)


def recorded(message: Message, client_id: str | None) -> str:
    extra = {} if client_id is None else {"client_id": client_id}
    return _frame(type="recorded", message_id=str(message.message_id), seq=message.seq, id=message.id, **extra)


def error(code: str, message: str, *, message_id: UUID | None = None, client_id: str | None = None) -> str:
    known = {"message_id": message_id and str(message_id), "client_id": client_id}
    extra = {name: value for name, value in known.items() if value is not None}
    return _frame(type="error", code=code, message=message, **extra)


def _frame(**fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
