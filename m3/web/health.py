"""Whether a process runs, whether it reaches what it needs, and what it counts."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response

from m3.bus import Bus
from m3.errors import StoreUnavailable
from m3.metrics import CONTENT_TYPE_LATEST, exposition
from m3.store import Store
from m3.web.errors import Refusal, documented

#: Seconds in which the database must answer to be called ready.
PING_TIMEOUT = 2.0


def health(bus: Bus, store: Store) -> APIRouter:
    """``/healthz``: the process runs. ``/readyz``: it also reaches what it needs. ``/metrics``: its counters, for
    Prometheus."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="Whether the process reaches what it needs",
        responses=documented((503, "not_ready", "Missing: broker, database.")),
    )
    async def readyz() -> dict[str, str]:
        missing = [] if bus.connected else ["broker"]
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await store.ping()
        except (StoreUnavailable, TimeoutError):
            missing.append("database")
        if missing:
            raise Refusal(503, "not_ready", f"Missing: {', '.join(missing)}.", retry=True)
        return {"status": "ready"}

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
