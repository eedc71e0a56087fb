"""What is spent for a session, within its own budget: a meter around the tenant's that asks the session's row first.

A debit takes of both in one transaction. A hold is reserved of the session before, in a transaction of its own: who dies
between that and the charge leaves the session with less to spend, never with more. What was spent is counted whether the
session has a budget or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import Database
from config.errors import BudgetExhausted, NotFound
from config.kept import execute
from config.money import PICO_IN_MICRO
from rag.sessions.tables import GONE, ChatSession
from rag.types import BookedMeter, Scope


class SessionMeter:
    """Satisfies `rag.types.BookedMeter` around another one. `price`: picodollars a token, as that one charges.

    Raises BudgetExhausted where the tenant's budget has no room, one `of_session` where the session's has none, and
    NotFound for a session that is gone.
    """

    def __init__(self, database: Database, scope: Scope, session_id: str, meter: BookedMeter, *, price: int) -> None:
        self._database, self._scope, self._session_id = database, scope, session_id
        self._meter, self._price = meter, price
        self._taken: dict[str, int] = {}  #: tokens that this meter has reserved of the session, by hold or charge

    def hold(self, hold_id: str, tokens: int, *, started: bool = False) -> bool:
        with self._taking(hold_id, tokens):
            held = self._meter.hold(hold_id, tokens, started=started)
        if not held:  # an earlier run of the step was charged, and took it of the session then
            self._end(hold_id, 0)
        return held

    def start(self, hold_id: str) -> None:
        self._meter.start(hold_id)

    def settle(self, hold_id: str, tokens: int) -> int:
        charged = self._meter.settle(hold_id, tokens)
        self._end(hold_id, charged)
        return charged

    def settle_part(self, hold_id: str, part_id: str, tokens: int) -> int:
        charged = self._meter.settle_part(hold_id, part_id, tokens)
        self._end(hold_id, charged)
        return charged

    def charged(self, entry_id: str) -> int:
        return self._meter.charged(entry_id)

    def release(self, hold_id: str) -> None:
        self._meter.release(hold_id)
        self._end(hold_id, 0)

    def debit(self, charge_id: str, tokens: int) -> bool:
        return self.debit_with(charge_id, tokens, lambda _session: None)

    def debit_with(self, charge_id: str, tokens: int, also: Callable[[Session], None]) -> bool:
        def take(session: Session) -> None:
            self._move(session, tokens)
            also(session)

        charged = self._meter.debit_with(charge_id, tokens, take)
        if charged:
            self._taken[charge_id] = tokens
        return charged

    def keep(self, charge_id: str) -> bool:
        return self._meter.keep(charge_id)

    def refund(self, charge_id: str) -> bool:
        refunded = self._meter.refund(charge_id)
        self._end(charge_id, 0 if refunded else self._taken.get(charge_id, 0))
        return refunded

    def strained(self) -> bool:
        return self._meter.strained()

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None:
        self._meter.saved(cached, deduplicated, hits)

    @contextmanager
    def _taking(self, name: str, tokens: int) -> Iterator[None]:
        """For a call that may be refused: then the session has what it had before."""
        had = self._taken.get(name, 0)
        if tokens > had:
            self._spend(tokens - had)
            self._taken[name] = tokens
        try:
            yield
        except BaseException:
            self._end(name, had)
            self._taken[name] = had
            raise

    def _end(self, name: str, tokens: int) -> None:
        """So much of what was reserved under the name is spent; the rest goes back."""
        taken = self._taken.pop(name, 0)
        if taken > tokens:
            self._spend(tokens - taken)

    def _spend(self, tokens: int) -> None:
        with self._database.write(self._scope) as session:
            self._move(session, tokens)

    def _move(self, session: Session, tokens: int) -> None:
        given = {"of": self._session_id, "more_tokens": tokens, "more_cost": tokens * self._price}
        if execute(session, _SPEND if tokens > 0 else _RETURN, given).rowcount or tokens <= 0:
            return
        row = session.scalars(_LOOK, {"of": self._session_id}).one_or_none()
        if row is None:
            raise NotFound("There is no such session.", field="session_id")
        raise _refused(row, tokens)


def _refused(row: ChatSession, tokens: int) -> BudgetExhausted:
    if row.budget_tokens is not None and row.spent_tokens + tokens > row.budget_tokens:
        detail = f"The session's budget is {row.budget_tokens} tokens: {row.spent_tokens} are spent, and this needs {tokens}."
        return BudgetExhausted(detail, field="budget_tokens", limit=row.budget_tokens)
    detail = f"The session's budget of {row.budget_micro_usd} micro-dollars does not cover this."
    return BudgetExhausted(detail, field="budget_micro_usd", limit=row.budget_micro_usd)


def _big(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


_TABLE: sa.Table = ChatSession.__table__  # type: ignore[attr-defined]
_S = _TABLE.c
_MORE = {"spent_tokens": _S.spent_tokens + _big("more_tokens"), "spent_cost": _S.spent_cost + _big("more_cost")}
_RETURN = sa.update(_TABLE).where(_S.id == sa.bindparam("of"), _S.state.not_in(GONE)).values(_MORE)
_SPEND = _RETURN.where(
    sa.or_(_S.budget_tokens.is_(None), _MORE["spent_tokens"] <= _S.budget_tokens),
    sa.or_(_S.budget_micro_usd.is_(None), _MORE["spent_cost"] <= _S.budget_micro_usd * PICO_IN_MICRO),
)
_LOOK = select(ChatSession).where(col(ChatSession.id) == sa.bindparam("of"), col(ChatSession.state).not_in(GONE))
