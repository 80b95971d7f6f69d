"""``GET /api/threads``, which is also of a room that asks nobody who they are."""

from fastapi import APIRouter

from m3.access.access import Access
from m3.access.memberships import Memberships
from m3.web import documented
from services.gateway.asking import Who
from services.gateway.guards import INVALID_PAGE, NO_DATABASE
from services.gateway.schemas import HISTORY_LIMIT, AfterThread, AtMost, Thread, Threads


def listing(access: Access) -> APIRouter:
    router = APIRouter(tags=["threads"])
    memberships = Memberships(access.directory)

    @router.get("/api/threads", summary="The threads that you find", responses=documented(INVALID_PAGE, NO_DATABASE))
    async def mine(principal: Who, after: AfterThread | None = None, limit: AtMost = 100) -> Threads:
        """Those that you are a member of, and those that are open to everybody with an account. An operator finds all
        of the tenant, and is told whose they are, as is everybody in a room that asks nobody who they are."""
        list_them = memberships.threads_of if principal.kind in {"person", "program"} else memberships.threads
        found = await list_them(principal, after=after or "", limit=min(limit, HISTORY_LIMIT))
        return Threads(threads=[Thread.model_validate(thread) for thread in found])

    return router
