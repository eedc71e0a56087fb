"""A credential gives exactly its tenant, scopes and bounds; anything else is refused alike."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any

import jwt
import pytest

from config.database import Database
from config.errors import InvalidInput, Unauthenticated
from tenants.context import TENANT_SCOPES, PrincipalKind, Scope
from tenants.identity.authenticator import Identifier, Identity
from tenants.identity.keys import KeyRing, make_secret
from tenants.identity.tokens import ALGORITHM, AUDIENCE, MAX_LIFETIME_S, TokenSigner, Wish
from tests.unit.conftest import SetClock

SIGNING_KEY = secrets.token_bytes(32)
OPERATOR = "key_operator"


@dataclass
class World:
    keys: KeyRing
    tokens: TokenSigner
    identifier: Identifier
    clock: SetClock

    def key(self, tenant: str | None = "a", **options: Any) -> str:
        return self.keys.create(tenant, **{"name": "test", "scopes": [Scope.QUERY]} | options).secret

    def token(self, tenant: str = "a", lifetime_s: int = 60) -> str:
        """As an operator gets it."""
        return self.tokens.issue(tenant, key_id=OPERATOR, wish=Wish([Scope.QUERY], lifetime_s))[0]

    def refuses(self, credential: str) -> str:
        with pytest.raises(Unauthenticated) as refused:
            self.identifier.identify(credential)
        return refused.value.detail


@pytest.fixture
def world(database: Database, clock: SetClock) -> World:
    keys, tokens = KeyRing(database, clock), TokenSigner(SIGNING_KEY, clock)
    keys.ensure_operator(make_secret(OPERATOR))
    return World(keys, tokens, Identifier(database, keys, tokens, clock), clock)


def _tenant(identity: Identity) -> str | None:
    return identity.tenant.tenant_id if identity.tenant else None


def test_an_operator_key_has_no_tenant(world: World) -> None:
    identity = world.identifier.identify(world.key(None, scopes=[Scope.OPERATE]))
    assert identity.tenant is None
    assert (identity.principal.kind, identity.principal.scopes) == (PrincipalKind.OPERATOR, {Scope.OPERATE})


def test_a_key_gives_its_own_tenant_and_salt(world: World) -> None:
    for name in "ab":
        identity = world.identifier.identify(world.key(name, scopes=[Scope.QUERY, Scope.INGEST]))
        assert identity.tenant is not None
        assert (identity.tenant.tenant_id, identity.tenant.cache_salt) == (name, name.encode() * 32)
        assert identity.principal == identity.tenant.principal
        assert identity.principal.scopes == {Scope.QUERY, Scope.INGEST}


def test_a_keys_bounds_become_its_contexts(world: World) -> None:
    free = world.identifier.identify(world.key()).tenant
    bound = world.identifier.identify(world.key(collections=["one"], labels=["x", "y"])).tenant
    nothing = world.identifier.identify(world.key(collections=[], labels=[])).tenant
    assert free is not None
    assert bound is not None
    assert nothing is not None
    assert (free.collections, free.labels) == (None, None)
    assert (bound.collections, bound.labels) == ({"one"}, {"x", "y"})
    assert (nothing.collections, nothing.labels) == (frozenset(), frozenset())


def test_refusals_do_not_tell_why(world: World) -> None:
    known = world.keys.create("a", name="test", scopes=[Scope.QUERY])
    revoked = world.keys.create("a", name="test", scopes=[Scope.QUERY])
    world.keys.revoke(revoked.row.id)
    expired = world.token(lifetime_s=1)
    world.clock.now += 2000
    tried = [
        "",
        "x",
        "a.b.c",
        make_secret(known.row.id),
        make_secret("key_unknown"),
        revoked.secret,
        expired,
        world.token("gone"),
    ]
    assert len({world.refuses(credential) for credential in tried}) == 1


def test_a_token_acts_for_one_tenant_and_names_who_asked(world: World) -> None:
    token, claims = world.tokens.issue("b", key_id=OPERATOR, wish=Wish([Scope.INGEST], 60))
    identity = world.identifier.identify(token)
    assert _tenant(identity) == "b"
    assert identity.principal.kind == PrincipalKind.TOKEN
    assert identity.principal.scopes == {Scope.INGEST}
    assert claims.id in identity.principal.id
    assert OPERATOR in identity.principal.id
    assert identity.principal.key_id == OPERATOR


def test_a_token_ends_with_its_last_second(world: World) -> None:
    token = world.token(lifetime_s=60)
    world.clock.now += 59_999
    assert _tenant(world.identifier.identify(token)) == "a"
    world.clock.now += 1
    world.refuses(token)


def _payload(**changes: Any) -> dict[str, Any]:
    claims = {"aud": AUDIENCE, "jti": "tok_x", "ten": "a", "act": OPERATOR, "scope": "query", "exp": 4_000_000_000}
    return {name: value for name, value in (claims | changes).items() if value is not None}


def test_the_forgeries_below_would_be_genuine_without_their_change(world: World) -> None:
    assert _tenant(world.identifier.identify(jwt.encode(_payload(), SIGNING_KEY, ALGORITHM))) == "a"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": None},
        {"aud": "other"},
        {"exp": None},
        {"exp": "soon"},
        {"ten": None},
        {"ten": "unknown"},
        {"jti": None},
        {"act": None},
        {"act": "key_nobodys"},
        {"scope": None},
        {"scope": "query everything"},
    ],
)
def test_a_token_without_a_claim_or_with_a_strange_one_is_refused(world: World, changes: dict[str, Any]) -> None:
    world.refuses(jwt.encode(_payload(**changes), SIGNING_KEY, ALGORITHM))


def _part(data: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def test_forged_tokens_are_refused(world: World) -> None:
    head, body, signature = world.token("a").split(".")
    forged = [
        f"{head}.{_part(_payload(ten='b'))}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{_part({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        f"{_part({'alg': 'None'})}.{body}.{signature}",
        jwt.encode(_payload(), None, "none"),
        jwt.encode(_payload(), secrets.token_bytes(32), ALGORITHM),
        jwt.encode(_payload(), SIGNING_KEY + SIGNING_KEY, "HS512"),
    ]
    for token in forged:
        world.refuses(token)


@pytest.mark.parametrize("lifetime", [0, -1, MAX_LIFETIME_S + 1])
def test_no_token_lives_longer_than_the_limit(world: World, lifetime: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        world.token(lifetime_s=lifetime)
    assert refused.value.field == "lifetime_seconds"


@pytest.mark.parametrize("scopes", [[], [Scope.OPERATE], [*TENANT_SCOPES, Scope.OPERATE]])
def test_no_token_opens_administration(world: World, scopes: list[Scope]) -> None:
    with pytest.raises(InvalidInput) as refused:
        world.tokens.issue("a", key_id=OPERATOR, wish=Wish(scopes, 60))
    assert refused.value.field == "scopes"
