"""Principals and the tenant context: the only proof of whose data may be touched."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Scope(enum.StrEnum):
    QUERY = "query"  #: search, and read documents and jobs
    INGEST = "ingest"  #: add and delete documents and collections
    MANAGE = "manage"  #: the tenant's own keys and usage
    OPERATE = "operate"  #: `/v1/admin`: operator keys only, never given to a tenant's key


TENANT_SCOPES = (Scope.QUERY, Scope.INGEST, Scope.MANAGE)


class PrincipalKind(enum.StrEnum):
    OPERATOR = "operator"
    KEY = "key"
    TOKEN = "token"  # noqa: S105
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Principal:
    kind: PrincipalKind
    id: str
    scopes: frozenset[Scope]

    @property
    def key(self) -> str:
        """The key that what it does is booked on: its own, or the one that its token was issued by; empty for jobs."""
        if self.kind is PrincipalKind.TOKEN:
            return self.id.rpartition(" ")[2]
        return "" if self.kind is PrincipalKind.JOB else self.id


@dataclass(frozen=True, slots=True)
class TenantContext:
    """Made by `tenants.identity` from a key or token, or by a durable job from its own record; nowhere else.

    `collections` and `labels` bound what the principal sees; None is everything of the tenant.
    """

    tenant_id: str
    cache_salt: bytes
    principal: Principal
    collections: frozenset[str] | None = None
    labels: frozenset[str] | None = None
