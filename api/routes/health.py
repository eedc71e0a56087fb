"""Whether the process lives, and whether the service can do its work."""

from __future__ import annotations

from fastapi import Response
from sqlalchemy.exc import SQLAlchemyError

from api.routing import Services, in_thread, public, router
from api.schemas import Part, Readiness
from api.version import VERSION
from api.wiring import ApiServices

routes = router("Health", refusals={})


@routes.get("/healthz", operation_id="health", summary="The process lives", **public())
async def health() -> dict[str, str]:
    return {"status": "alive"}


@routes.get(
    "/readyz",
    operation_id="readiness",
    summary="Each part the service needs, and whether it answers",
    responses={503: {"model": Readiness, "description": "A part is missing."}},
    **public(),
)
async def readiness(response: Response, services: Services) -> Readiness:
    parts = await in_thread(check_parts, services)
    ready = all(part.ok for part in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, version=VERSION, parts=parts)


def check_parts(services: ApiServices) -> dict[str, Part]:
    engine = services.store.health()
    try:
        services.core.database.ping()
        database = Part(ok=True, detail="answers")
    except SQLAlchemyError as error:
        database = Part(ok=False, detail=type(error).__name__)
    runtime = services.embedding.runtime
    return {
        "database": database,
        "engine": Part(ok=engine.ok, detail=engine.detail),
        "model": Part(ok=True, detail=f"{runtime.name}, {runtime.fingerprint.precision}"),
    }
