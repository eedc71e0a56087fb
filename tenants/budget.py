"""The ledger: tokens are reserved before they are spent, so a budget is never over by one.

    hold ──start──► started ──settle──► settled          A debit is settled at once: its amount is known beforehand.
     │                 └─ lease ran out ─► unsettled     Charged: the call had begun, and its worker is gone.
     └─ release, or lease ran out ─► released            Returned: nothing was called.

Every transition is one short transaction of conditional statements; the window's amounts change with the entry. An entry
keeps the price at which it was made: its cost is its tokens at that price, whatever the price is by then.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock, day, month
from config.database import Database, HasTenant, once_more
from config.errors import BudgetExhausted, LeaseLost, Unavailable
from tenants.counters import Amounts, count_usage, insert_missing, limit_of, move, reserve, spend
from tenants.events import emit_once
from tenants.tables import BudgetWindow, LedgerEntry

HELD, STARTED, SETTLED, UNSETTLED, RELEASED = "held", "started", "settled", "unsettled", "released"
SWEEP_LIMIT = 500  # holds returned in one transaction


@dataclass(frozen=True, slots=True)
class _Owner:
    tenant_id: str


class Ledger:
    """`price`: picodollars a token, of what its meters charge."""

    def __init__(self, database: Database, clock: Clock, *, lease_s: int, price: int = 0) -> None:
        self.database, self.clock, self.lease_ms, self.price = database, clock, lease_s * 1000, price

    def at(self, price: int) -> Ledger:
        """The same ledger, at another price from now on."""
        other = copy.copy(self)
        other.price = price
        return other

    def for_tenant(self, scope: HasTenant, operation: str, *, epoch: int = 0) -> TenantMeter:
        """A meter that books on this tenant, under `operation` ("ingest", "query") in its usage.

        `epoch`: of the lease of a job. Holds that an owner of a later epoch has made cannot be started or settled with it.
        """
        return TenantMeter(self, scope, operation, epoch)

    def sweep(self) -> int:
        """Settle every hold whose lease ran out; return how many. Never undoes what its owner did meanwhile."""
        expired = (
            select(col(LedgerEntry.tenant_id), col(LedgerEntry.id))
            .where(col(LedgerEntry.state).in_((HELD, STARTED)), col(LedgerEntry.lease_until) < self.clock())
            .limit(SWEEP_LIMIT)
        )
        with self.database.system_read() as session:
            found = [(tenant_id, entry_id) for tenant_id, entry_id in session.execute(expired)]
        return sum(self._expire(tenant_id, entry_id) for tenant_id, entry_id in found)

    def _expire(self, tenant_id: str, entry_id: str) -> int:
        with self.database.write(_Owner(tenant_id)) as session:
            entry = session.get(LedgerEntry, (tenant_id, entry_id), with_for_update=True)
            if entry is None or entry.state not in (HELD, STARTED) or (entry.lease_until or 0) >= self.clock():
                return 0
            if entry.state == STARTED:
                close(session, entry, UNSETTLED, entry.tokens, self.clock())
            else:
                close(session, entry, RELEASED, 0, self.clock())
        return 1


class TenantMeter:
    """Satisfies `rag.types.Meter` by shape."""

    def __init__(self, ledger: Ledger, scope: HasTenant, operation: str, epoch: int = 0) -> None:
        self._ledger, self._scope, self._operation, self._epoch = ledger, scope, operation, epoch

    def remaining(self) -> int | None:
        """Tokens left this month; None without a limit."""
        with self._ledger.database.read(self._scope) as session:
            limit = limit_of(session, self._scope.tenant_id)
            window = session.get(BudgetWindow, (self._scope.tenant_id, month(self._ledger.clock())))
        spent = window.used + window.held if window else 0
        return None if limit is None else max(0, limit - spent)

    def require(self) -> None:
        """Refuse work that cannot be paid for before any of it is done."""
        with self._announced():
            if self.remaining() == 0:
                raise BudgetExhausted("The tenant's token budget of this month is used up.", field="budget", limit=0)

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """The month's first refusal becomes an event, after the transaction that it rolled back."""
        try:
            yield
        except BudgetExhausted:
            window = month(self._ledger.clock())
            emit_once(self._ledger.database, self._ledger.clock, self._scope, "budget.exhausted", window)
            raise

    @once_more
    def hold(self, hold_id: str, tokens: int, *, started: bool = False) -> bool:
        with self._announced(), self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, hold_id)
            if entry is not None and entry.state in (SETTLED, UNSETTLED):
                self._top_up(session, entry, tokens)
                return False
            if entry is not None and entry.state in (HELD, STARTED):
                self._top_up(session, entry, tokens)
                entry.lease_until, entry.epoch = self._lease(), self._epoch
                entry.state = STARTED if started else entry.state
                return True
            if entry is not None:
                session.delete(entry)  # released: the step runs again and reserves anew
                session.flush()
            entry = LedgerEntry(**self._row(hold_id, STARTED if started else HELD, tokens))
            self._reserve(session, entry.month, tokens)
            session.add(entry)
        return True

    def _top_up(self, session: Session, entry: LedgerEntry, tokens: int) -> None:
        """A repeated step can need more than its first run: what was cached then may have been evicted since."""
        paid = entry.state in (SETTLED, UNSETTLED)
        missing = tokens - entry.tokens - (self._parts(session, entry.id) if paid else 0)
        if missing > 0:
            self._reserve(session, entry.month, missing, cost=missing * entry.price if paid else None)
            entry.tokens += missing
            if paid:
                entry.cost = entry.tokens * entry.price
                self._count(session, Amounts(charged=missing, cost=missing * entry.price))
        session.add(entry)

    def start(self, hold_id: str) -> None:
        with self._ledger.database.write(self._scope) as session:
            entry = self._open_entry(session, hold_id)
            entry.state, entry.lease_until = STARTED, self._lease()
            session.add(entry)

    def settle(self, hold_id: str, tokens: int) -> int:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, hold_id)
            if entry is None or entry.state == RELEASED:
                raise RuntimeError(f"hold {hold_id} is settled, but nothing is held")
            if entry.state in (HELD, STARTED):
                close(session, entry, SETTLED, min(tokens, entry.tokens), self._ledger.clock())
            elif entry.state == UNSETTLED:  # swept while the call took longer than its lease: already charged
                entry.state = SETTLED
                session.add(entry)
            return entry.tokens + self._parts(session, hold_id)

    def settle_part(self, hold_id: str, part_id: str, tokens: int) -> int:
        if "/" in part_id:
            raise ValueError(f"the part {part_id!r} could be taken for one of another hold")
        with self._ledger.database.write(self._scope) as session:
            entry, part = self._entry(session, hold_id), self._entry(session, f"{hold_id}/{part_id}")
            now = self._ledger.clock()
            if part is not None:  # by a call that is repeated
                if entry is not None and entry.state in (HELD, STARTED):
                    close(session, entry, RELEASED, 0, now)
                return part.tokens
            if entry is None or entry.state == RELEASED:
                raise RuntimeError(f"a part of hold {hold_id} is settled, but nothing is held")
            if entry.state in (SETTLED, UNSETTLED):
                return 0  # charged in full: by an earlier run, or because the call took longer than its lease
            named = {"id": f"{hold_id}/{part_id}", "part_of": hold_id, "created_at": now}
            part = LedgerEntry(**entry.model_dump() | named)
            close(session, part, SETTLED, min(tokens, entry.tokens), now)  # the reservation is the part's now
            entry.state, entry.tokens, entry.lease_until = RELEASED, 0, None
            session.add(entry)
            return part.tokens

    def release(self, hold_id: str) -> None:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, hold_id)
            if entry is not None and entry.state in (HELD, STARTED):
                close(session, entry, RELEASED, 0, self._ledger.clock())

    def charged(self, entry_id: str) -> int:
        """What this hold with its parts, or this debit, cost in the end; 0 if it never came to that."""
        with self._ledger.database.read(self._scope) as session:
            entry = session.get(LedgerEntry, (self._scope.tenant_id, entry_id))
            whole = entry.tokens if entry is not None and entry.state in (SETTLED, UNSETTLED) else 0
            return whole + self._parts(session, entry_id)

    def _parts(self, session: Session, hold_id: str) -> int:
        """Tokens of a hold that were charged before the rest was given back."""
        return session.scalar(_PARTS, {"hold": hold_id}) or 0

    @once_more
    def debit(self, charge_id: str, tokens: int) -> None:
        """Charged once for each id: of two at the same moment the second waits for the first's entry, and is free."""
        row, cost = self._row(charge_id, SETTLED, tokens), tokens * self._ledger.price
        with self._announced(), self._ledger.database.write(self._scope) as session:
            if insert_missing(session, LedgerEntry, row):
                self._reserve(session, row["month"], tokens, cost=cost)
                self._count(session, Amounts(charged=tokens, cost=cost))

    def refund(self, charge_id: str) -> None:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, charge_id)
            if entry is not None and entry.state == SETTLED:
                move(session, entry.tenant_id, entry.month, used=-entry.tokens, held=0, cost=-entry.cost)
                on = day(entry.created_at)  # the day it was charged on, which may have ended since
                back = Amounts(charged=-entry.tokens, cost=-entry.cost)
                count_usage(session, entry.tenant_id, entry.operation, on, back)
                session.delete(entry)

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None:
        with self._ledger.database.write(self._scope) as session:
            self.count_saved(session, cached, deduplicated, hits)

    def count_saved(self, session: Session, cached: int, deduplicated: int, hits: int = 0) -> None:
        """The same in a transaction of the caller's."""
        worth = (cached + deduplicated) * self._ledger.price
        self._count(session, Amounts(cached=cached, deduplicated=deduplicated, hits=hits, saved_cost=worth))

    def _lease(self) -> int:
        return self._ledger.clock() + self._ledger.lease_ms

    def _entry(self, session: Session, entry_id: str) -> LedgerEntry | None:
        entry = session.get(LedgerEntry, (self._scope.tenant_id, entry_id), with_for_update=True)
        if entry is not None and entry.epoch > self._epoch:
            raise LeaseLost(f"the hold {entry_id} belongs to a later owner of its job")
        return entry

    def _open_entry(self, session: Session, hold_id: str) -> LedgerEntry:
        entry = self._entry(session, hold_id)
        if entry is None or entry.state not in (HELD, STARTED):  # its lease ran out before the call began
            raise Unavailable(f"The hold {hold_id} has expired; the step is run again.")
        return entry

    def _row(self, entry_id: str, state: str, tokens: int) -> dict[str, Any]:
        """Of a new entry; as a dictionary, because a debit needs no object, which would take a sixth of it."""
        now, price, settled = self._ledger.clock(), self._ledger.price, state == SETTLED
        return {
            "tenant_id": self._scope.tenant_id,
            "id": entry_id,
            "month": month(now),
            "operation": self._operation,
            "state": state,
            "tokens": tokens,
            "price": price,
            "cost": tokens * price if settled else 0,
            "part_of": None,
            "epoch": 0 if settled else self._epoch,
            "lease_until": None if settled else self._lease(),
            "created_at": now,
        }

    def _reserve(self, session: Session, window: str, tokens: int, *, cost: int | None = None) -> None:
        """Hold `tokens` of the month, or use them for `cost`; or raise."""
        tenant_id = self._scope.tenant_id
        taken = reserve(session, tenant_id, window, tokens) if cost is None else spend(session, tenant_id, window, tokens, cost)
        if not taken:
            monthly = limit_of(session, tenant_id)
            raise BudgetExhausted(
                f"This needs {tokens} tokens, more than is left of the month's {monthly}.",
                field="budget",
                limit=monthly,
            )

    def _count(self, session: Session, amounts: Amounts) -> None:
        count_usage(session, self._scope.tenant_id, self._operation, day(self._ledger.clock()), amounts)


def close(session: Session, entry: LedgerEntry, state: str, charged: int, now: int) -> None:
    """End an open entry: its reservation goes back, and `charged` of it is used."""
    cost = charged * entry.price
    move(session, entry.tenant_id, entry.month, used=charged, held=-entry.tokens, cost=cost)
    if charged:
        count_usage(session, entry.tenant_id, entry.operation, day(now), Amounts(charged=charged, cost=cost))
    entry.state, entry.tokens, entry.cost, entry.lease_until = state, charged, cost, None
    session.add(entry)


_PARTS = sa.select(sa.func.sum(col(LedgerEntry.tokens))).where(col(LedgerEntry.part_of) == sa.bindparam("hold"))
