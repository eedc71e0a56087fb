"""What the operator sees of all tenants together, from sums that are kept: no row of a document or a request is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col

from config.clock import Clock, day
from config.database import Database
from tenants.audit.tables import AuditHour
from tenants.tables import QuotaUse, Tenant, UsageDay

Measure = Literal["requests", "queries", "denied", "failed", "tokens"]
HOUR_MS = 3_600_000
_REQUESTS = ("requests", "queries", "denied", "failed")
_HAD = ("documents", "chunks", "bytes")


@dataclass(frozen=True, slots=True)
class Sums:
    requests: int = 0
    queries: int = 0
    denied: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    tenants: int
    documents: int
    chunks: int
    bytes: int
    hours: int
    recent: Sums  #: of the last `hours`


@dataclass(frozen=True, slots=True)
class Noisy:
    tenant_id: str
    name: str
    sums: Sums


class StatisticsReader:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def of_all(self, hours: int) -> Statistics:
        had: sa.Select[Any] = sa.select(*_summed(QuotaUse, _HAD))
        requests: sa.Select[Any] = sa.select(*_summed(AuditHour, _REQUESTS)).where(self._hours(hours))
        used: sa.Select[Any] = sa.select(_tokens()).select_from(_USED).where(self._days(hours))
        with self._database.system_read() as session:
            tenants = session.scalar(sa.select(sa.func.count()).select_from(Tenant)) or 0
            documents, chunks, size = session.execute(had).one()
            recent, tokens = session.execute(requests).one(), session.execute(used).one()
        return Statistics(tenants, int(documents), int(chunks), int(size), hours, _sums(recent, tokens))

    def noisiest(self, by: Measure, hours: int, limit: int) -> list[Noisy]:
        """Tenants with the most of the measure in the last hours, most first; none that has nothing of it."""
        requests: sa.Select[Any] = (
            sa.select(col(AuditHour.tenant_id)).where(self._hours(hours)).group_by(col(AuditHour.tenant_id))
        )
        used: sa.Select[Any] = sa.select(col(Tenant.id)).select_from(_USED).where(self._days(hours)).group_by(col(Tenant.id))
        total = _tokens() if by == "tokens" else sa.func.sum(col(getattr(AuditHour, by)))
        ranked = (used if by == "tokens" else requests).having(total > 0).order_by(total.desc()).limit(limit)
        with self._database.system_read() as session:
            ids: list[str] = [*session.scalars(ranked)]
            names = _by_first(session, sa.select(Tenant.id, Tenant.name).where(col(Tenant.id).in_(ids)))  # type: ignore[call-overload]
            of_hours = requests.add_columns(*_summed(AuditHour, _REQUESTS)).where(col(AuditHour.tenant_id).in_(ids))
            sums = _by_first(session, of_hours)
            tokens = _by_first(session, used.add_columns(_tokens()).where(col(Tenant.id).in_(ids)))
        return [Noisy(name, names[name][0] if name in names else name, _sums(sums.get(name), tokens.get(name))) for name in ids]

    def _hours(self, hours: int) -> sa.ColumnElement[bool]:
        now = self._clock()
        return col(AuditHour.hour) > now - now % HOUR_MS - hours * HOUR_MS

    def _days(self, hours: int) -> sa.ColumnElement[bool]:
        """Tokens are kept by day: of every day that the hours touch."""
        return col(UsageDay.day) >= day(self._clock() - hours * HOUR_MS)


#: By tenant first, so that the key of the days serves each: old days are not gone through.
_USED = sa.join(Tenant, UsageDay, col(UsageDay.tenant_id) == col(Tenant.id))


def _tokens() -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(col(UsageDay.charged)), 0)


def _summed(table: type[SQLModel], names: Sequence[str]) -> list[Any]:
    return [sa.func.coalesce(sa.func.sum(col(getattr(table, name))), 0) for name in names]


def _sums(requests: Sequence[Any] | None, tokens: Sequence[Any] | None) -> Sums:
    """Of the rows as they were read; PostgreSQL's sums are decimals."""
    return Sums(*map(int, requests or [0] * len(_REQUESTS)), *map(int, tokens or [0]))


def _by_first(session: Session, statement: sa.Select[Any]) -> dict[str, Sequence[Any]]:
    """Rows by their first column, without it."""
    return {row[0]: row[1:] for row in session.execute(statement)}
