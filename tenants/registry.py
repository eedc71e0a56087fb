"""Creating, changing and finding tenants: the operator's side, before any tenant is known."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Conflict, InvalidInput, NotFound, storable
from config.ids import new_id
from tenants.context import Principal, PrincipalKind, TenantContext
from tenants.events import emit
from tenants.limits.plans import MONTHLY
from tenants.limits.quotas import open_counts
from tenants.tables import LimitOverride, Tenant

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MAX_DETAILS, MAX_DETAIL_CHARS = 16, 500  # of a tenant's metadata
DETAIL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: What `update` changes, and the name that requests give it.
CHANGES = {"monthly_tokens": "monthly_tokens", "plan": "plan", "metadata": "details"}


class TenantRegistry:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def create(
        self,
        name: str,
        *,
        monthly_tokens: int | None,
        plan: str | None = None,
        metadata: Mapping[str, str] | None = None,
        record: Callable[[Session, Tenant], None] | None = None,
    ) -> Tenant:
        """`record` writes something of the new tenant in its transaction, last. Whether there is such a plan, others know."""
        if not NAME.fullmatch(name):
            raise InvalidInput("A tenant's name is 1 to 63 of a-z, 0-9 and -.", field="name", limit=63)
        now = self._clock()
        tenant = Tenant(
            id=new_id("ten"),
            name=name,
            cache_salt=secrets.token_bytes(32),
            monthly_tokens=monthly_tokens,
            plan=plan,
            details=check_metadata(metadata or {}),
            changed_at=now,
            created_at=now,
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

    def update(self, tenant_id: str, changes: Mapping[str, Any]) -> Tenant:
        """Of CHANGES, those that are given; None takes a limit or a plan away. Raise NotFound, Conflict, InvalidInput."""
        given = {CHANGES[name]: value for name, value in changes.items()}
        if "details" in given:
            given["details"] = check_metadata(given["details"] or {})
        with self._database.system_write() as session:
            tenant = changeable(session, tenant_id)
            old = {name: getattr(tenant, name) for name in given}
            if old != given:
                if given.get("monthly_tokens", tenant.monthly_tokens) != tenant.monthly_tokens:
                    _require_effect(session, tenant_id, given["monthly_tokens"])
                tenant.sqlmodel_update({**given, "changed_at": self._clock()})
                session.add(tenant)
                told = {name: getattr(tenant, name) for name in ("monthly_tokens", "plan")}
                emit(session, self._clock, tenant_id, "tenant.updated", tenant_id, **told)
                if "monthly_tokens" in given and given["monthly_tokens"] != old["monthly_tokens"]:
                    changed = {"old": old["monthly_tokens"], "new": tenant.monthly_tokens}
                    emit(session, self._clock, tenant_id, "budget.changed", tenant_id, **changed)
        return tenant

    def suspend(self, tenant_id: str, *, reads: bool) -> Tenant:
        """Refused within a second, by all processes; with `reads` it may still ask and read. Jobs that it has go on."""
        return self._set_standing(tenant_id, "suspended", reads)

    def resume(self, tenant_id: str) -> Tenant:
        return self._set_standing(tenant_id, "resumed", False)

    def _set_standing(self, tenant_id: str, verb: str, reads: bool) -> Tenant:
        with self._database.system_write() as session:
            tenant, now, suspend = changeable(session, tenant_id), self._clock(), verb == "suspended"
            if ((tenant.suspended_at is not None), tenant.suspended_reads) != (suspend, reads):
                tenant.suspended_at = (tenant.suspended_at or now) if suspend else None
                tenant.suspended_reads, tenant.changed_at = reads, now
                session.add(tenant)
                emit(session, self._clock, tenant_id, f"tenant.{verb}", tenant_id, **({"reads": reads} if suspend else {}))
        return tenant

    def context_of_job(self, tenant_id: str, job_id: str) -> TenantContext:
        """The context in which a durable job acts: its tenant comes from the job's own record."""
        with self._database.system_read() as session:
            tenant = session.get(Tenant, tenant_id)
        if tenant is None:
            raise NotFound("There is no such tenant.")
        return TenantContext(tenant.id, tenant.cache_salt, Principal(PrincipalKind.JOB, job_id, frozenset()))


def changeable(session: Session, tenant_id: str) -> Tenant:
    """The tenant, held until the transaction ends; raise Conflict for one that is being deleted."""
    tenant = session.get(Tenant, tenant_id, with_for_update=True)
    if tenant is None:
        raise NotFound("There is no such tenant.")
    if tenant.deleted_at is not None:
        raise Conflict("The tenant is being deleted.", field="tenant")
    return tenant


def _require_effect(session: Session, tenant_id: str, monthly_tokens: int | None) -> None:
    """Raise Conflict if an override without an end says otherwise: it stands over the tenant's monthly tokens."""
    row = session.get(LimitOverride, (tenant_id, MONTHLY))
    said = None if row is None else row.value if row.until is None else row.afterwards
    if said is not None and json.loads(said) != monthly_tokens:
        detail = f"An override of `{MONTHLY}` without an end says {said} and would stand over this: change or remove that."
        raise Conflict(detail, field="monthly_tokens")


def check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    if len(metadata) > MAX_DETAILS:
        raise InvalidInput(f"A tenant has at most {MAX_DETAILS} metadata keys.", field="metadata", limit=MAX_DETAILS)
    for key, value in metadata.items():
        if not DETAIL_NAME.fullmatch(key):
            raise InvalidInput("A metadata key is 1 to 64 of letters, digits, `.`, `_` and `-`.", field="metadata", limit=64)
        if len(value) > MAX_DETAIL_CHARS or not storable(value):
            detail = f"A metadata value is up to {MAX_DETAIL_CHARS} characters."
            raise InvalidInput(detail, field="metadata", limit=MAX_DETAIL_CHARS)
    return dict(metadata)
