"""Which limits hold for a tenant at a moment: its plan's, with what the operator overrode for it, until that expires.

A change holds within a second: whoever keeps limits keeps them no longer (`FRESH_MS`), and never past an override's expiry.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput, NotFound
from config.plans import Plan, TraceContents, wrong_in
from tenants.tables import LimitOverride, Tenant

MONTHLY = "embedding_tokens_month"  #: the limit that a tenant's monthly tokens are
FRESH_MS = 1000
MAX_KEPT = 10_000  # tenants whose limits a process keeps; 1 kB each


@dataclass(frozen=True, slots=True)
class Limits:
    """As `config.plans.Plan` says of each; None is no limit. `plan`: the name of the plan they come from."""

    plan: str
    documents: int | None = None
    chunks: int | None = None
    bytes: int | None = None
    collections: int | None = None
    sessions: int | None = None
    document_bytes: int | None = None
    requests_per_second: float | None = None
    burst: int | None = None
    concurrent_requests: int | None = None
    embedding_tokens_day: int | None = None
    embedding_tokens_month: int | None = None
    embedding_micro_usd_day: int | None = None
    embedding_micro_usd_month: int | None = None
    llm_tokens_day: int | None = None
    llm_tokens_month: int | None = None
    llm_micro_usd_day: int | None = None
    llm_micro_usd_month: int | None = None
    soft_budgets: tuple[str, ...] = ()
    profiles: tuple[str, ...] | None = None
    dedicated: bool = True
    retention_days: int | None = None
    trace_sample: float = 1.0
    trace_contents: TraceContents = "full"
    trace_retention_days: int = 30


LIMITS = tuple(field.name for field in fields(Limits) if field.name != "plan")


@dataclass(frozen=True, slots=True)
class InForce:
    limits: Limits
    until: int | None  #: when the first override that counts expires


class Plans:
    """The plans of this service. `default`: of tenants that have no plan of their own."""

    def __init__(self, plans: Mapping[str, Plan], default: str) -> None:
        self.known, self.default = plans, default

    def require(self, name: str) -> None:
        if name not in self.known:
            raise InvalidInput(f"There is no plan {name!r}, only {', '.join(self.known)}.", field="plan")

    def limits_of(self, session: Session, tenant_id: str, now: int) -> Limits:
        """What holds at `now` (Unix ms), read in the caller's transaction. Raises NotFound for no tenant."""
        return self.in_force(session, tenant_id, now).limits

    def in_force(self, session: Session, tenant_id: str, now: int) -> InForce:
        found = session.execute(_TENANT, {"id": tenant_id}).first()
        if found is None:
            raise NotFound("There is no such tenant.")
        rows = session.execute(_OVERRIDES, {"of": tenant_id}).all()
        overrides = _values(rows, now)
        if found.monthly_tokens is not None:  # set before there were plans, and by whoever thinks of nothing but the month
            overrides = {MONTHLY: found.monthly_tokens} | overrides
        ends = [row.until for row in rows if row.until is not None and row.until > now]
        return InForce(self.resolve(found.plan, overrides), min(ends, default=None))

    def resolve(self, plan: str | None, overrides: Mapping[str, Any]) -> Limits:
        """A plan that the file no longer has is the default one: a tenant must not become unlimited, nor shut out, by an
        edit. Overrides of limits that this version does not know do not count."""
        name = plan if plan is not None and plan in self.known else self.default
        values = self.known[name].model_dump() | {key: value for key, value in overrides.items() if key in LIMITS}
        values["profiles"] = None if values["profiles"] is None else tuple(values["profiles"])
        values["soft_budgets"] = tuple(values["soft_budgets"])
        return Limits(plan=name, **values)


def _values(rows: Sequence[Any], now: int) -> dict[str, Any]:
    """What each override says at that moment; one that expired without a value for afterwards says nothing."""
    at_work = ((row.name, row.value if row.until is None or row.until > now else row.afterwards) for row in rows)
    return {name: json.loads(value) for name, value in at_work if value is not None}


def check_override(name: str, value: Any) -> Any:
    """The value as a plan would have it, or InvalidInput."""
    require_limit(name)
    try:
        return Plan.model_validate({name: value}).model_dump(mode="json")[name]
    except ValidationError as error:
        raise InvalidInput(wrong_in(error), field="value") from None


def require_limit(name: str) -> None:
    if name not in LIMITS:
        raise InvalidInput(f"There is no limit {name!r}, only {', '.join(LIMITS)}.", field="limit")


class LimitsInForce:
    """Limits by tenant, kept in this process for `fresh_ms` at most; `forget` is for whoever learns of a change sooner."""

    def __init__(self, database: Database, clock: Clock, plans: Plans, *, fresh_ms: int = FRESH_MS) -> None:
        self.plans, self._database, self._clock, self.fresh_ms = plans, database, clock, fresh_ms
        self._kept: dict[str, tuple[int, Limits]] = {}  #: until when
        self._forgotten, self._lock = 0, threading.Lock()

    def of(self, tenant_id: str, session: Session | None = None) -> Limits:
        """Raise NotFound for no tenant. `session`: one that is open already, so that none is opened beside it."""
        if (known := self.kept(tenant_id)) is not None:
            return known
        now, before = self._clock(), self._forgotten
        with nullcontext(session) if session else self._database.read(_Of(tenant_id)) as asked:
            found = self.plans.in_force(asked, tenant_id, now)
        until = now + self.fresh_ms
        with self._lock:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            if before == self._forgotten:  # else they may be from before a change that was told of meanwhile
                self._kept[tenant_id] = (until if found.until is None else min(until, found.until), found.limits)
        return found.limits

    def kept(self, tenant_id: str) -> Limits | None:
        """From memory alone."""
        now, kept = self._clock(), self._kept.get(tenant_id)
        # a clock that went back must not keep it longer
        return kept[1] if kept is not None and now < kept[0] <= now + self.fresh_ms else None

    def forget(self, tenant_id: str | None) -> None:
        """None: of every tenant."""
        with self._lock:
            self._forgotten += 1
            if tenant_id is None:
                self._kept.clear()
            else:
                self._kept.pop(tenant_id, None)


@dataclass(frozen=True, slots=True)
class _Of:
    tenant_id: str


_TENANT = select(col(Tenant.plan), col(Tenant.monthly_tokens)).where(col(Tenant.id) == sa.bindparam("id"))
_O = LimitOverride
_OVERRIDES = select(col(_O.name), col(_O.value), col(_O.until), col(_O.afterwards)).where(
    col(_O.tenant_id) == sa.bindparam("of")
)
