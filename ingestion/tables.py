"""The table of jobs: what a user sees of work in progress. The durable queue keeps its own tables beside it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned


class Job(TenantOwned, table=True):
    """States: queued → running → succeeded, failed or cancelled. Stages: waiting, reading, embedding, collecting, done."""

    __tablename__ = "jobs"

    id: str = Field(primary_key=True)  #: also the durable workflow's id
    kind: str  #: ingest or delete
    collection_id: str
    document_id: str = Field(index=True)
    version_id: str | None = Field(default=None, index=True)
    state: str = "queued"
    stage: str = "waiting"
    chunks_total: int = 0
    chunks_done: int = 0
    tokens_charged: int = 0
    tokens_cached: int = 0
    error_code: str | None = None
    error_detail: str | None = None
    created_at: int = Field(sa_type=sa.BigInteger)
    updated_at: int = Field(sa_type=sa.BigInteger)
