"""What a tenant has of what its plan counts: one row a tenant, changed by one conditional statement, last in the transaction
that makes or ends the thing. So the counts are exact whatever dies, and no two requests pass a limit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.commits import at_commit
from config.errors import NotInPlan, QuotaExceeded, Unauthenticated
from tenants.counters import insert_missing
from tenants.limits.plans import Limits, LimitsInForce
from tenants.tables import QuotaUse, Tenant

NO_LIMIT = 2**62
_NO_SYNC = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class Counts:
    documents: int = 0
    chunks: int = 0
    bytes: int = 0
    collections: int = 0
    sessions: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in COUNTED))

    @property
    def grows(self) -> bool:
        return any(getattr(self, name) > 0 for name in COUNTED)


COUNTED = tuple(Counts.__dataclass_fields__)
NOTHING = Counts()


class Quotas:
    """Without limits everything is counted, and nothing refused."""

    def __init__(self, limits: LimitsInForce | None = None) -> None:
        self._limits = limits

    def of(self, tenant_id: str, session: Session | None = None) -> Limits:
        """`session`: of a transaction that is open, so that it needs no second connection."""
        return Limits("") if self._limits is None else self._limits.of(tenant_id, session)

    def add(self, session: Session, tenant_id: str, counts: Counts) -> None:
        """Reserve, or give back, when the session commits. Then it may raise QuotaExceeded."""
        change = at_commit(session, _Change)
        change.tenant_id, change.counts = tenant_id, change.counts + counts
        if counts.grows:  # who only gives back cannot be refused
            change.quotas = self

    def require_room(self, session: Session, tenant_id: str, more: Counts) -> None:
        """Refuse what could not be kept, before anything is done for it. Reserves nothing, and asks SQL only under limits."""
        limits = self.of(tenant_id, session)
        if all(getattr(more, name) <= 0 or getattr(limits, name) is None for name in COUNTED):
            return
        if refusal := _refusal(used_of(session, tenant_id), more, limits):
            raise refusal

    def require_rules(
        self, tenant_id: str, *, profile: str | None = None, keep_versions_days: int | None = None, dedicated: bool = False
    ) -> None:
        """Raise NotInPlan for how a collection must not be."""
        limits = self.of(tenant_id)
        if profile is not None and limits.profiles is not None and profile not in limits.profiles:
            allowed = ", ".join(limits.profiles)
            raise NotInPlan(f"The plan allows the profiles {allowed}.", field="profile", limit=allowed)
        most = limits.retention_days
        if keep_versions_days is not None and most is not None and keep_versions_days > most:
            detail = f"The plan allows {most} days of former versions."
            raise NotInPlan(detail, field="keep_versions_days", limit=most)
        if dedicated and not limits.dedicated:
            raise NotInPlan("The plan allows no collection a shard of its own.", field="placement", limit="shared")

    def made_collection(self, session: Session, tenant_id: str) -> None:
        self.add(session, tenant_id, Counts(collections=1))

    def removed_collection(self, session: Session, tenant_id: str) -> None:
        self.add(session, tenant_id, Counts(collections=-1))

    def count_sessions(self, session: Session, tenant_id: str, more: int) -> None:
        self.add(session, tenant_id, Counts(sessions=more))


#: Counts and refuses nothing: where no plans are.
UNLIMITED = Quotas()


class _Change:
    """Of the session's one transaction."""

    def __init__(self, session: Session) -> None:
        self._session, self.tenant_id, self.counts, self.quotas = session, "", NOTHING, UNLIMITED

    def __call__(self) -> None:
        if self.counts == NOTHING:
            return
        limits = self.quotas.of(self.tenant_id, self._session) if self.counts.grows else Limits("")
        change = _given(self.tenant_id, self.counts, limits)
        if _changed(self._session, change):
            return
        _make(self._session, self.tenant_id)
        used = used_of(
            self._session, self.tenant_id, held=True
        )  # what is told must be what refuses: others give back meanwhile
        if not _changed(self._session, change):
            raise _refusal(used, self.counts, limits) or _gone()


def close(session: Session, tenant_id: str) -> None:
    """From this transaction's commit on nothing is added; it waits for those that are adding."""
    insert_missing(session, QuotaUse, _empty(tenant_id))
    session.execute(_CLOSE, {"tenant": tenant_id}, execution_options=_NO_SYNC)


def open_counts(session: Session, tenant_id: str) -> None:
    """In the transaction that makes the tenant."""
    insert_missing(session, QuotaUse, _empty(tenant_id))


def used_of(session: Session, tenant_id: str, *, held: bool = False) -> Counts:
    """`held` until the transaction ends."""
    row = session.execute(_USED_HELD if held else _USED, {"tenant": tenant_id}).first()
    return NOTHING if row is None else Counts(*row)


def hold(session: Session, tenant_id: str) -> None:
    """Until the transaction ends nobody else holds the tenant's row: of what no plan counts, no two pass a bound together, and
    nothing is added to a tenant that is being deleted."""
    _make(session, tenant_id)
    if session.scalar(_CLOSED, {"tenant": tenant_id}) is not False:
        raise _gone()


def set_counts(session: Session, tenant_id: str, counts: Counts) -> None:
    """What a recount found, by whoever holds the row."""
    given = {f"is_{name}": getattr(counts, name) for name in COUNTED}
    session.execute(_SET, {"tenant": tenant_id, **given}, execution_options=_NO_SYNC)


def _refusal(used: Counts, more: Counts, limits: Limits) -> QuotaExceeded | None:
    for name in COUNTED:
        limit, has, needs = getattr(limits, name), getattr(used, name), getattr(more, name)
        if limit is not None and needs > 0 and has + needs > limit:
            detail = f"The plan allows {limit} {name}: there are {has}, and this needs {needs} more."
            return QuotaExceeded(detail, field=name, limit=limit)
    return None


def _gone() -> Unauthenticated:
    return Unauthenticated("Send a valid key as `Authorization: Bearer <key>`.")


def _given(tenant_id: str, counts: Counts, limits: Limits) -> dict[str, Any]:
    given: dict[str, Any] = {"tenant": tenant_id, "grows": counts.grows}
    for name in COUNTED:
        more, limit = getattr(counts, name), getattr(limits, name)
        given |= {f"more_{name}": more, f"limit_{name}": NO_LIMIT if limit is None or more <= 0 else limit}
    return given


def _changed(session: Session, given: Mapping[str, Any]) -> bool:
    result = session.execute(_CHANGE, given, execution_options=_NO_SYNC)
    return bool(result.rowcount)  # type: ignore[attr-defined]


def _make(session: Session, tenant_id: str) -> None:
    """The row of a tenant from before there were any; of one that is gone there is none again."""
    if session.scalar(_EXISTS, {"tenant": tenant_id}):
        insert_missing(session, QuotaUse, _empty(tenant_id))


def _empty(tenant_id: str) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "closed": False, **dict.fromkeys(COUNTED, 0)}


def _big(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


def _column(name: str) -> Any:
    return col(getattr(QuotaUse, name))


#: Made once: building them costs more than SQLite takes for them.
_MINE = col(QuotaUse.tenant_id) == sa.bindparam("tenant")
_CHANGE = (
    sa.update(QuotaUse)
    .where(
        _MINE,
        sa.or_(col(QuotaUse.closed).is_(False), sa.bindparam("grows", type_=sa.Boolean()).is_(sa.false())),
        *(_column(name) + _big(f"more_{name}") <= _big(f"limit_{name}") for name in COUNTED),
    )
    .values({name: _column(name) + _big(f"more_{name}") for name in COUNTED})
)
_SET = sa.update(QuotaUse).where(_MINE).values({name: _big(f"is_{name}") for name in COUNTED})
_CLOSE = sa.update(QuotaUse).where(_MINE).values(closed=True)
_USED = select(*(_column(name) for name in COUNTED)).where(_MINE)
_CLOSED = select(col(QuotaUse.closed)).where(_MINE).with_for_update()
_USED_HELD = _USED.with_for_update()
_EXISTS = select(col(Tenant.id)).where(col(Tenant.id) == sa.bindparam("tenant"), col(Tenant.deleted_at).is_(None))
