"""The tables of what users say of answers: question sets, feedback, and what collections were tuned to."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned


class QuestionSet(TenantOwned, table=True):
    """Questions of one collection with the external ids of the documents that answer them. It never changes."""

    __tablename__ = "question_sets"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "collection_id", "name"),)

    id: str = Field(primary_key=True)
    collection_id: str = Field(foreign_key="collections.id", index=True)
    name: str
    count: int
    questions: list[dict[str, Any]] = Field(sa_type=sa.JSON)  #: each with `text` and `relevant`: relevance by external id
    created_at: int = Field(sa_type=sa.BigInteger)


class Feedback(TenantOwned, table=True):
    """What somebody said of a document, or of a passage of it, as an answer to a question. It goes with the document."""

    __tablename__ = "feedback"
    __table_args__ = (sa.Index("ix_feedback_tenant_id_id", "tenant_id", "id"), sa.UniqueConstraint("tenant_id", "request"))

    id: str = Field(primary_key=True)
    collection_id: str = Field(foreign_key="collections.id", index=True)
    document_id: str = Field(foreign_key="documents.id", index=True)
    passage_id: str | None = None
    request: str  #: by which it was given: the same for its repetitions
    query: str  #: as it was given
    useful: bool | None = None
    rating: int | None = None  #: 1 to 5
    comment: str | None = None
    subject: str | None = None  #: who says so, as the application names its users
    created_at: int = Field(sa_type=sa.BigInteger)


class TuningVersion(TenantOwned, table=True):
    """What a collection was tuned to. Which one is active stands in the collection's own row."""

    __tablename__ = "tunings"

    collection_id: str = Field(primary_key=True, foreign_key="collections.id")
    version: int = Field(primary_key=True)  #: 1 is the first
    replaces: int  #: the version that was active before, and is again after a rollback; 0: none
    parameters: dict[str, Any] = Field(sa_type=sa.JSON)
    figures: dict[str, Any] = Field(sa_type=sa.JSON)  #: what was measured on questions that it was not fitted to
    applied_at: int = Field(sa_type=sa.BigInteger)
    rolled_back_at: int | None = Field(default=None, sa_type=sa.BigInteger)
