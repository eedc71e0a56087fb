"""Every kind of caller, and what an operation answers it. Extend the list when there are more kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from api.middleware import ASKING
from tenants.context import TENANT_SCOPES, Scope
from tests.isolation.declarations import (
    BY_COLLECTION,
    BY_LABELS,
    BY_SUBJECT,
    USER_BY_COLLECTION,
    USER_BY_LABELS,
    Operation,
    kind_of,
)
from tests.isolation.world import World

Expected = Callable[[Operation], int]
MALFORMED = ("", "Bearer", "Bearer ", "Basic eDp5", "Bearer x", "Bearer a.b.c", "Bearer carrel_", "Bearer \xe9", "bearer\tx")


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    credential: Callable[[World], str | None]  #: of the Authorization header
    expected: Expected  #: for a good call with the first tenant's own values
    tenant: int | None = 0  #: index of the tenant whose data it may see
    like: str = ""  #: the kind whose exceptions hold for it too

    def excepted(self, operation: Operation) -> int | None:
        """The status that the declaration names, where the general rule does not hold."""
        return operation.but.get(self.name, operation.but.get(self.like))


def nobody(operation: Operation) -> int:
    return operation.success if operation.scope == "none" else 401


def with_scopes(*held: str) -> Expected:
    return lambda operation: operation.success if operation.scope in ("none", *held) else 403


def _all_scopes(operation: Operation, missing: bool) -> int:
    return 404 if missing and operation.scope in TENANT_SCOPES else with_scopes(*TENANT_SCOPES)(operation)


def stranger(operation: Operation) -> int:
    """Of a valid key that has all scopes, of another tenant."""
    kinds = [kind for kind in map(kind_of, operation.takes.values()) if not kind.optional]
    return _all_scopes(operation, any(kind.foreign == 404 for kind in kinds))


def bounded(name: str) -> Expected:
    def expected(operation: Operation) -> int:
        missing = any(name in kind_of(kind).bounded for kind in operation.takes.values())
        return operation.but.get(name, _all_scopes(operation, missing))

    return expected


def _nobody(name: str, credential: Callable[[World], str | None]) -> Kind:
    return Kind(name, credential, nobody, tenant=None)


def _of(name: str, expected: Expected, like: str = "") -> Kind:
    return Kind(name, lambda world: world.members[0].credentials[name], _excepted(name, _excepted(like, expected)), like=like)


def _excepted(name: str, expected: Expected) -> Expected:
    return lambda operation: operation.but.get(name, expected(operation))


def reading(operation: Operation) -> int:
    """Of a key with all scopes that is read-only."""
    reads = operation.name.startswith("GET ") or operation.name.partition(" ")[2] in ASKING or "dry" in operation.variant
    return with_scopes(*TENANT_SCOPES)(operation) if reads or operation.scope == "none" else 403


KINDS: tuple[Kind, ...] = (
    _nobody("none", lambda _: None),
    *(
        _nobody(f"malformed {header!r}", lambda _, header=header: header)  # type: ignore[misc]
        for header in (
            "",
            "Bearer",
            "Bearer ",
            "Basic eDp5",
            "Bearer x",
            "Bearer a.b.c",
            "Bearer carrel_",
            "Bearer \xe9",
            "bearer\tx",
        )
    ),
    _nobody("unknown key", lambda world: world.unknown_key()),
    _nobody("known key, wrong secret", lambda world: world.wrong_secret(world.members[0])),
    _nobody("revoked key", lambda world: world.members[0].credentials["revoked key"]),
    _nobody("expired key", lambda world: world.members[0].credentials["expired key"]),
    _nobody("key from elsewhere", lambda world: world.members[0].credentials["key from elsewhere"]),
    _nobody("expired token", lambda world: world.token(world.members[0].tenant_id, hours_ago=2)),
    _nobody("token of another signer", lambda world: world.token(world.members[0].tenant_id, genuine=False)),
    _nobody("token of no tenant", lambda world: world.token("ten_" + "0" * 26)),
    _nobody("user of no tenant", lambda world: world.user(world.members[0], tenant="ten_" + "0" * 26)),
    _nobody("user whose time is over", lambda world: world.user(world.members[0], exp=1)),
    _nobody("user of another service", lambda world: world.user(world.members[0], aud="other")),
    *(_of(f"{scope} key", with_scopes(scope)) for scope in TENANT_SCOPES),
    *(_of(f"{scope} token", with_scopes(scope)) for scope in TENANT_SCOPES),
    _of("full key", with_scopes(*TENANT_SCOPES)),
    _of("full token", with_scopes(*TENANT_SCOPES)),
    Kind("operator", lambda world: world.operator, with_scopes(Scope.OPERATE)),
    Kind("key of another tenant", lambda world: world.members[1].credentials["full key"], stranger, tenant=1),
    Kind(
        "token of another tenant",
        lambda world: world.members[1].credentials["full token"],
        _excepted("token of another tenant", stranger),
        tenant=1,
    ),
    _of("subject token", with_scopes(*TENANT_SCOPES)),
    _of("user", with_scopes(*TENANT_SCOPES), like="subject token"),
    _of(BY_SUBJECT, bounded(BY_SUBJECT)),
    _of("user of another subject", bounded(BY_SUBJECT), like=BY_SUBJECT),
    _of("querying user", with_scopes(Scope.QUERY), like="query token"),
    Kind(
        "user of another tenant",
        lambda world: world.user(world.members[1], sub=world.members[0].own["subject"]),
        _excepted("token of another tenant", stranger),
        tenant=1,
        like="token of another tenant",
    ),
    _of(USER_BY_COLLECTION, bounded(BY_COLLECTION), like=BY_COLLECTION),
    _of(USER_BY_LABELS, bounded(BY_LABELS), like=BY_LABELS),
    _of("read-only key", reading),
    _of(BY_COLLECTION, bounded(BY_COLLECTION)),
    _of(BY_LABELS, bounded(BY_LABELS)),
)
