"""Alembic's entry: runs revisions on the connection that `api.schema` hands over."""

from typing import Any, Literal

from alembic import context
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

import ingestion.jobs.tables
import ingestion.stores.tables
import rag.context.tables
import rag.corpus
import rag.evaluation.tables
import rag.memories.tables
import rag.recall.tables
import rag.sessions.tables
import rag.traces.tables
import tenants.audit.tables
import tenants.tables
import tenants.webhooks.tables

#: Importing them fills the metadata.
TABLES = (
    *(ingestion.stores.tables, ingestion.jobs.tables, rag.context.tables, rag.corpus, rag.evaluation.tables),
    *(rag.memories.tables, rag.recall.tables, rag.sessions.tables, rag.traces.tables),
    *(tenants.audit.tables, tenants.tables, tenants.webhooks.tables),
)


def render(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """SQLModel's own string type would tie old revisions to its later versions."""
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """The job queue's tables stand in the same database and are its own."""
    return kind != "table" or name in SQLModel.metadata.tables


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    compare_type=True,
    render_item=render,
    include_name=is_ours,
)
with context.begin_transaction():
    context.run_migrations()
