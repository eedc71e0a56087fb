"""The tables of traces. They hold ids, places and figures, and the question where the plan allows; no text of a document."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned

_OF_SUBJECT, _OF_SESSION = sa.column("subject").is_not(None), sa.column("session_id").is_not(None)


class Trace(TenantOwned, table=True):
    """One question and how it was answered. It never changes."""

    __tablename__ = "traces"
    __table_args__ = (
        sa.Index("ix_traces_time", "tenant_id", "at", "id"),
        sa.Index("ix_traces_subject", "tenant_id", "subject", "at", sqlite_where=_OF_SUBJECT, postgresql_where=_OF_SUBJECT),
        sa.Index("ix_traces_session", "tenant_id", "session_id", "at", sqlite_where=_OF_SESSION, postgresql_where=_OF_SESSION),
    )

    id: str = Field(primary_key=True)
    tenant_id: str  # indexed with the time
    at: int = Field(sa_type=sa.BigInteger)  #: when it was answered
    kind: str  #: query, context or recall
    subject: str | None = None
    session_id: str | None = None
    bounds: str | None = None  #: digest of the collections and labels that the asker was confined to; None: to none
    contents: str  #: what of it was kept: full, ids or none
    body: bytes  #: JSON: see `rag.traces.left`
    space: str | None = None  #: in which the vectors are
    vectors: bytes | None = None  #: `rag.traces.left.vectors_of`; float16 where that loses nothing, else float32


class TraceErasure(TenantOwned, table=True):
    """Of a subject that was erased traces may still be under way: none that was left by then is written any more."""

    __tablename__ = "trace_erasures"

    tenant_id: str = Field(primary_key=True)
    who: str = Field(primary_key=True)  #: stands for the subject: `Asker.pseudonym`
    at: int = Field(sa_type=sa.BigInteger, index=True)
