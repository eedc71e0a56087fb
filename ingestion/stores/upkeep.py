"""Finishes what requests began with files and stores and did not end, and ends what has expired."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import col, select

from config.errors import CarrelError
from ingestion.stores.files import give_up
from ingestion.stores.parts import StoreParts
from ingestion.stores.settling import Settling, ended
from ingestion.stores.tables import REMOVING, WAITING, StoredFile, StoreFile, VectorStore
from tenants.context import TenantContext

log = logging.getLogger(__name__)

QUIET_MS = 10_000  #: longer than a request takes that brings them itself
TENANTS, EXPIRED = 100, 100  # in one call


class StoreUpkeep:
    """`context_of_job`: of a tenant by its id, as jobs get theirs."""

    def __init__(self, parts: StoreParts, settling: Settling, context_of_job: Callable[[str, str], TenantContext]) -> None:
        self._parts, self._settling, self._context_of_job = parts, settling, context_of_job
        self._after = ""  #: the tenant that the next ones come after

    def run_once(self) -> None:
        """For each tenant that has something to be done; one that fails does not keep the others waiting."""
        for tenant_id in self._tenants():
            try:
                context = self._context_of_job(tenant_id, "stores")
                self._expire_files(context)
                self._settling.settle(context, quiet_ms=QUIET_MS)
                self._settling.purge_files(context)
            except CarrelError as error:
                log.info("stores are seen to later", extra={"tenant": tenant_id, "code": error.code})

    def _tenants(self) -> list[str]:
        """In turns: those for whom nothing can be done now must not stand before the others for ever."""
        now = self._parts.clock()
        open_rows: Sequence[tuple[Any, sa.ColumnElement[bool]]] = (
            (
                col(StoreFile.tenant_id),
                sa.and_(col(StoreFile.state).in_((WAITING, REMOVING)), col(StoreFile.changed_at) < now - QUIET_MS),
            ),
            (col(StoredFile.tenant_id), sa.or_(col(StoredFile.deleted_at).is_not(None), col(StoredFile.expires_at) <= now)),
            (col(VectorStore.tenant_id), ended(now)),
        )
        found = set[str]()
        with self._parts.database.system_read() as session:
            for tenant, is_open in open_rows:
                page = sa.select(tenant).where(is_open, tenant > self._after).distinct().order_by(tenant).limit(TENANTS)
                found.update(session.scalars(page))
        following = sorted(found)[:TENANTS]
        self._after = following[-1] if len(following) == TENANTS else ""
        return following

    def _expire_files(self, context: TenantContext) -> None:
        now = self._parts.clock()
        over = select(StoredFile).where(col(StoredFile.deleted_at).is_(None), col(StoredFile.expires_at) <= now).limit(EXPIRED)
        with self._parts.database.write(context) as session:
            for file in session.scalars(over.with_for_update()):
                give_up(session, file, now)
