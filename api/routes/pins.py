"""Turns that stand in every context of their session."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Text
from api.schemas.session_contexts import PinIn, PinOut, PinsOut
from tenants.context import Scope

routes = router("Sessions")
Seq = Annotated[int, Path(ge=1, le=2**31 - 1, description="Of the turn.")]


@routes.post(
    "/v1/sessions/{session_id}/pins",
    operation_id="pin_turn",
    status_code=201,
    summary="Pin a turn: it stands in every context of the session",
    **scope(Scope.CONVERSE),
)
async def pin_turn(session_id: Text, body: PinIn, services: Services, tenant: Tenant) -> PinOut:
    handle = services.conversations.contexts.pins.for_tenant(tenant)
    return PinOut.of(await in_thread(lambda: handle.pin(session_id, body.seq)))


@routes.get(
    "/v1/sessions/{session_id}/pins",
    operation_id="list_pins",
    summary="Pinned turns of a session",
    **scope(Scope.QUERY),
)
async def list_pins(session_id: Text, services: Services, tenant: Tenant) -> PinsOut:
    handle = services.conversations.contexts.pins.for_tenant(tenant)
    return PinsOut(items=[*map(PinOut.of, await in_thread(lambda: handle.list(session_id)))])


@routes.delete(
    "/v1/sessions/{session_id}/pins/{seq}",
    operation_id="unpin_turn",
    summary="Unpin a turn",
    **scope(Scope.CONVERSE),
)
async def unpin_turn(session_id: Text, seq: Seq, services: Services, tenant: Tenant) -> PinOut:
    handle = services.conversations.contexts.pins.for_tenant(tenant)
    return PinOut.of(await in_thread(lambda: handle.unpin(session_id, seq)))
