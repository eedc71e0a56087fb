"""A tenant's limits as the operator sees and changes them: what holds, where it comes from, and until when."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput
from tenants.events import emit
from tenants.limits.plans import LIMITS, MONTHLY, LimitsInForce, check_override, require_limit
from tenants.limits.quotas import COUNTED, used_of
from tenants.registry import changeable
from tenants.tables import LimitOverride, Tenant

MAX_REASON_CHARS = 500
_NO_SYNC = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class LimitShown:
    name: str
    value: Any  #: what holds; None is no limit
    source: str  #: plan, monthly_tokens or override
    of_plan: Any
    used: int | None = None  #: of what is counted
    until: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LimitsShown:
    plan: str
    limits: list[LimitShown]


class Overrides:
    def __init__(self, database: Database, clock: Clock, limits: LimitsInForce) -> None:
        self._database, self._clock, self._limits = database, clock, limits

    def show(self, tenant: Tenant) -> LimitsShown:
        """As they are this moment, kept nowhere."""
        now, plans = self._clock(), self._limits.plans
        with self._database.system_read() as session:
            force = plans.limits_of(session, tenant.id, now)
            rows = session.scalars(select(LimitOverride).where(col(LimitOverride.tenant_id) == tenant.id)).all()
            used = used_of(session, tenant.id)
        overrides = {row.name: row for row in rows if row.until is None or row.until > now or row.afterwards is not None}
        of_plan = plans.resolve(force.plan, {})

        def shown(name: str) -> LimitShown:
            row = overrides.get(name)
            monthly = name == MONTHLY and tenant.monthly_tokens is not None
            source = "override" if row is not None else "monthly_tokens" if monthly else "plan"
            until, reason = (None, None) if row is None else (row.until, row.reason)
            until = None if until is not None and until <= now else until
            count = getattr(used, name) if name in COUNTED else None
            return LimitShown(name, getattr(force, name), source, getattr(of_plan, name), count, until, reason)

        return LimitsShown(force.plan, [shown(name) for name in LIMITS])

    def put(self, tenant_id: str, name: str, value: Any, *, until: int | None, reason: str) -> None:
        """Raise NotFound, Conflict, or InvalidInput for what no plan could say."""
        value = check_override(name, value)
        if until is not None and until <= self._clock():
            raise InvalidInput("The override would have expired already.", field="expires_at")
        if len(reason) > MAX_REASON_CHARS:
            raise InvalidInput(f"A reason has up to {MAX_REASON_CHARS} characters.", field="reason", limit=MAX_REASON_CHARS)
        with self._database.system_write() as session:
            self._changed(session, tenant_id, name, value=value, until=until)
            write_override(session, tenant_id, name, value, now=self._clock(), until=until, reason=reason)
        self._limits.forget(tenant_id)

    def remove(self, tenant_id: str, name: str) -> None:
        """The plan's limit holds again; where it does already, nothing changes."""
        require_limit(name)
        owned = (col(LimitOverride.tenant_id) == tenant_id, col(LimitOverride.name) == name)
        with self._database.system_write() as session:
            if session.scalar(select(col(LimitOverride.name)).where(*owned)) is not None:
                self._changed(session, tenant_id, name, removed=True)
                session.execute(sa.delete(LimitOverride).where(*owned), execution_options=_NO_SYNC)
        self._limits.forget(tenant_id)

    def _changed(self, session: Session, tenant_id: str, name: str, **told: object) -> None:
        tenant = changeable(session, tenant_id)
        tenant.changed_at = self._clock()
        session.add(tenant)
        emit(session, self._clock, tenant_id, "tenant.limit_changed", tenant_id, limit=name, **told)


def write_override(
    session: Session, tenant_id: str, name: str, value: Any, *, now: int, until: int | None, reason: str
) -> None:
    """With `until` (Unix ms) the value holds to then, and after it what was set for good; without, it is set for good."""
    said, row = json.dumps(value), session.get(LimitOverride, (tenant_id, name), with_for_update=True)
    if row is not None and row.until is not None and row.until <= now:  # what it was is over; what follows it holds
        row.until, row.value, row.afterwards = None, row.afterwards or "", None
    if until is not None:
        row = row or LimitOverride(tenant_id=tenant_id, name=name, value="", created_at=now)
        row.afterwards = row.value or None if row.until is None else row.afterwards
        row.value, row.until, row.reason = said, until, reason
    elif row is not None and row.until is not None:  # under an override
        row.afterwards = said
    else:
        row = row or LimitOverride(tenant_id=tenant_id, name=name, value=said, created_at=now)
        row.value, row.reason = said, reason
    session.add(row)
