"""`carrel.admin.budgets`: what tenants may use, as the operator sees and sets it."""

from __future__ import annotations

from typing import Any

from carrel_client._sync.transport import Transport
from carrel_client.budgets import UNCHANGED, Unchanged
from carrel_client.exchange import path_of as _path
from carrel_client.models import Budget


class Budgets:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def show(self, tenant: str) -> list[Budget]:
        """Of each kind of tokens, this month and this day, with forecasts.

        Example: `budgets = operator.admin.budgets.show("acme")`
        """
        answer = self._transport.call("GET", _path("/v1/admin/tenants", tenant, "budgets"))
        return [Budget.parse(budget) for budget in answer["data"]]

    def set(
        self,
        tenant: str,
        *,
        kind: str,
        span: str,
        tokens: int | Unchanged | None = UNCHANGED,
        micro_usd: int | Unchanged | None = UNCHANGED,
        soft: bool | None = None,
        reason: str = "",
    ) -> list[Budget]:
        """Limits from now on; None is no limit. A soft one tells, and refuses nothing.

        Example: `operator.admin.budgets.set("acme", kind="embedding", span="month", tokens=5_000_000)`
        """
        return self._put(tenant, kind, span, {"tokens": tokens, "micro_usd": micro_usd, "soft": soft, "reason": reason})

    def override(
        self,
        tenant: str,
        *,
        kind: str,
        span: str,
        until: str,
        tokens: int | Unchanged | None = UNCHANGED,
        micro_usd: int | Unchanged | None = UNCHANGED,
        reason: str = "",
    ) -> list[Budget]:
        """Limits until a time (RFC 3339); then what was set before holds again.

        Example: `operator.admin.budgets.override("acme", kind="llm", span="day", until="2027-01-01T00:00:00Z")`
        """
        return self._put(tenant, kind, span, {"tokens": tokens, "micro_usd": micro_usd, "until": until, "reason": reason})

    def _put(self, tenant: str, kind: str, span: str, given: dict[str, Any]) -> list[Budget]:
        body = {name: value for name, value in given.items() if value is not UNCHANGED}
        path = _path("/v1/admin/tenants", tenant, "budgets", kind, span)
        return [Budget.parse(budget) for budget in self._transport.call("PUT", path, json=body)["data"]]
