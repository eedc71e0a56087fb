"""The operator's search over several tenants: each through a handle of its own, and each told of it in its audit record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from config.errors import NotFound
from ingestion.statistics import StatisticsReader
from rag.retrieval.question import Passage, Question
from rag.retrieval.retriever import Retriever
from tenants.audit.export import AuditExport
from tenants.audit.record import AuditLog, Event
from tenants.registry import TenantRegistry
from tenants.tables import Tenant

MAX_TENANTS = 20


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of one tenant, or why it was not asked."""

    tenant: Tenant
    passages: tuple[Passage, ...] = ()
    problem: str | None = None


class CountingMeter:
    """Pays for what an operator asks: counts, and charges no tenant, whose budget is for its own questions.

    Satisfies `rag.types.Meter` by shape.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._amounts: dict[str, int] = {}

    def hold(self, hold_id: str, tokens: int, *, started: bool = False) -> bool:
        return True

    def start(self, hold_id: str) -> None:
        pass

    def settle(self, hold_id: str, tokens: int) -> int:
        return self._add(hold_id, tokens)

    def settle_part(self, hold_id: str, part_id: str, tokens: int) -> int:
        return self._add(part_id, tokens)

    def charged(self, entry_id: str) -> int:
        return self._amounts.get(entry_id, 0)

    def release(self, hold_id: str) -> None:
        pass

    def debit(self, charge_id: str, tokens: int) -> bool:
        self._add(charge_id, tokens)
        return True

    def keep(self, charge_id: str) -> bool:
        return True

    def refund(self, charge_id: str) -> bool:
        self.tokens -= self._amounts.pop(charge_id, 0)
        return True

    def strained(self) -> bool:
        return False

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None:
        pass

    def _add(self, name: str, tokens: int) -> int:
        self._amounts[name] = self._amounts.get(name, 0) + tokens
        self.tokens += tokens
        return tokens


class CrossTenantSearch:
    def __init__(self, registry: TenantRegistry, retriever: Retriever, audit: AuditLog) -> None:
        self._registry, self._retriever, self._audit = registry, retriever, audit

    def find(self, names: Sequence[str]) -> list[Tenant]:
        """All of them, each once, or NotFound before anything was looked at."""
        found = {tenant.id: tenant for tenant in map(self._registry.get, names)}
        return [*found.values()]

    def ask(self, tenants: Sequence[Tenant], question: Question, *, reason: str, event: Event) -> tuple[list[Looked], int]:
        """Ask each in turn; what one hands out is on its record before it is handed out. Return also the tokens embedded."""
        meter = CountingMeter()
        return [self._look(tenant, question, meter, reason, event) for tenant in tenants], meter.tokens

    def _look(self, tenant: Tenant, question: Question, meter: CountingMeter, reason: str, event: Event) -> Looked:
        context = self._registry.context_of_job(tenant.id, "operator")
        try:
            answer = self._retriever.for_tenant(context, meter).query(question, charge_id=f"{event.request_id} {tenant.id}")
            looked, status = Looked(tenant, answer.passages), 200
        except NotFound as error:
            looked, status = Looked(tenant, problem=error.detail), error.status
        detail = {"reason": reason, "passages": [passage.id for passage in looked.passages]}
        self._audit.append(replace(event, tenant_id=tenant.id, status=status, detail=detail))
        return looked


@dataclass(frozen=True, slots=True)
class Oversight:
    """What looks at all that happened: searches and sums across tenants, and exports of the audit record."""

    search: CrossTenantSearch
    statistics: StatisticsReader
    export: AuditExport
