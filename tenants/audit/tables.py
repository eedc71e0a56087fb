"""The tables of the audit record: entries, what was begun and not yet answered, checkpoints of the chains, and sums by hour."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from config.database import TenantOwned

_UNSEALED = sa.column("position").is_(None)


class AuditEntry(SQLModel, table=True):
    """One mutating, denied or retrieving request: who, what, on what, with which outcome. Ids only, never text.

    Appended without a place in its chain; the sealer gives it one, once, and nothing else of it ever changes.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        sa.Index("ix_audit_entries_time", "tenant_id", "at", "id"),
        sa.Index("ix_audit_entries_chain", "tenant_id", "position"),
        sa.Index("ix_audit_entries_unsealed", "tenant_id", "id", sqlite_where=_UNSEALED, postgresql_where=_UNSEALED),
    )

    id: str = Field(primary_key=True)
    tenant_id: str | None = None  #: None: of an operator
    at: int = Field(sa_type=sa.BigInteger)
    request_id: str
    principal_kind: str
    principal_id: str
    action: str
    target: str
    decision: str  #: allowed or denied
    status: int  #: of the answer; 0: none left, and the process may have died
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    position: int | None = Field(default=None, sa_type=sa.BigInteger)  #: in its chain, from 1; None: not sealed yet
    hash: bytes | None = None  #: over the hash before it and this entry


class AuditIntent(SQLModel, table=True):
    """A request that began to change something. Its entry takes its place; one that stays tells of a process that died."""

    __tablename__ = "audit_intents"

    id: str = Field(primary_key=True)
    tenant_id: str | None = None
    at: int = Field(sa_type=sa.BigInteger, index=True)
    request_id: str
    principal_kind: str
    principal_id: str
    action: str
    target: str


class AuditCheckpoint(SQLModel, table=True):
    """What the sealer signed: entries `first` to `last` of a chain lead from hash `before` to hash `head`.

    With `first` 0 it is the chain's cut: everything through `last` was deleted by age, and the chain goes on from `head`.
    """

    __tablename__ = "audit_checkpoints"
    __table_args__ = (sa.Index("ix_audit_checkpoints_last", "chain", "last"),)

    chain: str = Field(primary_key=True)  #: the tenant's id, or "operator"
    first: int = Field(primary_key=True, sa_type=sa.BigInteger)
    tenant_id: str | None = None
    last: int = Field(sa_type=sa.BigInteger)
    before: bytes
    head: bytes
    at: int = Field(sa_type=sa.BigInteger)
    key: bytes  #: Ed25519 public key, 32 bytes
    signature: bytes


class AuditHour(TenantOwned, table=True):
    """Sealed entries of a tenant in one hour, counted when they were sealed."""

    __tablename__ = "audit_hours"

    tenant_id: str = Field(primary_key=True)
    hour: int = Field(primary_key=True, sa_type=sa.BigInteger, index=True)  #: its beginning, Unix milliseconds
    requests: int = Field(default=0, sa_type=sa.BigInteger)
    queries: int = Field(default=0, sa_type=sa.BigInteger)
    denied: int = Field(default=0, sa_type=sa.BigInteger)
    failed: int = Field(default=0, sa_type=sa.BigInteger)  #: answered with 5xx, or not at all
