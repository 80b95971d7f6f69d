"""What sockets are sent and may send, one JSON object a frame."""

import json
import time
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from m3.events import Message, OutsideSource, OutsideText


class SocketMessage(BaseModel):
    """``{"type": "message", "message": …, "source": "user"}``, said over a socket."""

    model_config = ConfigDict(frozen=True)

    type: Literal["message"]
    message: OutsideText
    source: OutsideSource = "user"


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
    )


def recorded(message: Message) -> str:
    return _frame(type="recorded", message_id=str(message.message_id), seq=message.seq, id=message.id)


def error(code: str, message: str, message_id: UUID | None = None) -> str:
    extra = {} if message_id is None else {"message_id": str(message_id)}
    return _frame(type="error", code=code, message=message, **extra)


def _frame(**fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
