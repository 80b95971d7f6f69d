"""What the caller of a message is told of what became of it."""

from contextlib import suppress

from fastapi import Response

from m3.door import Taken, Watch
from m3.errors import StoreUnavailable
from m3.events import Message
from m3.settings import Settings
from m3.store import Store
from m3.tenants import thread_id_of
from m3.threads import ThreadSettings
from m3.web import Refusal
from services.gateway.guards import JSON
from services.gateway.schemas import ChatAccepted, ChatReply


async def is_far_behind(taken: Taken, store: Store, settings: Settings) -> bool:
    """Whether at least one whole batch of programs' messages has its turn before this one's."""
    if not taken.before or taken.message.fate != "pending":
        return False
    own = ThreadSettings()
    with suppress(StoreUnavailable):  # it is recorded, and that is what must be told
        own = await store.thread_settings(taken.message.thread_id)
    return taken.before >= (own.batch_messages or settings.batch_messages)


async def reply_known(watch: Watch) -> Message | None:
    """The reply, unless the database is away: then the message's fate is all that can be told."""
    with suppress(StoreUnavailable):
        return await watch.reply()
    return None


def outcome(message: Message, reply: Message | None, place: int | None = None) -> Response:
    """Raises Refusal, where the model failed."""
    if message.fate == "failed":
        raise failure(message)
    if reply is None:
        return come_back(message, place)
    answer = ChatReply(
        response=reply.content,
        thread_id=thread_id_of(message.thread_id),
        message_id=message.message_id,
        seq=message.seq,
        reply_id=reply.message_id,
        reply_seq=reply.seq,
        cancelled=reply.cancelled,
    )
    return Response(answer.model_dump_json(), media_type=JSON)


def failure(message: Message) -> Refusal:
    return Refusal(502, "model_failed", message.reason or "", message_id=message.message_id)


def only_recorded(taken: Taken) -> Response:
    """For who may not read in the thread: as the message was when it was recorded, whatever became of it, since that
    tells of what others say."""
    message = taken.message.model_copy(update={"fate": "pending", "reason": None})
    return Response(accepted(message, taken.before).model_dump_json(), 202, media_type=JSON)


def come_back(message: Message, place: int | None = None) -> Response:
    location = f"/api/messages/{message.message_id}"
    return Response(accepted(message, place).model_dump_json(), 202, {"Location": location}, JSON)


def accepted(message: Message, place: int | None = None) -> ChatAccepted:
    return ChatAccepted(
        thread_id=thread_id_of(message.thread_id),
        message_id=message.message_id,
        seq=message.seq,
        fate=message.fate or "pending",
        reason=message.reason,
        place=place if message.fate == "pending" else None,
    )
