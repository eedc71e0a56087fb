"""Webhooks: having events sent to a URL of yours, and `verify` for whoever receives them there.

`verify` needs the standard library only. It follows Standard Webhooks 1.0.0, so any library of that verifies as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carrel_client.errors import WebhookVerificationError
from carrel_client.models import Event, Model
from carrel_client.transport import Transport, pages, path_of

TOLERANCE_S = 300


@dataclass(frozen=True)
class Webhook(Model):
    id: str
    url: str
    description: str
    events: list[str]
    coalesce_seconds: int
    state: str  #: enabled or disabled
    disabled_reason: str | None  #: by_request, gone or failing
    disabled_at: str | None
    failing_since: str | None
    last_success_at: str | None
    replaying: bool
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class NewWebhook(Webhook):
    secret: str = ""  #: shown this once


@dataclass(frozen=True)
class Delivery(Model):
    id: str
    event_id: str
    type: str
    subject: str
    state: str  #: pending, delivered or failed
    coalesced: int  #: earlier events that it stands for too
    attempts: int
    due_at: str | None
    last_status: int | None
    last_error: str | None
    created_at: str
    finished_at: str | None


def verify(
    payload: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Event:
    """The event of a genuine message; raise WebhookVerificationError for any other.

    `payload` is the request's body as it came, byte by byte; `secret` is the webhook's, or several of them. A message older
    or younger than `tolerance_s` is refused: it may be a recorded one. Events come at least once and in no order; the
    event's `id` is the same each time.
    """
    body = payload.encode() if isinstance(payload, str) else payload
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise WebhookVerificationError("The message lacks webhook-id or webhook-timestamp.")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance_s:
        raise WebhookVerificationError("The message is too old, or from the future.")
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = [_signature(each, signed) for each in ([secret] if isinstance(secret, str) else secret)]
    signatures = [part.partition(",")[2] for part in given.get("webhook-signature", "").split() if part.startswith("v1,")]
    if not any(hmac.compare_digest(each.encode(), other) for each in signatures for other in expected):
        raise WebhookVerificationError("No signature of the message is by this secret.")
    return _event(body)


def _signature(secret: str, signed: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise WebhookVerificationError("The secret is none: it begins with whsec_ and goes on in base64.") from error
    if not key:
        raise WebhookVerificationError("The secret is empty.")
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256))


def _event(body: bytes) -> Event:
    try:
        event = Event.parse(json.loads(body))
    except (ValueError, TypeError, AttributeError) as error:
        raise WebhookVerificationError("The message is genuine, and no event.") from error
    return event


class Webhooks:
    """`carrel.webhooks`. Needs the scope `manage`, and a key that is confined to nothing."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        url: str,
        events: Sequence[str],
        description: str = "",
        coalesce_seconds: int = 0,
        idempotency_key: str | None = None,
    ) -> NewWebhook:
        """`events`: as `document.live`, `document.*`, `*.failed` or `*`. The answer's `secret` is shown this once."""
        body = {"url": url, "events": list(events), "description": description, "coalesce_seconds": coalesce_seconds}
        return NewWebhook.parse(self._transport.call("POST", _PATH, json=body, idempotency_key=idempotency_key).json())

    def list(self, *, page_size: int = 100) -> Iterator[Webhook]:
        for item in pages(self._transport, _PATH, page_size):
            yield Webhook.parse(item)

    def get(self, webhook_id: str) -> Webhook:
        return Webhook.parse(self._transport.call("GET", path_of(_PATH, webhook_id)).json())

    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        coalesce_seconds: int | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change what is given. What happened while it was disabled is sent by `replay` only."""
        fields: dict[str, Any] = {
            **{"url": url, "events": None if events is None else [*events], "description": description},
            **{"coalesce_seconds": coalesce_seconds, "enabled": enabled},
        }
        body = {name: value for name, value in fields.items() if value is not None}
        return Webhook.parse(self._transport.call("PATCH", path_of(_PATH, webhook_id), json=body, repeatable=True).json())

    def delete(self, webhook_id: str) -> Webhook:
        return Webhook.parse(self._transport.call("DELETE", path_of(_PATH, webhook_id)).json())

    def rotate(self, webhook_id: str, *, overlap_hours: int = 24, idempotency_key: str | None = None) -> NewWebhook:
        """A new secret, shown this once. The present one signs beside it for `overlap_hours`; 0 ends all former ones."""
        path, body = path_of(_PATH, webhook_id, "rotate"), {"overlap_hours": overlap_hours}
        return NewWebhook.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key).json())

    def test(self, webhook_id: str, *, idempotency_key: str | None = None) -> Delivery:
        """Have an event of type `webhook.test` sent, once; `deliveries` shows what came of it."""
        path = path_of(_PATH, webhook_id, "test")
        return Delivery.parse(self._transport.call("POST", path, idempotency_key=idempotency_key).json())

    def deliveries(self, webhook_id: str, *, state: str | None = None, page_size: int = 100) -> Iterator[Delivery]:
        """Newest first; of one `state`: pending, delivered, or failed, which are dead letters."""
        for item in pages(self._transport, path_of(_PATH, webhook_id, "deliveries"), page_size, state=state):
            yield Delivery.parse(item)

    def replay(self, webhook_id: str, *, since: str, until: str | None = None, idempotency_key: str | None = None) -> Webhook:
        """Send the events of `since` ≤ time < `until` again, as "2026-03-10T12:00:00Z", whatever became of them."""
        path, body = path_of(_PATH, webhook_id, "replay"), {"since": since, "until": until}
        return Webhook.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key).json())

    def replay_delivery(self, webhook_id: str, delivery_id: str, *, idempotency_key: str | None = None) -> Delivery:
        """Send one delivery again, be it delivered or failed."""
        path = path_of(_PATH, webhook_id, "deliveries", delivery_id, "replay")
        return Delivery.parse(self._transport.call("POST", path, idempotency_key=idempotency_key).json())


_PATH = "/v1/webhooks"
