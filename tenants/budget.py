"""The ledger: tokens are reserved before they are spent, so a budget is never over by one.

    hold ──start──► started ──settle──► settled          A debit is settled at once: its amount is known beforehand.
     │                 └─ lease ran out ─► unsettled     Charged: the call had begun, and its worker is gone.
     └─ release, or lease ran out ─► released            Returned: nothing was called.

Every transition is one short transaction of conditional statements; `used` and `held` of a window change with the entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock, day, month
from config.database import Database, HasTenant, once_more
from config.errors import BudgetExhausted, LeaseLost, Unavailable
from tenants.counters import count_usage, insert_missing, limit_of, move, take
from tenants.events import emit_once
from tenants.tables import BudgetWindow, LedgerEntry

HELD, STARTED, SETTLED, UNSETTLED, RELEASED = "held", "started", "settled", "unsettled", "released"
SWEEP_LIMIT = 500  # holds returned in one transaction


@dataclass(frozen=True, slots=True)
class _Owner:
    tenant_id: str


class Ledger:
    def __init__(self, database: Database, clock: Clock, *, lease_s: int) -> None:
        self.database, self.clock, self.lease_ms = database, clock, lease_s * 1000

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
                self._top_up(session, entry, tokens, held=False)
                return False
            if entry is not None and entry.state in (HELD, STARTED):
                self._top_up(session, entry, tokens, held=True)
                entry.lease_until, entry.epoch = self._lease(), self._epoch
                entry.state = STARTED if started else entry.state
                return True
            if entry is not None:
                session.delete(entry)  # released: the step runs again and reserves anew
                session.flush()
            self._reserve(session, tokens, month(self._ledger.clock()), held=True)
            self._add(session, hold_id, STARTED if started else HELD, tokens, self._lease())
        return True

    def _top_up(self, session: Session, entry: LedgerEntry, tokens: int, *, held: bool) -> None:
        """A repeated step can need more than its first run: what was cached then may have been evicted since."""
        missing = tokens - entry.tokens
        if missing > 0:
            self._reserve(session, missing, entry.month, held=held)
            entry.tokens = tokens
            if not held:
                self._count(session, charged=missing)
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
            return entry.tokens

    def release(self, hold_id: str) -> None:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, hold_id)
            if entry is not None and entry.state in (HELD, STARTED):
                close(session, entry, RELEASED, 0, self._ledger.clock())

    def charged(self, entry_id: str) -> int:
        """What this hold or debit cost in the end; 0 if it never came to that."""
        with self._ledger.database.read(self._scope) as session:
            entry = session.get(LedgerEntry, (self._scope.tenant_id, entry_id))
            return entry.tokens if entry is not None and entry.state in (SETTLED, UNSETTLED) else 0

    @once_more
    def debit(self, charge_id: str, tokens: int) -> None:
        """Charged once for each id: of two at the same moment the second waits for the first's entry, and is free."""
        now = self._ledger.clock()
        entry = {
            "tenant_id": self._scope.tenant_id,
            "id": charge_id,
            "month": month(now),
            "operation": self._operation,
            "state": SETTLED,
            "tokens": tokens,
            "epoch": 0,
            "lease_until": None,
            "created_at": now,
        }
        with self._announced(), self._ledger.database.write(self._scope) as session:
            if insert_missing(session, LedgerEntry, entry):
                self._reserve(session, tokens, month(now), held=False)
                self._count(session, charged=tokens)

    def refund(self, charge_id: str) -> None:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, charge_id)
            if entry is not None and entry.state == SETTLED:
                move(session, entry.tenant_id, entry.month, used=-entry.tokens, held=0)
                on = day(entry.created_at)  # the day it was charged on, which may have ended since
                count_usage(session, entry.tenant_id, entry.operation, on, charged=-entry.tokens)
                session.delete(entry)

    def saved(self, cached: int, deduplicated: int) -> None:
        with self._ledger.database.write(self._scope) as session:
            self.count_saved(session, cached, deduplicated)

    def count_saved(self, session: Session, cached: int, deduplicated: int) -> None:
        """The same in a transaction of the caller's."""
        self._count(session, cached=cached, deduplicated=deduplicated)

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

    def _add(self, session: Session, entry_id: str, state: str, tokens: int, lease: int | None) -> None:
        now = self._ledger.clock()
        session.add(
            LedgerEntry(
                tenant_id=self._scope.tenant_id,
                id=entry_id,
                month=month(now),
                operation=self._operation,
                state=state,
                tokens=tokens,
                epoch=self._epoch,
                lease_until=lease,
                created_at=now,
            )
        )

    def _reserve(self, session: Session, tokens: int, window: str, *, held: bool) -> None:
        """Take `tokens` of the month, or raise."""
        if not take(session, self._scope.tenant_id, window, tokens, held=held):
            monthly = limit_of(session, self._scope.tenant_id)
            raise BudgetExhausted(
                f"This needs {tokens} tokens, more than is left of the month's {monthly}.",
                field="budget",
                limit=monthly,
            )

    def _count(self, session: Session, *, charged: int = 0, cached: int = 0, deduplicated: int = 0) -> None:
        count_usage(
            session,
            self._scope.tenant_id,
            self._operation,
            day(self._ledger.clock()),
            charged=charged,
            cached=cached,
            deduplicated=deduplicated,
        )


def close(session: Session, entry: LedgerEntry, state: str, charged: int, now: int) -> None:
    """End an open entry: its reservation goes back, and `charged` of it is used."""
    move(session, entry.tenant_id, entry.month, used=charged, held=-entry.tokens)
    if charged:
        count_usage(session, entry.tenant_id, entry.operation, day(now), charged=charged)
    entry.state, entry.tokens, entry.lease_until = state, charged, None
    session.add(entry)
