"""A tenant's webhooks: where its events are sent, what was sent, and sending it again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query, Request

from api.cursors import Cursor, Limit
from api.idempotency import Once
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Page, Text
from api.schemas.webhooks import (
    STATE,
    DeliveryOut,
    DeliveryState,
    NewWebhookOut,
    ReplayIn,
    SecretRotateIn,
    WebhookIn,
    WebhookOut,
    WebhookPatch,
)
from config.errors import Forbidden
from tenants.context import Scope
from tenants.webhooks.endpoints import TenantWebhooks

routes = router("Webhooks")


async def _handle(services: Services, tenant: Tenant) -> TenantWebhooks:
    if tenant.collections is not None or tenant.labels is not None:
        raise Forbidden("Webhooks tell of all of a tenant's documents; use a key without such bounds.")
    return services.webhooks.for_tenant(tenant)


Handle = Annotated[TenantWebhooks, Depends(_handle)]


@routes.post(
    "/v1/webhooks",
    operation_id="create_webhook",
    summary="Have events sent to a URL; the secret is shown this once",
    status_code=201,
    **scope(Scope.MANAGE),
)
async def create_webhook(body: WebhookIn, handle: Handle, once: Once, request: Request) -> NewWebhookOut:
    record = once.records(NewWebhookOut.of_new, status=201)
    new = await in_thread(lambda: handle.create(**body.model_dump(), record=record))
    request.state.audit = {"webhook": new.row.id}
    return NewWebhookOut.of_new(new)


@routes.get("/v1/webhooks", operation_id="list_webhooks", summary="List webhooks", **scope(Scope.MANAGE))
async def list_webhooks(handle: Handle, cursor: Cursor, limit: Limit = 20) -> Page[WebhookOut]:
    rows = await in_thread(lambda: handle.list(after=cursor.position, limit=limit))
    return Page(data=[*map(WebhookOut.of, rows)], next=cursor.next(rows[-1].id if len(rows) == limit else None))


@routes.get("/v1/webhooks/{webhook_id}", operation_id="get_webhook", summary="Show a webhook", **scope(Scope.MANAGE))
async def get_webhook(webhook_id: Text, handle: Handle) -> WebhookOut:
    return WebhookOut.of(await in_thread(handle.get, webhook_id))


@routes.patch(
    "/v1/webhooks/{webhook_id}",
    operation_id="update_webhook",
    summary="Change a webhook, disable it or enable it again",
    **scope(Scope.MANAGE),
)
async def update_webhook(webhook_id: Text, body: WebhookPatch, handle: Handle) -> WebhookOut:
    changes = body.model_dump(exclude_none=True)
    return WebhookOut.of(await in_thread(lambda: handle.update(webhook_id, **changes)))


@routes.delete(
    "/v1/webhooks/{webhook_id}",
    operation_id="delete_webhook",
    summary="Delete a webhook, its secret and its deliveries",
    **scope(Scope.MANAGE),
)
async def delete_webhook(webhook_id: Text, handle: Handle) -> WebhookOut:
    return WebhookOut.of(await in_thread(handle.delete, webhook_id))


@routes.post(
    "/v1/webhooks/{webhook_id}/rotate",
    operation_id="rotate_webhook_secret",
    summary="Get a new secret, which is shown this once; the former signs too for a while",
    **scope(Scope.MANAGE),
)
async def rotate_secret(webhook_id: Text, body: SecretRotateIn, handle: Handle) -> NewWebhookOut:
    new = await in_thread(lambda: handle.rotate(webhook_id, overlap_hours=body.overlap_hours))
    return NewWebhookOut.of_new(new)


@routes.post(
    "/v1/webhooks/{webhook_id}/test",
    operation_id="test_webhook",
    summary="Send an event of type `webhook.test`, once",
    status_code=202,
    **scope(Scope.MANAGE),
)
async def try_webhook(webhook_id: Text, handle: Handle) -> DeliveryOut:
    return DeliveryOut.of(await in_thread(handle.test, webhook_id))


@routes.post(
    "/v1/webhooks/{webhook_id}/replay",
    operation_id="replay_webhook",
    summary="Send the events of a range of time again",
    status_code=202,
    **scope(Scope.MANAGE),
)
async def replay_webhook(webhook_id: Text, body: ReplayIn, handle: Handle) -> WebhookOut:
    since, until = _milliseconds(body.since), None if body.until is None else _milliseconds(body.until)
    return WebhookOut.of(await in_thread(lambda: handle.replay(webhook_id, since=since, until=until)))


@routes.get(
    "/v1/webhooks/{webhook_id}/deliveries",
    operation_id="list_webhook_deliveries",
    summary="List what was or is to be sent to a webhook, newest first",
    **scope(Scope.MANAGE),
)
async def list_deliveries(
    webhook_id: Text,
    handle: Handle,
    cursor: Cursor,
    state: Annotated[DeliveryState | None, Query(description=STATE)] = None,
    limit: Limit = 20,
) -> Page[DeliveryOut]:
    rows, following = await in_thread(lambda: handle.deliveries(webhook_id, state=state, after=cursor.position, limit=limit))
    return Page(data=[*map(DeliveryOut.of, rows)], next=cursor.next(following))


@routes.post(
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
    operation_id="replay_webhook_delivery",
    summary="Send a delivery again, be it delivered or failed",
    status_code=202,
    **scope(Scope.MANAGE),
)
async def replay_delivery(webhook_id: Text, delivery_id: Text, handle: Handle) -> DeliveryOut:
    return DeliveryOut.of(await in_thread(handle.replay_one, webhook_id, delivery_id))


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
