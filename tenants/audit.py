"""The append-only record of who did what. Entries hold ids, never text; nothing here updates or deletes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.ids import new_id
from tenants.context import Principal
from tenants.tables import AuditEntry

_INSERT = sa.insert(AuditEntry)


@dataclass(frozen=True, slots=True)
class Event:
    request_id: str
    principal: Principal
    tenant_id: str | None
    action: str  #: method and route template, as "POST /v1/query"
    target: str  #: the path, whose ids are no content
    status: int
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Owner:
    tenant_id: str


class AuditLog:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def append(self, event: Event) -> None:
        confined = self._database.write(_Owner(event.tenant_id)) if event.tenant_id else self._database.system_write()
        with confined as session:
            self.add(session, event)

    def add(self, session: Session, event: Event) -> None:
        """In the transaction of what the entry tells of."""
        entry = {
            "id": new_id("aud"),
            "tenant_id": event.tenant_id,
            "at": self._clock(),
            "request_id": event.request_id,
            "principal_kind": event.principal.kind,
            "principal_id": event.principal.id,
            "action": event.action,
            "target": event.target,
            "decision": "denied" if event.status in (401, 402, 403, 429) else "allowed",
            "status": event.status,
            "detail": event.detail,
        }
        session.execute(_INSERT, entry, execution_options={"dml_strategy": "raw"})  # half the time of adding an entity

    def of(self, tenant_id: str | None, *, limit: int = 100) -> list[AuditEntry]:
        """A tenant's newest entries first; None: those of operators."""
        statement = select(AuditEntry).where(col(AuditEntry.tenant_id) == tenant_id)
        with self._database.system_read() as session:
            return [*session.scalars(statement.order_by(col(AuditEntry.id).desc()).limit(limit))]
