"""Creating and finding tenants: the operator's side, before any tenant is known."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Conflict, InvalidInput, NotFound
from config.ids import new_id
from tenants.context import Principal, PrincipalKind, TenantContext
from tenants.events import emit
from tenants.quotas import open_counts
from tenants.tables import Tenant

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class TenantRegistry:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def create(
        self, name: str, *, monthly_tokens: int | None, record: Callable[[Session, Tenant], None] | None = None
    ) -> Tenant:
        """`record` writes something of the new tenant in its transaction, last."""
        if not NAME.fullmatch(name):
            raise InvalidInput("A tenant's name is 1 to 63 of a-z, 0-9 and -.", field="name", limit=63)
        tenant = Tenant(
            id=new_id("ten"),
            name=name,
            cache_salt=secrets.token_bytes(32),
            monthly_tokens=monthly_tokens,
            created_at=self._clock(),
        )
        try:
            with self._database.system_write() as session:
                session.add(tenant)
                session.flush()
                open_counts(session, tenant.id)
                emit(session, self._clock, tenant.id, "tenant.created", tenant.id, monthly_tokens=monthly_tokens)
                if record is not None:
                    record(session, tenant)
        except IntegrityError as error:
            raise Conflict(f"A tenant named {name!r} exists.", field="name") from error
        return tenant

    def get(self, id_or_name: str) -> Tenant:
        with self._database.system_read() as session:
            wanted = sa.or_(col(Tenant.id) == id_or_name, col(Tenant.name) == id_or_name)
            tenant = session.scalars(select(Tenant).where(wanted)).first()
        if tenant is None:
            raise NotFound("There is no such tenant.")
        return tenant

    def list(self, *, after: str | None, limit: int) -> list[Tenant]:
        statement = select(Tenant).order_by(col(Tenant.id)).limit(limit)
        if after is not None:
            statement = statement.where(col(Tenant.id) > after)
        with self._database.system_read() as session:
            return [*session.scalars(statement)]

    def count(self) -> int:
        with self._database.system_read() as session:
            return session.scalar(select(sa.func.count()).select_from(Tenant)) or 0

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are tenants."""
        with self._database.system_read() as session:
            return {*session.scalars(select(col(Tenant.id)).where(col(Tenant.id).in_(ids)))}

    def set_monthly_tokens(self, tenant_id: str, tokens: int | None) -> Tenant:
        with self._database.system_write() as session:
            tenant = session.get(Tenant, tenant_id, with_for_update=True)
            if tenant is None:
                raise NotFound("There is no such tenant.")
            old, tenant.monthly_tokens = tenant.monthly_tokens, tokens
            if old != tokens:
                session.add(tenant)
                emit(session, self._clock, tenant_id, "tenant.updated", tenant_id, monthly_tokens=tokens)
                emit(session, self._clock, tenant_id, "budget.changed", tenant_id, old=old, new=tokens)
        return tenant

    def context_of_job(self, tenant_id: str, job_id: str) -> TenantContext:
        """The context in which a durable job acts: its tenant comes from the job's own record."""
        with self._database.system_read() as session:
            tenant = session.get(Tenant, tenant_id)
        if tenant is None:
            raise NotFound("There is no such tenant.")
        return TenantContext(tenant.id, tenant.cache_salt, Principal(PrincipalKind.JOB, job_id, frozenset()))
