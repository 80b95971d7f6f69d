"""``GET /api/room``: what a page has to know of the room before anybody signs in."""

from fastapi import APIRouter

from m3 import __version__
from m3.settings import Settings
from services.gateway.schemas import Room


def room(settings: Settings) -> APIRouter:
    router = APIRouter(tags=["chat"])

    @router.get("/api/room", summary="What this room is like")
    async def tell() -> Room:
        """Whoever asks is told the same, signed in or not."""
        return Room(
            auth="required" if settings.auth_required else "open",
            demo=settings.llm_base_url is None,
            sign_up=settings.auth_required and settings.sign_up,
            several_tenants=len(settings.tenant_names) > 1,
            message_limit=settings.message_limit,
            version=__version__,
        )

    return router
