"""`Carrel`: noun.verb, keyword-only, typed answers and errors.

What creates takes an `idempotency_key`: calls with one key and the same arguments create once, however often and from
wherever they are made. Without one each call gets a key of its own, for its retries.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx2

from carrel_client._async.admin import AsyncAdmin
from carrel_client._async.asking import AsyncAsking
from carrel_client._async.audit import AsyncAudit
from carrel_client._async.collections import AsyncCollections
from carrel_client._async.documents import AsyncDocuments
from carrel_client._async.evaluation import AsyncFeedbackOf, AsyncQuestionSets
from carrel_client._async.jobs import AsyncEvents, AsyncJobs
from carrel_client._async.memories import AsyncMemories
from carrel_client._async.pins import AsyncPins
from carrel_client._async.recall import AsyncRecallsSubject
from carrel_client._async.session_documents import AsyncErasures, AsyncExports, AsyncSessionDocuments
from carrel_client._async.sessions import AsyncSessions
from carrel_client._async.traces import AsyncTraces
from carrel_client._async.transport import AsyncTransport
from carrel_client._async.webhooks import AsyncWebhooks
from carrel_client.errors import ServiceUnavailableError, TransportError
from carrel_client.exchange import key_of
from carrel_client.models import Token, Usage

DEFAULT_URL = "http://127.0.0.1:8321"


class AsyncCarrel(AsyncAsking, AsyncRecallsSubject):
    """A client for one key. `api_key` and `base_url` default to CARREL_API_KEY and CARREL_URL.

    `timeout_s` bounds each silence of one try, `max_retries` the tries after the first. `http`: connections of yours, with
    proxies or certificates, which are not closed with this.

    Example: `carrel = AsyncCarrel(api_key="carrel_key_…")`
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 3,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        key = key_of(api_key or os.environ.get("CARREL_API_KEY"))
        url = base_url or os.environ.get("CARREL_URL") or DEFAULT_URL
        self._equip(AsyncTransport(url, key, timeout_s=timeout_s, max_retries=max_retries, http=http))

    def _equip(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.documents = AsyncDocuments(transport)
        self.jobs = AsyncJobs(transport)
        self.events = AsyncEvents(transport)
        self.collections = AsyncCollections(transport)
        self.feedback = AsyncFeedbackOf(transport)
        self.question_sets = AsyncQuestionSets(transport)
        self.webhooks = AsyncWebhooks(transport)
        self.sessions = AsyncSessions(transport)
        self.session_documents = AsyncSessionDocuments(transport)
        self.exports = AsyncExports(transport)
        self.erasures = AsyncErasures(transport)
        self.pins = AsyncPins(transport)
        self.memories = AsyncMemories(transport)
        self.traces = AsyncTraces(transport)
        self.audit = AsyncAudit(transport)
        self.admin = AsyncAdmin(transport)

    def with_options(self, *, timeout_s: float | None = None, max_retries: int | None = None) -> Self:
        """This client with other patience, on the same connections; it is closed with this one.

        Example: `carrel.with_options(timeout_s=2, max_retries=0)`
        """
        other = copy.copy(self)
        other._equip(self._transport.with_options(timeout_s=timeout_s, max_retries=max_retries))
        return other

    async def token(
        self,
        *,
        subject: str,
        scopes: Sequence[str] = ("query",),
        collections: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        read_only: bool = False,
        lifetime_seconds: int = 900,
    ) -> Token:
        """A short-lived credential for an end user of yours, within what this key allows. It dies with the key.

        Example: `token = (await carrel.token(subject="ann", labels=["staff"])).token`
        """
        body = {
            "subject": subject,
            "scopes": list(scopes),
            "collections": None if collections is None else list(collections),
            "labels": None if labels is None else list(labels),
            "read_only": read_only,
            "lifetime_seconds": lifetime_seconds,
        }
        return Token.parse(await self._transport.call("POST", "/v1/tokens", json=body))

    async def usage(self, *, first: str | None = None, last: str | None = None, group_by: Sequence[str] = ()) -> Usage:
        """Budgets as they stand; tokens and money by day and operation, of this month or from `first` to `last`.

        `group_by`: any of day, operation, key and collection, for `groups`.

        Example: `print((await carrel.usage(group_by=["key"])).groups)`
        """
        given = {"from": first, "to": last, "group_by": list(group_by)}
        params = {name: value for name, value in given.items() if value}
        return Usage.parse(await self._transport.call("GET", "/v1/usage", params=params))

    async def export_usage(self, *, month: str, format: str = "csv") -> str:
        """A month ("2026-11") line by line, by day, operation, key and collection, and its sum; `csv` or `json`.

        Example: `invoice = await carrel.export_usage(month="2026-11")`
        """
        return await self._transport.text("GET", "/v1/usage/export", params={"month": month, "format": format})

    async def ready(self) -> dict[str, Any]:
        """State of each part of the service; raises ServiceUnavailableError while one is missing.

        Example: `print((await carrel.ready())["ready"])`
        """
        answer: dict[str, Any] = await self._transport.call("GET", "/readyz")
        return answer

    async def alive(self) -> bool:
        """Whether its api process answers, whatever the key may do and whichever part is missing; `ready` says more.

        Example: `await carrel.alive()`
        """
        try:
            await self._transport.call("GET", "/healthz")
        except (TransportError, ServiceUnavailableError):
            return False
        return True

    async def close(self) -> None:
        """Close its connections. A `with` block does so at its end.

        Example: `await carrel.close()`
        """
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
