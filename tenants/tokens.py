"""Short-lived signed tokens: what the operator's CLI acts with on a tenant's behalf. Verified without the database."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from config.clock import Clock
from config.errors import InvalidInput
from tenants.context import TENANT_SCOPES, Scope

AUDIENCE = "carrel"
ALGORITHM = "HS256"
MAX_LIFETIME_S = 3600


@dataclass(frozen=True, slots=True)
class Claims:
    id: str
    tenant_id: str
    issued_by: str  #: the principal that asked for the token
    scopes: frozenset[Scope]
    expires_at: int  #: Unix ms


class TokenSigner:
    def __init__(self, signing_key: bytes, clock: Clock) -> None:
        self._key, self._clock = signing_key, clock

    def issue(self, tenant_id: str, *, issued_by: str, scopes: Sequence[Scope], lifetime_s: int) -> tuple[str, Claims]:
        if not 1 <= lifetime_s <= MAX_LIFETIME_S:
            raise InvalidInput(f"A token lives 1 to {MAX_LIFETIME_S} seconds.", field="lifetime_seconds", limit=MAX_LIFETIME_S)
        if not scopes or any(scope not in TENANT_SCOPES for scope in scopes):
            raise InvalidInput(f"Scopes are some of {', '.join(TENANT_SCOPES)}.", field="scopes")
        expires = self._clock() // 1000 + lifetime_s
        claims = Claims(f"tok_{secrets.token_hex(12)}", tenant_id, issued_by, frozenset(scopes), expires * 1000)
        payload = {
            "aud": AUDIENCE,
            "jti": claims.id,
            "sub": tenant_id,
            "act": issued_by,
            "scope": " ".join(sorted(scopes)),
            "exp": expires,
        }
        return jwt.encode(payload, self._key, ALGORITHM), claims

    def verify(self, token: str) -> Claims | None:
        """The claims of a genuine token that has not expired, else None."""
        required = ["aud", "jti", "sub", "act", "scope", "exp"]
        try:
            # The injected clock decides about expiry, below.
            options: Any = {"require": required, "verify_exp": False}
            data = jwt.decode(token, self._key, [ALGORITHM], audience=AUDIENCE, options=options)
            scopes = frozenset(Scope(scope) for scope in data["scope"].split())
            claims = Claims(data["jti"], data["sub"], data["act"], scopes, int(data["exp"]) * 1000)
        except (jwt.InvalidTokenError, ValueError):
            return None
        return claims if claims.expires_at > self._clock() else None
