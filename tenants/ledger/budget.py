"""The ledger: tokens are reserved before they are spent, so a budget is never over by one.

    hold ──start──► started ──settle──► settled          A debit is settled at once: its amount is known beforehand.
     │                 └─ lease ran out ─► unsettled     Charged: the call had begun, and its worker is gone. A debit is it
     │                                                   too once another under its id has used it: it is not refunded.
     └─ release, or lease ran out ─► released            Returned: nothing was called.

Every transition is one short transaction of conditional statements; the windows' amounts change with the entry. An entry
belongs to the day on which it was reserved, and keeps the price at which it was made, whenever it ends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from config.clock import Clock, day
from config.database import Database, HasTenant, once_more
from config.errors import BudgetExhausted, LeaseLost, Unavailable
from config.plans import BUILT_IN, UNLIMITED
from tenants.counters import Account, Amounts, count_usage, insert_missing
from tenants.ledger import windows
from tenants.ledger.bounds import Ceilings, ceilings_of, kind_of
from tenants.ledger.entries import HELD, OPEN, PAID, PARTS, RELEASED, SETTLED, STARTED, UNSETTLED, close, expired
from tenants.ledger.ladder import Ladder, is_strained
from tenants.ledger.windows import Change, Refused, Window
from tenants.limits.plans import Limits, LimitsInForce, Plans
from tenants.tables import LedgerEntry

__all__ = ["HELD", "RELEASED", "SETTLED", "STARTED", "UNSETTLED", "Ledger", "TenantMeter"]

LimitsOf = Callable[[str], Limits]


class Ledger:
    """`price`: picodollars a token, of what its meters charge. `limits`: of a tenant, by its id."""

    def __init__(
        self, database: Database, clock: Clock, *, lease_s: int, price: int = 0, limits: LimitsOf | None = None
    ) -> None:
        self.database, self.clock, self.lease_ms, self.price = database, clock, lease_s * 1000, price
        self._limits = limits or LimitsInForce(database, clock, Plans(BUILT_IN, UNLIMITED), fresh_ms=0).of
        self.ladder = Ladder(database, clock)

    def at(self, price: int) -> Ledger:
        """The same ledger, at another price from now on."""
        other = copy.copy(self)
        other.price = price
        return other

    def for_tenant(
        self, scope: HasTenant, operation: str, *, epoch: int = 0, key: str = "", collection: str = ""
    ) -> TenantMeter:
        """A meter that books on this tenant, under `operation` ("ingest", "query", "llm"), key and collection in its usage.

        `epoch`: of the lease of a job. Holds that an owner of a later epoch has made cannot be started or settled with it.
        """
        return TenantMeter(self, scope, Account(operation, key, collection), epoch)

    def ceilings(self, tenant_id: str, kind: str) -> Ceilings:
        return ceilings_of(self._limits(tenant_id), kind)

    def sweep(self) -> int:
        """Settle every hold whose lease ran out; return how many. Never undoes what its owner did meanwhile."""
        with self.database.system_read() as session:
            found = expired(session, self.clock())
        return sum(self._expire(scope, entry_id) for scope, entry_id in found)

    def _expire(self, scope: HasTenant, entry_id: str) -> int:
        with self.database.write(scope) as session:
            entry = session.get(LedgerEntry, (scope.tenant_id, entry_id), with_for_update=True)
            if entry is None or entry.state not in OPEN or (entry.lease_until or 0) >= self.clock():
                return 0
            if entry.state == STARTED:
                close(session, entry, UNSETTLED, entry.tokens)
            else:
                close(session, entry, RELEASED, 0)
        return 1


class _Taking:
    """A transaction that reserves, and what it makes of the windows."""

    def __init__(self, session: Session, tenant_id: str, kind: str, ceilings: Ceilings) -> None:
        self.session, self._tenant_id, self._kind, self._ceilings = session, tenant_id, kind, ceilings
        self.windows: list[Window] = []

    def take(self, on: str, change: Change) -> None:
        self.windows = windows.take(self.session, self._tenant_id, self._kind, on, self._ceilings, change)


class TenantMeter:
    """Satisfies `rag.types.Meter` by shape."""

    def __init__(self, ledger: Ledger, scope: HasTenant, account: Account, epoch: int = 0) -> None:
        self._ledger, self._scope, self._account, self._epoch = ledger, scope, account, epoch
        self._kind = kind_of(account.operation)
        self._seen: list[Window] = []  #: as this meter last left them

    def windows(self) -> list[Window]:
        """This month's and this day's."""
        ceilings = self._ledger.ceilings(self._scope.tenant_id, self._kind)
        with self._ledger.database.read(self._scope) as session:
            return windows.read(session, self._scope.tenant_id, self._kind, day(self._ledger.clock()), ceilings)

    def remaining(self) -> int | None:
        """Tokens that month and day have room for, at the ledger's price; None without a limit."""
        left = [left for window in self.windows() if (left := window.left(self._ledger.price)) is not None]
        return min(left, default=None)

    def strained(self) -> bool:
        """Whether a question leaves out what it can do without. Reads nothing if it was charged just now."""
        if not any(ceiling.is_hard for ceiling in self._ledger.ceilings(self._scope.tenant_id, self._kind)):
            return False
        return any(is_strained(window) for window in self._seen or self.windows())

    def require(self) -> None:
        """Refuse work that cannot be paid for before any of it is done."""
        price = self._ledger.price
        with self._announced():
            for window in self.windows():
                if window.left(price) == 0:
                    raise Refused(window, Change(used=1, cost=price))

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """A window's first refusal becomes an event, after the transaction that it rolled back."""
        try:
            yield
        except Refused as refused:
            self._ledger.ladder.refuse(self._scope, refused)
            raise BudgetExhausted(refused.detail, field="budget", limit=refused.limit) from None

    @contextmanager
    def _taking(self) -> Iterator[_Taking]:
        """What is reserved in it is told of once it is on record."""
        ceilings = self._ledger.ceilings(self._scope.tenant_id, self._kind)
        with self._announced(), self._ledger.database.write(self._scope) as session:
            taking = _Taking(session, self._scope.tenant_id, self._kind, ceilings)
            yield taking
        if taking.windows:
            self._seen = taking.windows
            self._ledger.ladder.tell(self._scope, taking.windows)

    @once_more
    def hold(self, hold_id: str, tokens: int, *, started: bool = False) -> bool:
        with self._taking() as taking:
            session, entry = taking.session, self._entry(taking.session, hold_id)
            if entry is not None and entry.state in PAID:
                self._top_up(taking, entry, tokens)
                return False
            if entry is not None and entry.state in OPEN:
                self._top_up(taking, entry, tokens)
                entry.lease_until, entry.epoch = self._lease(), self._epoch
                entry.state = STARTED if started else entry.state
                return True
            if entry is not None:
                session.delete(entry)  # released: the step runs again and reserves anew
                session.flush()
            entry = LedgerEntry(**self._row(hold_id, STARTED if started else HELD, tokens))
            taking.take(entry.day, Change(held=tokens, held_cost=tokens * entry.price))
            session.add(entry)
        return True

    def _top_up(self, taking: _Taking, entry: LedgerEntry, tokens: int) -> None:
        """A repeated step can need more than its first run: what was cached then may have been evicted since."""
        paid, session = entry.state in PAID, taking.session
        missing = tokens - entry.tokens - (self._parts(session, entry.id) if paid else 0)
        if missing > 0:
            cost = missing * entry.price
            taking.take(entry.day, Change(used=missing, cost=cost) if paid else Change(held=missing, held_cost=cost))
            entry.tokens += missing
            if paid:
                entry.cost = entry.tokens * entry.price
                self._count(session, entry, Amounts(charged=missing, cost=cost))
        session.add(entry)

    def start(self, hold_id: str) -> None:
        with self._ledger.database.write(self._scope) as session:
            entry = self._open_entry(session, hold_id)
            entry.state, entry.lease_until = STARTED, self._lease()
            session.add(entry)

    def settle(self, hold_id: str, tokens: int) -> int:
        with self._taking() as taking:
            session = taking.session
            entry = self._reserved(taking, hold_id, tokens - self._parts(session, hold_id))
            if entry.state in OPEN:
                close(session, entry, SETTLED, min(tokens, entry.tokens))
            elif entry.state == UNSETTLED:  # swept while the call took longer than its lease: already charged
                entry.state = SETTLED
                session.add(entry)
            return entry.tokens + self._parts(session, hold_id)

    def settle_part(self, hold_id: str, part_id: str, tokens: int) -> int:
        if "/" in part_id:
            raise ValueError(f"the part {part_id!r} could be taken for one of another hold")
        with self._taking() as taking:
            session = taking.session
            entry, part = self._entry(session, hold_id), self._entry(session, f"{hold_id}/{part_id}")
            if part is not None:  # by a call that is repeated
                if entry is not None and entry.state in OPEN:
                    close(session, entry, RELEASED, 0)
                return part.tokens
            entry = self._reserved(taking, hold_id, tokens)
            if entry.state in PAID:
                return 0  # charged in full: by an earlier run, or because the call took longer than its lease
            named = {"id": f"{hold_id}/{part_id}", "part_of": hold_id, "created_at": self._ledger.clock()}
            part = LedgerEntry(**entry.model_dump() | named)
            close(session, part, SETTLED, min(tokens, entry.tokens))  # the reservation is the part's now
            entry.state, entry.tokens, entry.lease_until = RELEASED, 0, None
            session.add(entry)
            return part.tokens

    def _reserved(self, taking: _Taking, hold_id: str, tokens: int) -> LedgerEntry:
        """The entry of a call that was made. If another call under its id failed and gave it back, it is reserved anew."""
        entry = self._entry(taking.session, hold_id)
        if entry is None:
            raise RuntimeError(f"hold {hold_id} is settled, but nothing is held")
        if entry.state == RELEASED:
            entry.state, entry.tokens = STARTED, max(tokens, 0)
            taking.take(entry.day, Change(held=entry.tokens, held_cost=entry.tokens * entry.price))
        return entry

    def release(self, hold_id: str) -> None:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, hold_id)
            if entry is not None and entry.state in OPEN:
                close(session, entry, RELEASED, 0)

    def charged(self, entry_id: str) -> int:
        """What this hold with its parts, or this debit, cost in the end; 0 if it never came to that."""
        with self._ledger.database.read(self._scope) as session:
            entry = session.get(LedgerEntry, (self._scope.tenant_id, entry_id))
            whole = entry.tokens if entry is not None and entry.state in PAID else 0
            return whole + self._parts(session, entry_id)

    def _parts(self, session: Session, hold_id: str) -> int:
        """Tokens of a hold that were charged before the rest was given back."""
        return session.scalar(PARTS, {"hold": hold_id}) or 0

    def debit(self, charge_id: str, tokens: int) -> bool:
        """Charged once for each id: of two at the same moment the second waits for the first's entry, and is free."""
        return self.debit_with(charge_id, tokens, lambda _session: None)

    @once_more
    def debit_with(self, charge_id: str, tokens: int, also: Callable[[Session], None]) -> bool:
        """`also` comes before the windows, which many wait for."""
        row, cost = self._row(charge_id, SETTLED, tokens), tokens * self._ledger.price
        with self._taking() as taking:
            if not insert_missing(taking.session, LedgerEntry, row):
                return False
            also(taking.session)
            taking.take(row["day"], Change(used=tokens, cost=cost))
            charged = Amounts(charged=tokens, cost=cost)
            count_usage(taking.session, self._scope.tenant_id, row["day"], self._account, charged)
        return True

    def keep(self, charge_id: str) -> bool:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, charge_id)
            if entry is not None:
                entry.state = UNSETTLED
        return entry is not None

    def refund(self, charge_id: str) -> bool:
        with self._ledger.database.write(self._scope) as session:
            entry = self._entry(session, charge_id)
            if entry is None or entry.state != SETTLED:
                return False
            back = Change(used=-entry.tokens, cost=-entry.cost)
            windows.move(session, entry.tenant_id, kind_of(entry.operation), entry.day, back)
            self._count(session, entry, Amounts(charged=-entry.tokens, cost=-entry.cost))
            session.delete(entry)
        return True

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None:
        with self._ledger.database.write(self._scope) as session:
            self.count_saved(session, cached, deduplicated, hits)

    def count_saved(self, session: Session, cached: int, deduplicated: int, hits: int = 0) -> None:
        """The same in a transaction of the caller's."""
        worth = (cached + deduplicated) * self._ledger.price
        amounts = Amounts(cached=cached, deduplicated=deduplicated, hits=hits, saved_cost=worth)
        count_usage(session, self._scope.tenant_id, day(self._ledger.clock()), self._account, amounts)

    def _lease(self) -> int:
        return self._ledger.clock() + self._ledger.lease_ms

    def _entry(self, session: Session, entry_id: str) -> LedgerEntry | None:
        entry = session.get(LedgerEntry, (self._scope.tenant_id, entry_id), with_for_update=True)
        if entry is not None and entry.epoch > self._epoch:
            raise LeaseLost(f"the hold {entry_id} belongs to a later owner of its job")
        return entry

    def _open_entry(self, session: Session, hold_id: str) -> LedgerEntry:
        entry = self._entry(session, hold_id)
        if entry is None or entry.state not in OPEN:  # its lease ran out before the call began
            raise Unavailable(f"The hold {hold_id} has expired; the step is run again.")
        return entry

    def _row(self, entry_id: str, state: str, tokens: int) -> dict[str, Any]:
        """Of a new entry; as a dictionary, because a debit needs no object, which would take a sixth of it."""
        now, price, settled = self._ledger.clock(), self._ledger.price, state == SETTLED
        return {
            "tenant_id": self._scope.tenant_id,
            "id": entry_id,
            "day": day(now),
            "operation": self._account.operation,
            "key": self._account.key,
            "collection": self._account.collection,
            "state": state,
            "tokens": tokens,
            "price": price,
            "cost": tokens * price if settled else 0,
            "part_of": None,
            "epoch": 0 if settled else self._epoch,
            "lease_until": None if settled else self._lease(),
            "created_at": now,
        }

    def _count(self, session: Session, entry: LedgerEntry, amounts: Amounts) -> None:
        """On the entry's own day and account, whoever asks now."""
        account = Account(entry.operation, entry.key, entry.collection)
        count_usage(session, entry.tenant_id, entry.day, account, amounts)
