"""Keys: shown once, stored as a hash, of one tenant, and refused from the moment they are revoked."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from config.database import Database
from config.errors import InvalidInput, NotFound, Unauthenticated
from tenants.context import Scope
from tenants.identity.authenticator import Identifier
from tenants.identity.keys import MAX_NAME_CHARS, KeyRing, NewKey, key_id_of, make_secret
from tenants.identity.tokens import MAX_BOUND_CHARS, MAX_BOUNDS, TokenSigner
from tests.unit.conftest import SetClock


@pytest.fixture
def keys(database: Database, clock: SetClock) -> KeyRing:
    return KeyRing(database, clock)


def _create(keys: KeyRing, tenant: str | None = "a", **options: Any) -> NewKey:
    return keys.create(tenant, **{"name": "test", "scopes": [Scope.QUERY]} | options)


def _found(keys: KeyRing, secret: str) -> tuple[str, str | None, frozenset[str]] | None:
    """Whose key this is: its id, tenant and scopes."""
    identifier = Identifier(keys._database, keys, TokenSigner(b"k" * 32, keys._clock), keys._clock)
    try:
        identity = identifier.identify(secret)
    except Unauthenticated:
        return None
    principal, tenant = identity.principal, identity.tenant
    return principal.id, None if tenant is None else tenant.tenant_id, principal.scopes


def test_a_key_is_found_by_its_secret_alone(keys: KeyRing) -> None:
    new = _create(keys)
    _create(keys, "b")
    assert _found(keys, new.secret) == (new.row.id, "a", {"query"})
    assert new.secret.startswith(f"carrel_{new.row.id}_")


def test_the_database_holds_a_hash_and_no_secret(keys: KeyRing, database: Database) -> None:
    secret = _create(keys).secret
    with database.system_read() as session:
        dump = repr(session.connection().exec_driver_sql("SELECT * FROM api_keys").all())
    assert repr(hashlib.sha256(secret.encode()).digest()) in dump
    assert secret.rpartition("_")[2] not in dump


def test_secrets_are_long_and_never_repeat() -> None:
    secrets = {make_secret("key_x") for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(secret) >= len("carrel_key_x_") + 43 for secret in secrets)


def test_another_keys_id_with_a_wrong_secret_finds_nothing(keys: KeyRing) -> None:
    one, other = _create(keys), _create(keys, "b")
    assert _found(keys, make_secret(one.row.id)) is None
    assert _found(keys, one.secret.replace(one.row.id, other.row.id)) is None
    assert _found(keys, one.secret + "x") is None
    assert _found(keys, one.secret[:-1]) is None


@pytest.mark.parametrize(
    "secret", ["", "carrel_", "carrel__", "carrel_key_", "carrel_key__", "x", "carrel_key_\0_x", "ключ_key_a_b"]
)
def test_what_is_no_key_finds_nothing(keys: KeyRing, secret: str) -> None:
    assert _found(keys, secret) is None


def test_a_secret_with_underscores_still_names_its_key() -> None:
    assert key_id_of("carrel_key_01abc_x_y__z_") == "key_01abc"


def test_a_revoked_key_finds_nothing_and_keeps_its_first_date(keys: KeyRing, clock: SetClock) -> None:
    new = _create(keys)
    first = keys.revoke(new.row.id).revoked_at
    clock.now += 1000
    assert _found(keys, new.secret) is None
    assert keys.revoke(new.row.id).revoked_at == first


def test_a_tenant_cannot_revoke_anothers_key(keys: KeyRing) -> None:
    new = _create(keys, "b")
    with pytest.raises(NotFound):
        keys.revoke(new.row.id, tenant_id="a")
    with pytest.raises(NotFound):
        keys.revoke("key_unknown")
    assert _found(keys, new.secret) is not None
    keys.revoke(new.row.id, tenant_id="b")
    assert _found(keys, new.secret) is None


def test_keys_are_listed_by_tenant_and_paged(keys: KeyRing) -> None:
    own = sorted(_create(keys).row.id for _ in range(5))
    _create(keys, "b")
    _create(keys, None, scopes=[Scope.OPERATE])
    first = keys.list("a", after=None, limit=3)
    rest = keys.list("a", after=first[-1].id, limit=3)
    assert [row.id for row in (*first, *rest)] == own


def test_the_operator_key_of_the_file_is_made_known_once(keys: KeyRing) -> None:
    secret = make_secret("key_operator")
    keys.ensure_operator(secret)
    keys.ensure_operator(secret)
    assert _found(keys, secret) == ("key_operator", None, {"operate"})


@pytest.mark.parametrize(
    ("tenant", "options", "field"),
    [
        ("a", {"scopes": []}, "scopes"),
        ("a", {"scopes": [Scope.QUERY, Scope.OPERATE]}, "scopes"),
        (None, {"scopes": [Scope.QUERY]}, "scopes"),
        (None, {"scopes": [Scope.OPERATE, Scope.INGEST]}, "scopes"),
        ("a", {"name": ""}, "name"),
        ("a", {"name": "n" * (MAX_NAME_CHARS + 1)}, "name"),
        ("a", {"labels": ["x"] * (MAX_BOUNDS + 1)}, "labels"),
        ("a", {"collections": ["x"] * (MAX_BOUNDS + 1)}, "collections"),
        ("a", {"collections": [""]}, "collections"),
        ("a", {"collections": ["x" * (MAX_BOUND_CHARS + 1)]}, "collections"),
        ("a", {"labels": ["x", "x" * (MAX_BOUND_CHARS + 1)]}, "labels"),
    ],
)
def test_keys_outside_the_rules_are_refused_and_not_kept(keys: KeyRing, tenant: str | None, options: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        _create(keys, tenant, **options)
    assert refused.value.field == field
    assert keys.list(tenant, after=None, limit=10) == []
