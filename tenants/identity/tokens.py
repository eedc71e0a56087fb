"""Short-lived signed tokens: for the end users of an application, and for what the operator does on a tenant's behalf.

A token is verified without the database, and says what it allows of what the key behind it allows: the authenticator lets
nobody in whose key is gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from config.clock import Clock
from config.errors import Forbidden, InvalidInput, storable
from tenants.context import TENANT_SCOPES, PrincipalKind, Scope, TenantContext

AUDIENCE = "carrel"
ALGORITHM = "HS256"
MAX_LIFETIME_S = 3600
MAX_SUBJECT_CHARS = 200
MAX_BOUNDS, MAX_BOUND_CHARS = 100, 100
MAX_CHARS = 7000  # of a token: many proxies take headers of 8 KiB
_REQUIRED = ["aud", "jti", "ten", "act", "scope", "exp"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token allows, of what the key `key_id` allows. None of `collections` or `labels`: all that the key sees."""

    id: str
    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]
    expires_at: int  #: Unix ms
    subject: str | None = None
    collections: frozenset[str] | None = None
    labels: frozenset[str] | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What a token is asked to allow."""

    scopes: Sequence[Scope]
    lifetime_s: int
    subject: str | None = None
    collections: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    read_only: bool = False


class TokenSigner:
    def __init__(self, signing_key: bytes, clock: Clock) -> None:
        self._key, self._clock = signing_key, clock

    def issue(self, tenant_id: str, *, key_id: str, wish: Wish) -> tuple[str, Claims]:
        """`key_id`: with which the token dies."""
        _check(wish)
        expires = self._clock() // 1000 + wish.lifetime_s
        claims = Claims(
            f"tok_{secrets.token_hex(12)}",
            tenant_id,
            key_id,
            frozenset(wish.scopes),
            expires * 1000,
            wish.subject,
            None if wish.collections is None else frozenset(wish.collections),
            None if wish.labels is None else frozenset(wish.labels),
            wish.read_only,
        )
        payload = {
            "aud": AUDIENCE,
            "jti": claims.id,
            "ten": tenant_id,
            "act": key_id,
            "scope": " ".join(sorted(claims.scopes)),
            "exp": expires,
            "sub": wish.subject,
            "col": None if wish.collections is None else sorted(wish.collections),
            "lab": None if wish.labels is None else sorted(wish.labels),
            "ro": wish.read_only or None,
        }
        present = {name: value for name, value in payload.items() if value is not None}
        token = jwt.encode(present, self._key, ALGORITHM)
        if len(token) > MAX_CHARS:
            raise InvalidInput("A token does not hold so many collections and labels.", field="labels", limit=MAX_CHARS)
        return token, claims

    def issue_for(self, context: TenantContext, wish: Wish) -> tuple[str, Claims]:
        """A token for a key's end user. Raise Forbidden if it would allow anything that the key does not."""
        principal = context.principal
        if principal.kind is not PrincipalKind.KEY:
            raise Forbidden("A token is made with a key, not with another token.")
        if beyond := set(wish.scopes) - principal.scopes:
            raise Forbidden(f"The key lacks the scope `{min(beyond)}`.")
        for what, held, wished in (
            ("collection", context.collections, wish.collections),
            ("label", context.labels, wish.labels),
        ):
            if held is not None and not held.issuperset(wished or ()):
                raise Forbidden(f"The key does not see every {what} that is asked for.")
        return self.issue(context.tenant_id, key_id=principal.key_id, wish=wish)

    def verify(self, token: str) -> Claims | None:
        """The claims of a genuine token that has not expired, else None."""
        try:
            # The injected clock decides about expiry, below.
            options: Any = {"require": _REQUIRED, "verify_exp": False}
            data = jwt.decode(token, self._key, [ALGORITHM], audience=AUDIENCE, options=options)
            claims = Claims(
                data["jti"],
                data["ten"],
                data["act"],
                frozenset(Scope(scope) for scope in data["scope"].split()),
                int(data["exp"]) * 1000,
                data.get("sub"),
                None if data.get("col") is None else frozenset(data["col"]),
                None if data.get("lab") is None else frozenset(data["lab"]),
                bool(data.get("ro", False)),
            )
        except (jwt.InvalidTokenError, ValueError):
            return None
        return claims if claims.expires_at > self._clock() else None


def within(held: frozenset[str] | None, asked: frozenset[str] | None) -> frozenset[str] | None:
    """What both allow; None allows everything."""
    if held is None or asked is None:
        return asked if held is None else held
    return held & asked


def _check(wish: Wish) -> None:
    if not 1 <= wish.lifetime_s <= MAX_LIFETIME_S:
        raise InvalidInput(f"A token lives 1 to {MAX_LIFETIME_S} seconds.", field="lifetime_seconds", limit=MAX_LIFETIME_S)
    if not wish.scopes or any(scope not in TENANT_SCOPES for scope in wish.scopes):
        raise InvalidInput(f"Scopes are some of {', '.join(TENANT_SCOPES)}.", field="scopes")
    if wish.subject is not None and not (1 <= len(wish.subject) <= MAX_SUBJECT_CHARS and storable(wish.subject)):
        raise InvalidInput(f"A subject is 1 to {MAX_SUBJECT_CHARS} characters.", field="subject", limit=MAX_SUBJECT_CHARS)
    check_bounds(wish.collections, wish.labels)


def check_bounds(collections: Sequence[str] | None, labels: Sequence[str] | None) -> None:
    """Of a key or a token. Raise InvalidInput."""
    for field, values in (("collections", collections), ("labels", labels)):
        if values is not None and len(values) > MAX_BOUNDS:
            raise InvalidInput(f"At most {MAX_BOUNDS} {field}.", field=field, limit=MAX_BOUNDS)
        if any(not 1 <= len(value) <= MAX_BOUND_CHARS for value in values or ()):
            raise InvalidInput(f"Each of `{field}` is 1 to {MAX_BOUND_CHARS} characters.", field=field, limit=MAX_BOUND_CHARS)
