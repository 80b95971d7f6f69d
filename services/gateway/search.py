"""``GET /api/threads/{thread_id}/search``: the messages of a thread that have certain words."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from m3.events import Message
from m3.sealing import words
from m3.store import END, Store
from m3.tenants import thread_id_of
from m3.web import Refusal, documented
from services.gateway.asking import Key
from services.gateway.guards import INVALID, NO_DATABASE
from services.gateway.schemas import HISTORY_LIMIT, Before, Found, Limit

#: Characters of what is searched for.
MAX_QUERY = 256
#: Searches side by side, and most that wait for one of those to end.
PLACES, WAITING = 4, 32
#: Seconds that one may take, its wait too.
PATIENCE = 2.0

_TOO_LONG = (503, "took_too_long", "The search took too long; try again later, or with words that are said less often.")
_TOO_MANY = (503, "overloaded", "Too many search at once; try again later.")


class _Searches:
    """A few at a time, each with a deadline: how much one has to read depends on what it is for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places = asyncio.Semaphore(PLACES)
        self._asked = 0

    async def found(self, key: str, q: str, limit: int, *, before: int) -> list[Message]:
        """Raises Refusal or StoreUnavailable."""
        if self._asked >= PLACES + WAITING:
            raise Refusal(*_TOO_MANY, retry=True)
        self._asked += 1
        try:
            async with asyncio.timeout(PATIENCE), self._places:
                return await self._store.found(key, q, limit, before=before)
        except TimeoutError:
            raise Refusal(*_TOO_LONG, retry=True) from None
        finally:
            self._asked -= 1


def search(store: Store) -> APIRouter:
    router = APIRouter(tags=["threads"])
    searches = _Searches(store)

    @router.get(
        "/api/threads/{thread_id}/search",
        summary="The messages of a thread that have certain words",
        response_model_exclude={"messages": {"__all__": {"traceparent"}}},
        responses=documented(INVALID, NO_DATABASE, _TOO_LONG, _TOO_MANY),
    )
    async def find(
        key: Key,
        q: Annotated[
            str, Query(min_length=1, max_length=MAX_QUERY, description="Words, all of which a message must have.")
        ],
        limit: Limit = 100,
        before: Before = END,
    ) -> Found:
        """Newest first; none where there is no word in `q`. Whole words, whatever their case; of writing without spaces
        any part. Of a message its first 1000 different words count."""
        messages = await searches.found(key, q, min(limit, HISTORY_LIMIT), before=before) if words(q) else []
        return Found(thread_id=thread_id_of(key), messages=messages)

    return router
