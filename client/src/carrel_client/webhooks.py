"""Webhooks: having events sent to a URL of yours, and `verify` for whoever receives them there.

`verify` needs the standard library only. It follows Standard Webhooks 1.0.0, so any library of that verifies as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carrel_client.errors import CarrelClientError, WebhookVerificationError
from carrel_client.models import Event, Model

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
    signed = _bytes(f"{message_id}.{timestamp}.") + body
    expected = [_signature(each, signed) for each in ([secret] if isinstance(secret, str) else secret)]
    signatures = [part.partition(",")[2] for part in given.get("webhook-signature", "").split() if part.startswith("v1,")]
    if not any(hmac.compare_digest(_bytes(each), other) for each in signatures for other in expected):
        raise WebhookVerificationError("No signature of the message is by this secret.")
    return _event(body)


def _bytes(given: str) -> bytes:
    """Of a header, in which a server may have put halves of letters for bytes that are no text."""
    return given.encode("utf-8", "replace")


def _signature(secret: str, signed: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise WebhookVerificationError("The secret is none: it begins with whsec_ and goes on in base64.") from error
    if not key:
        raise WebhookVerificationError("The secret is empty.")
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256))


def _event(body: bytes) -> Event:
    try:
        event = Event.parse(json.loads(body))
    except (ValueError, TypeError, AttributeError, CarrelClientError) as error:
        raise WebhookVerificationError("The message is genuine, and no event.") from error
    return event
