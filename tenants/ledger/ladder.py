"""Tells a tenant how much of a budget is gone: at 50, 75, 90 and 100 %, once for each window and step."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from config.clock import Clock
from config.database import Database, HasTenant
from config.money import micro_usd
from tenants.events import emit_once
from tenants.ledger.bounds import STEPS, STRAINED, Bound
from tenants.ledger.windows import Refused, Window

log = logging.getLogger(__name__)

MAX_TOLD = 20_000  # windows that a process remembers the step of; 0.3 kB each


@dataclass(frozen=True, slots=True)
class Reached:
    """The limit of a window of which most is gone. Money in picodollars."""

    step: int
    unit: str
    bound: Bound
    spent: int


def reached(window: Window) -> Reached:
    tokens, cost = window.ceiling.tokens, window.ceiling.cost
    both = (("tokens", tokens, window.tokens), ("micro_usd", cost, window.money))
    return max((Reached(bound.step(spent), unit, bound, spent) for unit, bound, spent in both), key=lambda each: each.step)


def is_strained(window: Window) -> bool:
    """Whether so much of a hard limit is gone that a question leaves out what it can do without."""
    pairs = ((window.ceiling.tokens, window.tokens), (window.ceiling.cost, window.money))
    return any(not bound.soft and bound.step(spent) >= STRAINED for bound, spent in pairs)


class Ladder:
    """To be called after the transaction that changed the windows. What this process told is remembered only so as not to ask
    again: an event that a dying process left out is made by whoever charges next.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._told: dict[tuple[str, str], int] = {}

    def tell(self, scope: HasTenant, windows: Iterable[Window]) -> None:
        """Never an error of who charged: that is on record, and would be paid for nothing."""
        try:
            self._tell(scope, windows)
        except SQLAlchemyError:
            log.exception("a warning of a budget could not be written; whoever charges next tries again")

    def _tell(self, scope: HasTenant, windows: Iterable[Window]) -> None:
        for window in windows:
            now, before = reached(window), self._told.get((scope.tenant_id, window.name), 0)
            if now.step <= before:
                continue
            for step in STEPS:
                if before < step <= now.step:
                    self._warn(scope, window, now, step)
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told[scope.tenant_id, window.name] = now.step

    def _warn(self, scope: HasTenant, window: Window, now: Reached, step: int) -> None:
        money = now.unit == "micro_usd"
        emit_once(
            self._database,
            self._clock,
            scope,
            "budget.warned",
            f"{window.name}:{step}",
            kind=window.kind,
            period=window.period,
            step=step,
            unit=now.unit,
            limit=micro_usd(now.bound.value or 0) if money else now.bound.value,
            spent=micro_usd(now.spent) if money else now.spent,
            soft=now.bound.soft,
        )

    def refuse(self, scope: HasTenant, refused: Refused) -> None:
        """A window's first refusal is an event."""
        window = refused.window
        emit_once(
            self._database,
            self._clock,
            scope,
            "budget.exhausted",
            window.name,
            kind=window.kind,
            period=window.period,
            limit=refused.limit,
        )
