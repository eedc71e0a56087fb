"""One spending from its reservation to its end: its states, and what its end does to the windows and to usage."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from tenants.counters import Account, Amounts, count_usage
from tenants.ledger import windows
from tenants.ledger.bounds import kind_of
from tenants.ledger.windows import Change
from tenants.tables import LedgerEntry

HELD, STARTED, SETTLED, UNSETTLED, RELEASED = "held", "started", "settled", "unsettled", "released"
OPEN, PAID = (HELD, STARTED), (SETTLED, UNSETTLED)
SWEEP_LIMIT = 500  # holds returned in one sweep


@dataclass(frozen=True, slots=True)
class Owner:
    tenant_id: str


def expired(session: Session, now: int) -> list[tuple[Owner, str]]:
    """Holds whose lease ran out, of all tenants."""
    statement = (
        select(col(LedgerEntry.tenant_id), col(LedgerEntry.id))
        .where(col(LedgerEntry.state).in_(OPEN), col(LedgerEntry.lease_until) < now)
        .limit(SWEEP_LIMIT)
    )
    return [(Owner(tenant_id), entry_id) for tenant_id, entry_id in session.execute(statement)]


def close(session: Session, entry: LedgerEntry, state: str, charged: int) -> None:
    """End an open entry: its reservation goes back, and `charged` of it is used."""
    cost = charged * entry.price
    change = Change(used=charged, held=-entry.tokens, cost=cost, held_cost=-entry.tokens * entry.price)
    windows.move(session, entry.tenant_id, kind_of(entry.operation), entry.day, change)
    if charged:
        account = Account(entry.operation, entry.key, entry.collection)
        count_usage(session, entry.tenant_id, entry.day, account, Amounts(charged=charged, cost=cost))
    entry.state, entry.tokens, entry.cost, entry.lease_until = state, charged, cost, None
    session.add(entry)


PARTS = sa.select(sa.func.sum(col(LedgerEntry.tokens))).where(col(LedgerEntry.part_of) == sa.bindparam("hold"))
