"""Whether the process lives, and whether the service can do its work."""

from __future__ import annotations

from fastapi import Response

from api.routing import Services, public, router
from api.schemas.documents import ReadinessOut
from api.version import VERSION

routes = router("Health")


@routes.get("/healthz", operation_id="health", summary="The process lives", **public())
async def health() -> dict[str, str]:
    return {"status": "alive"}


@routes.get(
    "/readyz",
    operation_id="readiness",
    summary="Each part the service needs, and whether it answers",
    responses={503: {"model": ReadinessOut, "description": "A part is missing, or the process is stopping."}},
    **public(),
)
async def readiness(response: Response, services: Services) -> ReadinessOut:
    parts = await services.readiness.parts()
    ready = all(part.ok for part in parts.values())
    response.status_code = 200 if ready else 503
    return ReadinessOut(ready=ready, version=VERSION, parts=parts)
