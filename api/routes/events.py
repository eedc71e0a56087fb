"""A tenant's events, for whoever follows what happens to its documents, keys and budget."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from api.cursors import Cursor, Limit
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Page, Text
from api.schemas.jobs import EventOut
from config.errors import Forbidden
from tenants.context import Scope

routes = router("Events")


@routes.get("/v1/events", operation_id="list_events", summary="List events in the order they happened", **scope(Scope.MANAGE))
async def list_events(
    services: Services,
    tenant: Tenant,
    cursor: Cursor,
    type: Annotated[Text | None, Query(description="A type, or its beginning, as `document.`.")] = None,
    since: Annotated[Text | None, Query(description="Id of the last event that you have.")] = None,
    limit: Limit = 20,
) -> Page[EventOut]:
    if tenant.collections is not None or tenant.labels is not None:
        raise Forbidden("Events tell of all of a tenant's documents; use a key that is not confined to collections or labels.")
    handle = services.events.for_tenant(tenant)
    events, following = await in_thread(lambda: handle.list(type=type, after=cursor.position or since, limit=limit))
    return Page(data=[EventOut.of(event) for event in events], next=cursor.next(following))
