"""What rag needs from its surroundings, by shape: whose data it is, and who pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the engine and the command line know no SQL
    from sqlalchemy.orm import Session

MAX_QUESTION_CHARS = 8_000


class Scope(Protocol):
    """Whose data an operation touches. `tenants.context.TenantContext` satisfies it."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def cache_salt(self) -> bytes:
        """Secret that keeps one tenant's cache keys from being guessed by another."""
        ...


class Speaker(Scope, Protocol):
    """A scope that acts for an end user, or for nobody in particular (None): then for all of the tenant's."""

    @property
    def subject(self) -> str | None: ...

    def speaking_for(self, named: str | None) -> str | None:
        """The subject of what is said. Raise Forbidden for another than its own."""


class Reader(Speaker, Protocol):
    """A scope that reads: which collections and access labels its principal may see (None: all)."""

    @property
    def collections(self) -> frozenset[str] | None: ...

    @property
    def labels(self) -> frozenset[str] | None: ...

    @property
    def session(self) -> str | None:
        """The one whose attached documents it sees, and no others; None: all but those."""


class Rememberer(Reader, Protocol):
    """A scope that has memories: of its subject, from documents that it sees."""


class Meter(Protocol):
    """A tenant's embedding budget, in tokens of the embedding model. Every call is one short transaction.

    Ids are deterministic, so a repeated step finds its own hold. `hold` and `debit` raise BudgetExhausted.
    """

    def hold(self, hold_id: str, tokens: int, *, started: bool = False) -> bool:
        """Reserve, and with `started` do what `start` does. False if an earlier run of the same step was charged already."""

    def start(self, hold_id: str) -> None:
        """The model is about to be called: from here on a lost hold is charged, not returned."""

    def settle(self, hold_id: str, tokens: int) -> int:
        """End a hold, and return what it cost, with parts of it that were charged before."""

    def settle_part(self, hold_id: str, part_id: str, tokens: int) -> int:
        """Charge a part of a hold and give the rest back: some of the texts were embedded before the call failed.

        Afterwards the hold is as if it had never been made; holding again reserves what is left to do. The same part (a
        name without "/") is charged once. Returns what it cost; 0 if the whole hold was charged before.
        """

    def charged(self, entry_id: str) -> int:
        """What a hold with its parts, or a debit, cost in the end; 0 if it never came to that."""

    def release(self, hold_id: str) -> None: ...

    def debit(self, charge_id: str, tokens: int) -> bool:
        """Charge an amount that is known beforehand. False if another call under the id was charged: this one is free, and has
        nothing to refund."""

    def keep(self, charge_id: str) -> bool:
        """What another call's debit paid for was used: it is not refunded any more. False if it was refunded before."""

    def refund(self, charge_id: str) -> bool:
        """Give back the caller's own debit; False, and it stays, if it is kept."""

    def strained(self) -> bool:
        """Whether so much of the budget is gone that a question leaves out what it can do without."""

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None:
        """Count tokens that cost nothing because their vector was known; `hits` of the texts were known before the call."""


class BookedMeter(Meter, Protocol):
    """One whose amounts are rows of the database, so that others can change with them."""

    def debit_with(self, charge_id: str, tokens: int, also: Callable[[Session], None]) -> bool:
        """As `debit`, and `also` in the same transaction: what it raises undoes the charge. False, and nothing is done, if
        the same was charged before.
        """
