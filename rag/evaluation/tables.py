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
