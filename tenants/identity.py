"""A bearer credential becomes a principal, and for tenants a context. The one place where requests get either."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import col, select

from config.database import Database
from config.errors import Unauthenticated
from tenants.context import Principal, PrincipalKind, Scope, TenantContext
from tenants.keys import KeyRing
from tenants.standing import ACTIVE, Standing, standing_of
from tenants.tables import ApiKey, Tenant
from tenants.tokens import TokenSigner

_TENANT = select(col(Tenant.cache_salt), col(Tenant.suspended_at), col(Tenant.suspended_reads)).where(
    col(Tenant.id) == sa.bindparam("id"), col(Tenant.deleted_at).is_(None)
)


@dataclass(frozen=True, slots=True)
class Identity:
    """`tenant` is None for operators, whose scope opens `/v1/admin` and nothing else."""

    principal: Principal
    tenant: TenantContext | None
    standing: Standing = ACTIVE


@dataclass(frozen=True, slots=True)
class _Claimed:
    """The tenant that a genuine key or token names."""

    tenant_id: str


class Identifier:
    def __init__(self, database: Database, keys: KeyRing, tokens: TokenSigner) -> None:
        self._database, self._keys, self._tokens = database, keys, tokens

    def identify(self, credential: str) -> Identity:
        """Raise Unauthenticated alike for what is missing, wrong, revoked or expired."""
        if credential.startswith("carrel_") and (key := self._keys.find(credential)):
            return self._of_key(key)
        if credential.count(".") == 2 and (claims := self._tokens.verify(credential)):
            principal = Principal(PrincipalKind.TOKEN, f"{claims.id} of {claims.issued_by}", claims.scopes)
            return Identity(principal, *self._context(claims.tenant_id, principal))
        raise Unauthenticated("Send a valid key as `Authorization: Bearer <key>`.")

    def _of_key(self, key: ApiKey) -> Identity:
        scopes = frozenset(Scope(scope) for scope in key.scopes)
        if key.tenant_id is None:
            return Identity(Principal(PrincipalKind.OPERATOR, key.id, scopes), None)
        principal = Principal(PrincipalKind.KEY, key.id, scopes)
        return Identity(principal, *self._context(key.tenant_id, principal, key))

    def _context(self, tenant_id: str, principal: Principal, key: ApiKey | None = None) -> tuple[TenantContext, Standing]:
        with self._database.read(_Claimed(tenant_id)) as session:
            found = session.execute(_TENANT, {"id": tenant_id}).first()
        if found is None:
            raise Unauthenticated("Send a valid key as `Authorization: Bearer <key>`.")
        context = TenantContext(
            tenant_id,
            found.cache_salt,
            principal,
            collections=None if key is None or key.collections is None else frozenset(key.collections),
            labels=None if key is None or key.labels is None else frozenset(key.labels),
        )
        return context, standing_of(found.suspended_at, found.suspended_reads)
