"""One call of a tool: whose it is, what it may, what goes on record of it, and its refusals in words that a model acts on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import Request

from api.routing import meter_of, require
from api.wiring.api import ApiServices
from config.errors import CarrelError, Forbidden
from config.ids import new_id
from rag.retrieval.question import MAX_COLLECTIONS
from tenants.context import Scope, TenantContext
from tenants.ledger.budget import TenantMeter

#: What to do about a refusal that the caller can do something about, by its code.
ADVICE = {
    "not_found": "Look for the id with `search`, or for the name of the collection with `list_collections`.",
    "budget_exhausted": "Do not try again: tell the user that the budget is used up.",
    "quota_exceeded": "Do not try again: tell the user that the quota is used up.",
    "forbidden": "Do not try again: the key is not allowed to do this.",
    "tenant_suspended": "Do not try again: tell the user.",
}


class Call:
    """The request's own services and tenant; nothing of another request is in reach."""

    def __init__(self, context: Context[Any, Any], needed: Scope = Scope.QUERY, *, reads: bool = True) -> None:
        """Raise ToolError for a caller who may not."""
        self.request: Request = _require_request(context.request_context.request)
        identity = self.request.state.identity
        with refusals():
            require(identity, needed, reads=reads)
            if identity.tenant is None:
                raise Forbidden("An operator key opens /v1/admin only; use a tenant's key.")
        self.tenant: TenantContext = identity.tenant
        self.services: ApiServices = self.request.app.state.services
        self.charge_id = new_id("charge")

    @property
    def base(self) -> str:
        """Of the addresses that are answered: as the caller addressed the service."""
        return str(self.request.base_url).rstrip("/")

    def record(self, tool: str, **detail: Any) -> None:
        """What the audit record says of the request."""
        self.request.state.audit = {"tool": tool, **detail}

    def spent(self, tokens: int) -> None:
        """What the request weighs in rate limits."""
        self.request.state.tokens = tokens

    def meter(self, collections: Sequence[str]) -> TenantMeter:
        return meter_of(self.services, self.tenant, collections)

    def collections(self, named: str | None) -> tuple[str, ...]:
        """The named one, or as many of the caller's as one question may have, oldest first."""
        if named is not None:
            return (named,)
        rows = self.services.collections.for_tenant(self.tenant).list(after=None, limit=MAX_COLLECTIONS)
        space = self.services.embedding.space.id
        return tuple(row.name for row, _ in rows if row.space_id == space)


def _require_request(request: object) -> Request:
    if not isinstance(request, Request):
        raise TypeError("Tools are called by HTTP only.")
    return request


@contextmanager
def refusals() -> Iterator[None]:
    """Refusals as text for the model; what nobody foresaw is left to the caller, who tells nothing of the inside."""
    try:
        yield
    except CarrelError as error:
        raise ToolError(told(error)) from error
    except (OperationalError, PoolTimeout) as error:
        raise ToolError("The database does not answer. Try again in a few seconds.") from error


def told(error: CarrelError) -> str:
    parts = [f"{error.title}: {error.detail} [{error.code}]"]
    if error.field:
        parts.append(f"Argument: {error.field}.")
    if error.retryable:
        parts.append("Try again in a few seconds.")
    elif error.code in ADVICE:
        parts.append(ADVICE[error.code])
    return " ".join(parts)
