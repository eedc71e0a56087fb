"""The operator's hand on a tenant's budgets: limits that are set for it, and overrides of them that expire."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session
from sqlmodel import select

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput
from tenants.events import emit
from tenants.ledger.bounds import KINDS, SPANS, limit_name
from tenants.limits.overrides import write_override
from tenants.limits.plans import MONTHLY, LimitsInForce, check_override
from tenants.registry import changeable
from tenants.tables import LimitOverride, Tenant

UNITS = ("tokens", "micro_usd")
SOFT = "soft_budgets"


class BudgetPolicy:
    def __init__(self, database: Database, clock: Clock, limits: LimitsInForce) -> None:
        self._database, self._clock, self._limits = database, clock, limits

    def change(
        self,
        tenant_id: str,
        kind: str,
        span: str,
        values: Mapping[str, int | None],
        *,
        soft: bool | None = None,
        until: int | None = None,
        reason: str = "",
    ) -> None:
        """`values` by unit, None for no limit. With `until` (Unix ms) they hold to then, and what was set before holds again.

        Raises InvalidInput, NotFound for no tenant, or Conflict for one that is being deleted.
        """
        now = self._clock()
        if kind not in KINDS or span not in SPANS:
            raise InvalidInput(f"A budget is of {' or '.join(KINDS)}, by {' or '.join(SPANS)}.", field="kind")
        if until is not None and (until <= now or soft is not None):
            raise InvalidInput("An override has an end that is to come, and changes no more than amounts.", field="until")
        with self._database.system_write() as session:
            tenant = changeable(session, tenant_id)
            old = self._limits.plans.limits_of(session, tenant_id, now)
            for unit, value in values.items():
                name = limit_name(kind, unit, span)
                wanted = check_override(name, value)
                if name == MONTHLY and until is None and wanted is not None:
                    self._set_monthly(session, tenant, wanted)
                else:
                    write_override(session, tenant.id, name, wanted, now=now, until=until, reason=reason)
                changed = {"limit": name, "old": getattr(old, name), "new": value, "until": until}
                emit(session, self._clock, tenant_id, "budget.changed", tenant_id, **changed)
            if soft is not None:
                mine = {limit_name(kind, unit, span) for unit in UNITS}
                names = {*old.soft_budgets} | mine if soft else {*old.soft_budgets} - mine
                write_override(session, tenant.id, SOFT, sorted(names), now=now, until=None, reason=reason)
            tenant.changed_at = now
            session.add(tenant)
        self._limits.forget(tenant_id)

    def _set_monthly(self, session: Session, tenant: Tenant, tokens: int) -> None:
        """Kept where `tenant update` changes it too: of two places, one would be passed over."""
        tenant.monthly_tokens = tokens
        row = session.get(LimitOverride, (tenant.id, MONTHLY), with_for_update=True)
        if row is not None and row.until is not None and row.until > self._clock():
            row.afterwards = None
            session.add(row)
        elif row is not None:
            session.delete(row)

    def overrides(self, tenant_id: str) -> dict[str, int]:
        """Until when each limit that is overridden is, by its name."""
        now = self._clock()
        with self._database.read(_Of(tenant_id)) as session:
            rows = session.scalars(select(LimitOverride)).all()
        return {row.name: row.until for row in rows if row.until is not None and row.until > now}


class _Of:
    def __init__(self, tenant_id: str) -> None:
        self.tenant_id = tenant_id
