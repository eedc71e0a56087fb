"""Principals and the tenant context: the only proof of whose data may be touched."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from config.errors import Forbidden


class Scope(enum.StrEnum):
    QUERY = "query"  #: search, and read documents, jobs and sessions
    CONVERSE = "converse"  #: write sessions, their turns and memories
    INGEST = "ingest"  #: add and delete documents and collections
    MANAGE = "manage"  #: the tenant's own keys and usage
    OPERATE = "operate"  #: `/v1/admin`: operator keys only, never given to a tenant's key


TENANT_SCOPES = (Scope.QUERY, Scope.CONVERSE, Scope.INGEST, Scope.MANAGE)


class PrincipalKind(enum.StrEnum):
    OPERATOR = "operator"
    KEY = "key"
    TOKEN = "token"  # noqa: S105
    USER = "user"  #: of the operator's identity provider
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Principal:
    kind: PrincipalKind
    id: str
    scopes: frozenset[Scope]
    key_id: str = ""  #: the key that all of this goes back to: of a token the one that asked for it, of a user its own id
    read_only: bool = False  #: whatever its scopes, it changes nothing


@dataclass(frozen=True, slots=True)
class TenantContext:
    """Made by `tenants.identity` from a key, a token or a user's JWT, or by a durable job from its own record; nowhere else.

    `collections` and `labels` bound what the principal sees; None is everything of the tenant. `subject` is the end user
    for whom a token was made: what belongs to a subject is reached by that one alone. None acts for nobody in particular.
    """

    tenant_id: str
    cache_salt: bytes
    principal: Principal
    collections: frozenset[str] | None = None
    labels: frozenset[str] | None = None
    subject: str | None = None

    def speaking_for(self, named: str | None) -> str | None:
        """The subject of what this principal says or asks for. Raise Forbidden for another than its own."""
        if self.subject is not None and named not in (None, self.subject):
            raise Forbidden("The token speaks for its own subject only.")
        return self.subject or named
