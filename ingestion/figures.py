"""Counts what each tenant has, now and then and one tenant after another, so that statistics need not go through all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel, col, select

from config.clock import Clock
from config.database import Database, HasTenant
from ingestion.tables import TenantFigures
from rag.corpus import Chunk, Document, DocumentVersion
from tenants.registry import TenantRegistry

PAGE = 100


@dataclass(frozen=True, slots=True)
class _Owner:
    tenant_id: str


class Figures:
    def __init__(self, database: Database, clock: Clock, registry: TenantRegistry) -> None:
        self._database, self._clock, self._registry = database, clock, registry

    def count_all(self) -> int:
        """Count every tenant's; return how many tenants."""
        counted, after = 0, None
        while page := self._registry.list(after=after, limit=PAGE):
            for tenant in page:
                self.count(_Owner(tenant.id))
            counted, after = counted + len(page), page[-1].id
        return counted

    def count(self, scope: HasTenant) -> None:
        with self._database.read(scope) as session:
            live = col(Document.live_version_id).is_not(None)
            documents = session.scalar(_count(Document).where(live)) or 0
            chunks = session.scalar(_count(Chunk)) or 0
            size = select(sa.func.coalesce(sa.func.sum(col(DocumentVersion.bytes)), 0))
            stored = session.scalar(size.where(col(DocumentVersion.state) == "live")) or 0
        row = TenantFigures(
            tenant_id=scope.tenant_id, documents=documents, chunks=chunks, bytes=stored, counted_at=self._clock()
        )
        with self._database.write(scope) as session:
            session.merge(row)


def _count(table: type[SQLModel]) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(table)
