"""JWTs of the operator's own identity provider: what one says of its user, if all of it holds. Missing claims never widen.

What a token says before its signature is verified chooses the key that verifies it, among the provider's own for the
algorithms that the operator named, and nothing else. A claim of another kind than it must be refuses the token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from config.clock import Clock
from config.errors import NotFound, storable
from tenants.context import TENANT_SCOPES, Principal, PrincipalKind, Scope
from tenants.identity.oidc_keys import SigningKeys
from tenants.identity.tokens import MAX_BOUND_CHARS, MAX_BOUNDS, MAX_SUBJECT_CHARS
from tenants.registry import TenantRegistry

MAX_CHARS = 16_384  #: of a token
LEEWAY_S = 30  #: that the provider's clock and this one may differ
SCOPE_PREFIX = "carrel:"  #: of scopes that mean this service, among those of others
_OPTIONS: Any = {
    "require": ["iss", "aud", "exp", "iat"],
    # The injected clock decides about times, below.
    **{f"verify_{name}": False for name in ("exp", "iat", "nbf")},
}


@dataclass(frozen=True, slots=True)
class OidcRules:
    """Whose tokens are taken, and which claims say what. None of a claim's name: no token says it.

    `scopes`, `labels` and `collections` are for tokens that do not say; of the last two None is everything."""

    issuer: str
    audience: str
    tenant_claim: str
    subject_claim: str
    scopes_claim: str | None
    labels_claim: str | None
    collections_claim: str | None
    scopes: frozenset[Scope]
    labels: frozenset[str] | None
    collections: frozenset[str] | None
    max_age_s: int


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the provider vouches for. `tenant`: an id or a name, as the token says it."""

    principal: Principal
    tenant: str
    subject: str
    labels: frozenset[str] | None
    collections: frozenset[str] | None


class _Unfit(Exception):
    """A claim is not what it must be."""


class OidcUsers:
    def __init__(self, rules: OidcRules, keys: SigningKeys, registry: TenantRegistry, clock: Clock) -> None:
        self._rules, self._keys, self._registry, self._clock = rules, keys, registry, clock

    def verify(self, token: str, *, ask: bool) -> User | None:
        """`ask`: the provider for its keys, if need be. Raise Unavailable if it has to be asked and does not answer."""
        if len(token) > MAX_CHARS:
            return None
        try:
            header = jwt.get_unverified_header(token)
            key = None if "crit" in header else self._keys.find(header.get("alg"), header.get("kid"), ask=ask)
            if key is None:
                return None
            # It verifies by the one algorithm that it was found for, which is among those that the operator named.
            accepted, rules = [key.algorithm_name], self._rules
            data = jwt.decode(token, key, accepted, audience=rules.audience, issuer=rules.issuer, options=_OPTIONS)
            self._check_times(data)
            return self._user(data)
        except (jwt.InvalidTokenError, _Unfit):
            return None

    def tenant_id(self, named: str) -> str | None:
        """Of the tenant with this id or name."""
        try:
            return self._registry.get(named).id
        except NotFound:
            return None

    def _check_times(self, data: Mapping[str, object]) -> None:
        now = self._clock() / 1000
        issued, begins = _moment(data["iat"]), _moment(data.get("nbf", 0))
        alive = now < _moment(data["exp"]) + LEEWAY_S and now - issued < self._rules.max_age_s + LEEWAY_S
        if not alive or max(issued, begins) > now + LEEWAY_S:
            raise _Unfit

    def _user(self, data: Mapping[str, object]) -> User:
        rules = self._rules
        subject = _text(data.get(rules.subject_claim), MAX_SUBJECT_CHARS)
        user_id = user_id_of(rules.issuer, subject)
        return User(
            Principal(PrincipalKind.USER, user_id, _scopes(data, rules), user_id),
            _text(data.get(rules.tenant_claim), MAX_BOUND_CHARS),
            subject,
            _listed(data, rules.labels_claim, rules.labels),
            _listed(data, rules.collections_claim, rules.collections),
        )


def user_id_of(issuer: str, subject: str) -> str:
    """What a user is called in the audit record, in usage and by limits: names and addresses of people do not get there."""
    return f"usr_{hashlib.sha256(f'{issuer} {subject}'.encode()).hexdigest()[:32]}"


def _scopes(data: Mapping[str, object], rules: OidcRules) -> frozenset[Scope]:
    if rules.scopes_claim is None or rules.scopes_claim not in data:
        return rules.scopes
    said = data[rules.scopes_claim]
    names = said.split() if isinstance(said, str) else said
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Unfit
    return frozenset(scope for scope in TENANT_SCOPES if f"{SCOPE_PREFIX}{scope}" in names)


def _listed(data: Mapping[str, object], claim: str | None, default: frozenset[str] | None) -> frozenset[str] | None:
    if claim is None or claim not in data:
        return default
    said = data[claim]
    if not isinstance(said, list) or len(said) > MAX_BOUNDS:
        raise _Unfit
    return frozenset(_text(one, MAX_BOUND_CHARS) for one in said)


def _text(value: object, most: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most or not storable(value):
        raise _Unfit
    return value


def _moment(value: object) -> float:
    """Unix seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:  # NaN is not between
        raise _Unfit
    return float(value)
