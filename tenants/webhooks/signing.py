"""Signatures of webhooks as Standard Webhooks 1.0.0 has them, and the secrets that make them. Pure.

What is signed is `id.timestamp.body`, with HMAC-SHA256 under each secret that is valid: a receiver that knows one of them
is satisfied, so that secrets can change while messages are on their way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PREFIX = "whsec_"
SECRET_BYTES = 32  # the specification takes 24 to 64
MAX_FORMER = 4  # secrets of former times that still sign: a header of five signatures has 240 characters


@dataclass(frozen=True, slots=True)
class SigningSecret:
    secret: str
    until: int | None = None  #: a former one signs until then; None: the present one


def new_secret() -> SigningSecret:
    return SigningSecret(PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode())


def valid(kept: Sequence[SigningSecret], now: int) -> list[SigningSecret]:
    """Those that sign, the present one first."""
    return [each for each in kept if each.until is None or each.until > now]


def rotated(kept: Sequence[SigningSecret], now: int, overlap_ms: int) -> list[SigningSecret]:
    """A new secret before those that go on signing. Without an overlap no former one does, whatever it was promised."""
    if not overlap_ms:
        return [new_secret()]
    former = [SigningSecret(each.secret, each.until or now + overlap_ms) for each in valid(kept, now)]
    return [new_secret(), *former[:MAX_FORMER]]


def dumped(kept: Sequence[SigningSecret]) -> str:
    return json.dumps([asdict(each) for each in kept])


def loaded(text: str) -> list[SigningSecret]:
    return [SigningSecret(**each) for each in json.loads(text)]


def signed_headers(kept: Sequence[SigningSecret], *, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """`at` in milliseconds; on the wire it is seconds."""
    timestamp = str(at // 1000)
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [_signature(each.secret, signed) for each in valid(kept, at)]
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
