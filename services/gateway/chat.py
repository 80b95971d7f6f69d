"""``POST /api/chat``: what is said, answered with the reply, with its promise, or with a stream of events."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema
from uuid_utils.compat import uuid7

from m3 import tracing
from m3.access.access import Access
from m3.access.principals import Principal
from m3.access.rules import Action
from m3.access.speaking import action_of, author_of, sender_of
from m3.door import Door, Taken
from m3.events import ANYONE, MessageAccepted, SenderKey, SenderName, keyed_id
from m3.settings import Settings
from m3.store import Store
from m3.web import documented
from services.gateway.answering import answered, answering
from services.gateway.asking import principal_of, thread_for
from services.gateway.direct import DirectRoute
from services.gateway.event_stream import MEDIA_TYPE
from services.gateway.guards import (
    INVALID,
    NAMED,
    NO_BROKER,
    NO_DATABASE,
    NOT_FOUND,
    NOT_RECORDED,
    OVERLOADED,
    TOO_MANY,
    TRACEPARENT,
    of_a_body,
)
from services.gateway.outcomes import is_far_behind, only_recorded, outcome, reply_known
from services.gateway.reading_along import ReadingAlong
from services.gateway.schemas import ACCEPTED, ChatReply, ChatRequest
from services.gateway.streaming import ChatStream
from services.gateway.waiting import while_allowed

ROUTE = {"http.request.method": "POST", "http.route": "/api/chat"}

_STREAM = """With `Accept: text/event-stream` a stream of events: `recorded` (whose id is the message's), `turn` and
`delta` as the agent speaks, and last the recorded reply as `new_message`; or `fate` where there is none, `error` where
the model failed or the caller may not read any more, `pending` where the reply comes later."""


class _Headers(BaseModel):
    idempotency_key: Annotated[
        SenderKey | None,
        Field(description="Any text of the sender's own. The same message with the same key is taken once."),
    ] = None
    m3_client: Annotated[SenderName, Field(description=NAMED)] = ANYONE
    last_event_id: Annotated[
        UUID | SkipJsonSchema[None],
        Field(description="The id of the message, recorded before: nothing is taken, its outcome is told."),
    ] = None
    prefer: Annotated[str | None, Field(description="`respond-async`: answer as soon as the message is recorded.")] = (
        None
    )

    def message_id(self, principal: Principal) -> UUID:
        """Which message the request is about."""
        if self.last_event_id:
            return self.last_event_id
        sender = sender_of(principal, self.m3_client)
        return keyed_id(sender, self.idempotency_key) if self.idempotency_key else uuid7()


def chat(door: Door, reading_along: ReadingAlong, access: Access, store: Store, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["chat"], route_class=DirectRoute)

    @router.post(
        "/api/chat",
        summary="Say something and get the agent's reply",
        response_model=ChatReply,
        openapi_extra=TRACEPARENT,
        responses={
            200: {
                "description": f"The reply. {_STREAM}",
                "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
            },
            **ACCEPTED,
            **documented(
                NOT_FOUND,
                *of_a_body(settings.body_limit),
                INVALID,
                (422, "message_too_long", f"message: must be at most {settings.message_limit} bytes of UTF-8."),
                (422, "key_reused", "The key was used before, for another message."),
                TOO_MANY,
                (502, "model_failed", "The model's server cannot be reached."),
                OVERLOADED,
                NO_BROKER,
                NOT_RECORDED,
                NO_DATABASE,
            ),
        },
    )
    async def say(said: ChatRequest, headers: Annotated[_Headers, Header()], request: Request) -> Response:
        """Waits for the reply, and past the waiting time answers 202; the reply still comes. A program that may not
        read in the thread gets 202 as soon as its message is recorded, and is not told what becomes of it."""
        principal = principal_of(request)
        source = access.source_of(principal, said.source, told="source" in said.model_fields_set)
        key = await thread_for(access, principal, action_of(source), said.thread_id)
        reads = await access.may_besides(principal, Action.READ, key)
        accepted = MessageAccepted(
            message_id=headers.message_id(principal),
            thread_id=key,
            source=source,
            content=said.message,
            interface="http_api",
            origin=door.origin,
            author=author_of(principal, headers.m3_client),
            accepted_at=datetime.now(UTC),
            traceparent=tracing.received(request.scope["headers"]),
        )
        span = tracing.span("POST /api/chat", "SERVER", accepted, ROUTE)
        accepted = span.carried_by(accepted)
        resumed = headers.last_event_id is not None
        # The names that people give themselves prove nothing, and may be others by now.
        taking = door.found(accepted, own=access.required) if resumed else door.taken(accepted, settings)
        staying = while_allowed(access, principal, key, accepted.message_id)
        if reads and _names_event_stream(request):
            reading = reading_along.reader(key, accepted.message_id)
            return ChatStream(reading, taking, staying, store, settings, answering(span, accepted), resumed=resumed)
        with answering(span, accepted):
            async with taking as taken:
                if reads:
                    async with staying:
                        response = await told(taken, waits="respond-async" not in _preferences(headers.prefer))
                else:
                    response = only_recorded(taken)
            answered(span, response.status_code)
            return response

    async def told(taken: Taken, *, waits: bool) -> Response:
        """What became of the message, once that is known to whoever waits."""
        message, place = taken.message, taken.before
        if waits and not await is_far_behind(taken, store, settings):
            place = None  # as it was then
            with suppress(TimeoutError):
                message = await taken.watch.settled(settings.reply_timeout)
        return outcome(message, await reply_known(taken.watch), place)

    return router


def _preferences(header: str | None) -> set[str]:
    """The names in a ``Prefer`` header (RFC 7240), which may have values and parameters."""
    return {re.split("[=;]", one)[0].strip().lower() for one in (header or "").split(",")}


def _names_event_stream(request: Request) -> bool:
    """Whether the ``Accept`` headers name it. What merely would take it, as ``*/*`` does, gets JSON."""
    accepted = (
        b",".join(value for name, value in request.scope["headers"] if name == b"accept").decode("latin-1").lower()
    )
    return any(
        kind.strip() == MEDIA_TYPE and not re.search(r"(^|;)\s*q\s*=\s*0(\.0*)?\s*(;|$)", parameters)
        for kind, _, parameters in (one.partition(";") for one in accepted.split(","))
    )
