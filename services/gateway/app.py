"""``POST /api/chat``, ``GET /api/threads/{thread_id}/history`` and ``GET /api/messages/{message_id}``."""

import re
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from uuid_utils.compat import uuid7

from m3 import __version__
from m3.bus import Bus
from m3.door import Door
from m3.errors import StoreUnavailable
from m3.events import ANYONE, Message, MessageAccepted, SenderKey, SenderName, ThreadId, keyed_id
from m3.settings import Settings
from m3.store import END, Store
from m3.web import BoundedBody, Refusal, answer_errors, documented, health, not_json
from services.gateway.docs import serve_docs
from services.gateway.schemas import HISTORY_LIMIT, After, Before, ChatAccepted, ChatReply, ChatRequest, History, Limit

_INVALID = (422, "invalid_request", "message: must not be blank.")
_NO_DATABASE = (503, "database_unavailable", "The database is away; try again.")


def gateway(door: Door, bus: Bus, store: Store, settings: Settings) -> FastAPI:
    app = FastAPI(title="M3 room", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BoundedBody, limit=settings.body_limit)
    answer_errors(app)
    app.include_router(health(bus, store))
    app.include_router(_chat(door, settings))
    app.include_router(_reading(store))
    serve_docs(app)
    return app


async def _plain(request: Request) -> None:
    """Refuse bodies other than JSON, which a page of another origin could send without being asked; and two keys."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "unsupported_media_type", "The body must be application/json.")
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise Refusal(422, "invalid_request", "header.idempotency-key: may be there once only.")
    if b"\x00" in await request.body():  # UTF-16 or UTF-32, which Python's parser takes too
        raise not_json()


def _chat(door: Door, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["chat"])

    @router.post(
        "/api/chat",
        summary="Say something and get the agent's reply",
        response_model=ChatReply,
        dependencies=[Depends(_plain)],
        responses={
            202: {
                "model": ChatAccepted,
                "description": "Recorded; the reply comes later, by socket and in the history.",
                "headers": {"Location": {"description": "Where its fate is told.", "schema": {"type": "string"}}},
            },
            **documented(
                (400, "malformed_body", "The body is not JSON."),
                (400, "malformed_request", "Invalid HTTP request received."),
                (408, "body_too_slow", "The body did not arrive within 10 seconds."),
                (413, "body_too_long", f"The body is longer than {settings.body_limit} bytes."),
                (415, "unsupported_media_type", "The body must be application/json."),
                _INVALID,
                (422, "message_too_long", f"message: must be at most {settings.message_limit} bytes of UTF-8."),
                (422, "key_reused", "The key was used before, for another message."),
                (431, "head_too_long", "The request's head is longer than 65536 bytes."),
                (502, "model_failed", "The model's server cannot be reached."),
                (503, "overloaded", "Too much waits to be recorded; try again later."),
                (503, "broker_unavailable", "The message could not be handed on; try again."),
                (503, "not_recorded", "The message was not recorded in time; it may be recorded later."),
                _NO_DATABASE,
            ),
        },
    )
    async def chat(
        said: ChatRequest,
        prefer: Annotated[
            str | None, Header(description="`respond-async`: answer as soon as the message is recorded.")
        ] = None,
        idempotency_key: Annotated[
            SenderKey | None,
            Header(description="Any text of the sender's own. The same message with the same key is taken once."),
        ] = None,
        m3_client: Annotated[
            SenderName, Header(description="The sender's name; its keys do not meet those of other names.")
        ] = ANYONE,
    ) -> Response | ChatReply:
        """Waits for the reply, and past the waiting time answers 202; the reply still comes."""
        accepted = MessageAccepted(
            message_id=keyed_id(m3_client, idempotency_key) if idempotency_key else uuid7(),
            thread_id=said.thread_id,
            source=said.source,
            content=said.message,
            interface="http_api",
            origin=door.origin,
        )
        limit, within = settings.message_limit, settings.record_timeout
        async with door.taken(accepted, limit=limit, within=within) as (recorded, watch):
            message = recorded
            if "respond-async" not in _preferences(prefer):
                with suppress(TimeoutError):
                    message = await watch.settled(settings.reply_timeout)
            reply = None
            with suppress(StoreUnavailable):  # it is recorded, and that is what must be told
                reply = await watch.reply()
            return _outcome(message, reply)

    return router


def _preferences(header: str | None) -> set[str]:
    """The names in a ``Prefer`` header (RFC 7240), which may have values and parameters."""
    return {re.split("[=;]", one)[0].strip().lower() for one in (header or "").split(",")}


def _outcome(message: Message, reply: Message | None) -> Response | ChatReply:
    if message.fate == "failed":
        raise Refusal(502, "model_failed", message.reason or "", message_id=message.message_id)
    if reply is None:
        accepted = ChatAccepted(
            thread_id=message.thread_id, message_id=message.message_id, seq=message.seq, fate=message.fate or "pending"
        )
        location = f"/api/messages/{message.message_id}"
        return JSONResponse(accepted.model_dump(mode="json"), 202, {"Location": location})
    return ChatReply(
        response=reply.content,
        thread_id=message.thread_id,
        message_id=message.message_id,
        seq=message.seq,
        reply_id=reply.message_id,
        reply_seq=reply.seq,
    )


def _reading(store: Store) -> APIRouter:
    router = APIRouter(tags=["reading"])

    @router.get(
        "/api/threads/{thread_id}/history",
        summary="The messages of a thread",
        responses=documented(_INVALID, _NO_DATABASE),
    )
    async def history(
        thread_id: ThreadId, limit: Limit = 100, before: Before = END, after: After | None = None
    ) -> History:
        """Oldest first; the newest ones, or with `after` those that follow. A thread in which nothing was said yet is
        empty."""
        most = min(limit, HISTORY_LIMIT)
        if after is None:
            messages = await store.latest(thread_id, most, before=before)
        else:
            messages = await store.following(thread_id, after, most, before=before)
        return History(thread_id=thread_id, messages=messages)

    @router.get(
        "/api/messages/{message_id}",
        summary="A message and what became of it",
        responses=documented((404, "not_found", "There is no such message."), _INVALID, _NO_DATABASE),
    )
    async def message(message_id: UUID) -> Message:
        """Its `fate` is `pending`, `answered` (with `reply_id` and `reply_seq`) or `failed` (with `reason`)."""
        found = await store.message(message_id)
        if found is None:
            raise Refusal(404, "not_found", "There is no such message.")
        return found

    return router
