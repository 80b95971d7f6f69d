"""The bodies of the HTTP door."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from m3.events import Fate, Message, Number, OutsideSource, OutsideText, ThreadId, whole_number

#: Most messages in one answer. The predecessor had no bound, so a larger limit is taken to mean this one.
HISTORY_LIMIT = 500

#: What OpenAPI can say of OutsideText: not blank, and no NUL.
SAYABLE_PATTERN = r"^[^\x00]*[^\s\x00][^\x00]*$"


Limit = Annotated[
    int,
    Field(ge=1, description=f"So many messages; at most {HISTORY_LIMIT} are returned."),
    BeforeValidator(whole_number),  # after the bound, which otherwise does not get into the OpenAPI document
]
Before = Annotated[Number, Field(description="Only messages whose `seq` is lower; the newest of them.")]
After = Annotated[Number, Field(description="Only messages whose `seq` is higher; the oldest of them.")]


class ChatRequest(BaseModel):
    """Something said in a thread. ``source`` is `user` for a person, `api` for a program."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"message": "你好", "thread_id": "default", "source": "user"}]}
    )

    message: Annotated[OutsideText, Field(json_schema_extra={"pattern": SAYABLE_PATTERN})]
    """At most MESSAGE_LIMIT bytes of UTF-8, which are 16384 unless the room is set otherwise."""
    thread_id: ThreadId = "default"
    source: OutsideSource = "user"


class ChatReply(BaseModel):
    """The agent's reply."""

    response: str
    thread_id: ThreadId
    message_id: UUID
    seq: int
    reply_id: UUID
    reply_seq: int


class ChatAccepted(BaseModel):
    """The message is recorded and its reply is still to come."""

    thread_id: ThreadId
    message_id: UUID
    seq: int
    fate: Fate


class History(BaseModel):
    """Messages of a thread, oldest first."""

    thread_id: ThreadId
    messages: list[Message]
