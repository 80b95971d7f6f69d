"""``GET /api/messages/{message_id}``, and asking for another turn for it."""

from uuid import UUID

from fastapi import APIRouter, Depends, Response

from m3.access.access import Access
from m3.access.rules import Action
from m3.door import Door
from m3.settings import Settings
from m3.store import Store
from m3.web import documented
from services.gateway.asking import Who, message_for
from services.gateway.guards import (
    FOREIGN,
    INVALID,
    NO_BROKER,
    NO_DATABASE,
    NOT_FOUND,
    NOT_RECORDED,
    OVERLOADED,
    own,
)
from services.gateway.outcomes import come_back
from services.gateway.schemas import ACCEPTED, ChatAccepted, ShownMessage

_NOT_RETRYABLE = (409, "not_retryable", "Only a message that failed or was cancelled can be retried.")


def messages(door: Door, access: Access, store: Store, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["messages"])

    @router.get(
        "/api/messages/{message_id}",
        summary="A message and what became of it",
        response_model_exclude={"traceparent"},
        responses=documented(NOT_FOUND, INVALID, NO_DATABASE),
    )
    async def message(message_id: UUID, principal: Who) -> ShownMessage:
        """Its `fate` is `pending`; `answered` or `merged` (with `reply_id` and `reply_seq`); or `expired`, `shed`,
        `ignored`, `cancelled` or `failed` (with `reason`)."""
        return await message_for(access, principal, Action.READ, message_id, store)

    @router.post(
        "/api/messages/{message_id}/retry",
        summary="Ask for another turn for a message that failed or was cancelled",
        status_code=202,
        response_model=ChatAccepted,
        dependencies=[Depends(own)],
        responses={
            **ACCEPTED,
            **documented(FOREIGN, NOT_FOUND, _NOT_RETRYABLE, INVALID, OVERLOADED, NO_BROKER, NOT_RECORDED, NO_DATABASE),
        },
    )
    async def retry(message_id: UUID, principal: Who) -> Response:
        """One that waits for its turn already is accepted as well."""
        message = await message_for(access, principal, Action.RETRY, message_id, store)
        return come_back(await door.retry(message, settings))

    return router
