"""Deletions of tenants: asked for, looked up, and what their receipts say. What is done in one is `ingestion`'s to know."""

from __future__ import annotations

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import NotFound
from config.ids import new_id
from tenants.limits.quotas import close
from tenants.tables import Tenant, TenantDeletion


class Deletions:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def request(self, tenant_id: str) -> TenantDeletion:
        """From now on nothing of the tenant is let in, and it cannot be taken back. Asked again, the same deletion."""
        with self._database.system_write() as session:
            if session.get(Tenant, tenant_id) is None:
                raise NotFound("There is no such tenant.")
            close(session, tenant_id)  # its row first, as whoever adds something; of two that ask, the second waits here
            tenant = session.get_one(Tenant, tenant_id, with_for_update=True, populate_existing=True)
            if (known := _of(session, tenant_id)) is not None:
                return known
            now = self._clock()
            tenant.deleted_at = tenant.changed_at = now
            deletion = TenantDeletion(id=new_id("del"), tenant_id=tenant_id, name=tenant.name, requested_at=now)
            session.add_all([tenant, deletion])
        return deletion

    def get(self, deletion_id: str) -> TenantDeletion:
        with self._database.system_read() as session:
            row = session.get(TenantDeletion, deletion_id)
        if row is None:
            raise NotFound("There is no such deletion.")
        return row

    def of(self, tenant_id: str) -> TenantDeletion | None:
        with self._database.system_read() as session:
            return _of(session, tenant_id)

    def list(self, *, after: str | None, limit: int) -> list[TenantDeletion]:
        statement = select(TenantDeletion).order_by(col(TenantDeletion.id)).limit(limit)
        if after is not None:
            statement = statement.where(col(TenantDeletion.id) > after)
        with self._database.system_read() as session:
            return [*session.scalars(statement)]


def _of(session: Session, tenant_id: str) -> TenantDeletion | None:
    return session.scalars(select(TenantDeletion).where(col(TenantDeletion.tenant_id) == tenant_id)).first()
