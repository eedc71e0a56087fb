"""The tables of work in progress: jobs as users see them, and the processes that do them. The durable queue keeps its own
tables beside these."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from config.database import TenantOwned
from config.profiles import PRIORITIES

#: Queues of jobs: what is fetched first waits in one of its own, so that slow sites hold up nobody's uploads.
DOCUMENTS, FETCHES = "documents", "fetches"

#: What must have become of the jobs that another runs after: success, or any end.
ALL_SUCCEEDED, ANY_END = "all_succeeded", "any_end"


class Job(TenantOwned, table=True):
    """States: queued → running → succeeded, failed or cancelled.

    Stages: waiting (for a worker, or for other jobs while `held`), fetching, reading, embedding, collecting, done.
    """

    __tablename__ = "jobs"
    __table_args__ = (sa.Index("ix_jobs_tenant_id_id", "tenant_id", "id"),)  # a page of 100,000 jobs: 0.6 ms instead of 25

    id: str = Field(primary_key=True)  #: also the durable workflow's id
    kind: str  #: ingest or delete
    collection_id: str
    document_id: str = Field(index=True)
    version_id: str | None = Field(default=None, index=True)
    state: str = "queued"
    stage: str = "waiting"
    #: Rises whenever a worker takes the job up. Whoever holds an earlier one has lost it and can change nothing any more.
    epoch: int = 0
    retry_of: str | None = None
    priority: int = PRIORITIES["normal"]  #: a smaller number is taken first
    queue: str = DOCUMENTS
    key: str = ""  #: on which its tokens are booked: of whoever brought the document
    outcome: str | None = None  #: of one that ends otherwise than with chunks of its own: linked or skipped
    after: list[str] = Field(default_factory=list, sa_type=sa.JSON)  #: jobs that were to end before it begins
    after_policy: str = ALL_SUCCEEDED
    held: bool = False  #: whether it still waits for one of them, and so is in no queue
    pages: int = 0
    chunks_total: int = 0
    chunks_done: int = 0
    tokens_total: int = 0  #: of all chunks, as the model counts them
    tokens_done: int = 0
    tokens_ahead: int = 0  #: of the batch under way, embedded but not yet kept: an estimate, for whoever looks
    tokens_charged: int = 0
    tokens_cached: int = 0
    error_code: str | None = None
    error_detail: str | None = None
    created_at: int = Field(sa_type=sa.BigInteger)
    updated_at: int = Field(sa_type=sa.BigInteger)
    embedding_at: int | None = Field(default=None, sa_type=sa.BigInteger)  #: when embedding began: what an ETA is reckoned from
    finished_at: int | None = Field(default=None, sa_type=sa.BigInteger)


class JobDependency(TenantOwned, table=True):
    """That a job was to run after another: where the other, when it ends, finds those that wait for it."""

    __tablename__ = "job_dependencies"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    needs_id: str = Field(primary_key=True, foreign_key="jobs.id", index=True)


class Erasure(TenantOwned, table=True):
    """What somebody asked to have erased and, once that is done, the receipt: counts, and nothing of what it was."""

    __tablename__ = "erasures"

    id: str = Field(primary_key=True)
    kind: str  #: session or subject
    session_id: str | None = None
    subject: str | None = None  #: of a session too; taken away when it is done
    who: str  #: stands for the subject afterwards: `TenantContext.pseudonym`
    state: str = Field(default="running", index=True)  #: or done
    before: dict[str, int] = Field(default_factory=dict, sa_type=sa.JSON)  #: rows by table, points and files
    after: dict[str, int] = Field(default_factory=dict, sa_type=sa.JSON)  #: the same when it was done
    requested_at: int = Field(sa_type=sa.BigInteger)
    finished_at: int | None = Field(default=None, sa_type=sa.BigInteger)


class Instance(SQLModel, table=True):
    """A running process. One that has not been seen for a while is dead, and its work is taken over."""

    __tablename__ = "instances"

    id: str = Field(primary_key=True)
    kind: str  #: api or worker
    executor: str | None = None  #: name under which a worker owns durable jobs
    started_at: int = Field(sa_type=sa.BigInteger)
    seen_at: int = Field(sa_type=sa.BigInteger)
