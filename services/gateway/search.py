"""``GET /api/threads/{thread_id}/search``: the messages of a thread that have certain words."""

from typing import Annotated

from fastapi import APIRouter, Query

from m3.sealing import words
from m3.store import END, Store
from m3.tenants import thread_id_of
from m3.web import Refusal, documented
from services.gateway.asking import Key
from services.gateway.guards import INVALID, NO_DATABASE
from services.gateway.schemas import HISTORY_LIMIT, Before, Found, Limit

#: Characters of what is searched for.
MAX_QUERY = 256

_NO_WORD = (422, "invalid_request", "query.q: must have a letter or a digit.")


def search(store: Store) -> APIRouter:
    router = APIRouter(tags=["threads"])

    @router.get(
        "/api/threads/{thread_id}/search",
        summary="The messages of a thread that have certain words",
        response_model_exclude={"messages": {"__all__": {"traceparent"}}},
        responses=documented(INVALID, NO_DATABASE),
    )
    async def find(
        key: Key,
        q: Annotated[
            str, Query(min_length=1, max_length=MAX_QUERY, description="Words, all of which a message must have.")
        ],
        limit: Limit = 100,
        before: Before = END,
    ) -> Found:
        """Newest first. Whole words, whatever their case; of writing without spaces any part. Of a message its first
        1000 different words count."""
        if not words(q):
            raise Refusal(*_NO_WORD)
        messages = await store.found(key, q, min(limit, HISTORY_LIMIT), before=before)
        return Found(thread_id=thread_id_of(key), messages=messages)

    return router
