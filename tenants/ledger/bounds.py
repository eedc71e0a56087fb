"""Which budgets a tenant's limits make: of tokens and money, for each kind of tokens, by month and by day. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from config.money import PICO_IN_MICRO
from tenants.limits.plans import Limits

EMBEDDING, LLM = "embedding", "llm"
KINDS = (EMBEDDING, LLM)
SPANS = ("month", "day")  #: in the order in which windows are changed
STEPS = (50, 75, 90, 100)  #: percent of a limit at which a tenant is told
STRAINED = 90  #: percent from which on a question leaves out what it can do without


@dataclass(frozen=True, slots=True)
class Bound:
    """None is no limit. A soft one is told of and refuses nothing."""

    value: int | None = None
    soft: bool = False

    @property
    def hard(self) -> int | None:
        return None if self.soft else self.value

    def step(self, spent: int) -> int:
        """The last step that is reached, or 0."""
        if not self.value:
            return 0
        return max((step for step in STEPS if spent * 100 >= step * self.value), default=0)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one window may come to."""

    tokens: Bound = Bound()
    cost: Bound = Bound()  #: picodollars

    @property
    def is_hard(self) -> bool:
        return self.tokens.hard is not None or self.cost.hard is not None


Ceilings: TypeAlias = tuple[Ceiling, Ceiling]  #: of the month and of the day


def kind_of(operation: str) -> str:
    """Whose budget an operation of the ledger is charged to."""
    return LLM if operation == LLM else EMBEDDING


def limit_name(kind: str, unit: str, span: str) -> str:
    """As `config.plans.Plan` calls it; `unit` is "tokens" or "micro_usd"."""
    return f"{kind}_{unit}_{span}"


def ceilings_of(limits: Limits, kind: str) -> Ceilings:
    month, day = (Ceiling(_bound(limits, kind, "tokens", span), _bound(limits, kind, "micro_usd", span)) for span in SPANS)
    return month, day


def _bound(limits: Limits, kind: str, unit: str, span: str) -> Bound:
    name = limit_name(kind, unit, span)
    value: int | None = getattr(limits, name)
    if value is not None and unit == "micro_usd":
        value *= PICO_IN_MICRO
    return Bound(value, name in limits.soft_budgets)
