"""The tables of memories. A memory is its versions: none ever changes in what it says, and the one that nothing has replaced
is what is believed now. SQL is the truth and holds the vectors too: a subject has few enough to look through.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned

#: Of a fact with a key: what is believed now and has no end. There is one at most.
_IN_FORCE = (
    sa.column("replaced_at").is_(None) & sa.column("valid_to").is_(None) & sa.column("key").is_not(None)
)  # a deleted memory has no key any more


class MemoryVersion(TenantOwned, table=True):
    """One version of one memory: what was believed from `recorded_at` until `replaced_at`."""

    __tablename__ = "memory_versions"
    __table_args__ = (
        sa.Index("ix_memory_versions_tenant_id_memory_id", "tenant_id", "memory_id"),
        sa.Index("ix_memory_versions_tenant_id_subject_replaced_at", "tenant_id", "subject", "replaced_at"),
        sa.Index("ix_memory_versions_tenant_id_session_id", "tenant_id", "session_id"),
        sa.Index(
            "uq_memory_versions_in_force",
            *("tenant_id", "subject", "agent", "session_id", "key"),
            unique=True,
            sqlite_where=_IN_FORCE,
            postgresql_where=_IN_FORCE,
        ),
    )

    memory_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)  #: 1 is the first
    subject: str  #: of whom it is, as the application names its users
    agent: str = ""  #: whose knowledge it is, where agents keep theirs apart; "": everybody's
    session_id: str = ""  #: of a session that it goes with; "": of none
    key: str | None = None  #: what of the subject it tells, as "home_city": one value holds at a time
    text: str
    said: str  #: its words without what makes no difference: equal for the same fact
    tags: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)  #: the application's own; `metadata` on the wire
    valid_from: int = Field(sa_type=sa.BigInteger)  #: since when it is true
    valid_to: int | None = Field(default=None, sa_type=sa.BigInteger)  #: from when on it is not; None: it still is
    superseded_by: str | None = None  #: the memory that is true from then on
    conflicts_with: list[str] = Field(default_factory=list, sa_type=sa.JSON)  #: memories that may contradict it
    confirmations: int = 0  #: how often it was said again
    confirmed_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    #: When all of the memory is forgotten; the same in all of its versions.
    expires_at: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
    action: str  #: added, confirmed, updated, superseded or deleted
    reason: str | None = None
    changed_by: str  #: id of the principal
    created_at: int = Field(sa_type=sa.BigInteger)  #: of the first version
    recorded_at: int = Field(sa_type=sa.BigInteger)
    replaced_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    #: In all versions of a memory that was deleted, and with nothing in them any more of what they said.
    deleted: bool = False
    space: str | None = None  #: in which the vector lies
    vector: bytes | None = None  #: float16
    terms: bytes = b""  #: its words' features, and then as many weights: `rag.memories.ranking`


class MemorySource(TenantOwned, table=True):
    """Where a memory comes from, as of the version that added it: a turn of a session, or a document."""

    __tablename__ = "memory_sources"
    __table_args__ = (
        sa.ForeignKeyConstraint(["memory_id", "number"], ["memory_versions.memory_id", "memory_versions.number"]),
        sa.Index("ix_memory_sources_tenant_id_session_id", "tenant_id", "session_id"),
    )

    memory_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    place: int = Field(primary_key=True)
    session_id: str | None = None
    seq: int | None = None  #: of the turn
    document_id: str | None = None


class MemorySubject(TenantOwned, table=True):
    """Who writes memories of a subject holds this row, so that no two do at once."""

    __tablename__ = "memory_subjects"

    tenant_id: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    changed_at: int = Field(default=0, sa_type=sa.BigInteger)  #: times of changes never go back
