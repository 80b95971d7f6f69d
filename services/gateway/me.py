"""``GET /api/me``: who the caller is to the room."""

from fastapi import APIRouter

from m3.access.access import Access
from services.gateway.asking import Who
from services.gateway.schemas import Me


def me(access: Access) -> APIRouter:
    router = APIRouter(tags=["signing in"])

    @router.get("/api/me", summary="Who you are here")
    async def tell(principal: Who) -> Me:
        """In a room that asks nobody who they are everybody is `anyone`."""
        return Me(
            kind=principal.kind,
            tenant=principal.tenant,
            name=principal.name,
            auth="required" if access.required else "open",
        )

    return router
