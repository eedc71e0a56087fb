"""`Carrel`: noun.verb, keyword-only, typed answers and errors.

What creates takes an `idempotency_key`: calls with one key and the same arguments create once, however often and from
wherever they are made. Without one each call gets a key of its own, for its retries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from carrel_client.asking import Asking
from carrel_client.audit import Audit, Oversight
from carrel_client.budgets import Budgets
from carrel_client.collections import Collections
from carrel_client.documents import Documents
from carrel_client.errors import CarrelClientError
from carrel_client.evaluation import FeedbackOf, QuestionSets
from carrel_client.jobs import Events, Jobs
from carrel_client.memories import Memories
from carrel_client.models import (
    Key,
    NewKey,
    Token,
    Usage,
)
from carrel_client.pins import Pins
from carrel_client.recall import RecallsSubject
from carrel_client.session_documents import Erasures, Exports, SessionDocuments
from carrel_client.sessions import Sessions
from carrel_client.tenants import Tenants
from carrel_client.traces import Traces
from carrel_client.transport import Transport
from carrel_client.transport import pages as _pages
from carrel_client.transport import path_of as _path
from carrel_client.webhooks import Webhooks

DEFAULT_URL = "http://127.0.0.1:8321"


class Carrel(Asking, RecallsSubject):
    """A client for one key. `api_key` and `base_url` default to CARREL_API_KEY and CARREL_URL."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 3,
    ) -> None:
        key = api_key or os.environ.get("CARREL_API_KEY")
        if not key:
            raise CarrelClientError("No key: pass api_key=… or set CARREL_API_KEY.")
        url = base_url or os.environ.get("CARREL_URL") or DEFAULT_URL
        self._transport = Transport(url, key, timeout_s=timeout_s, max_retries=max_retries)
        self.documents = Documents(self._transport)
        self.jobs = Jobs(self._transport)
        self.events = Events(self._transport)
        self.collections = Collections(self._transport)
        self.pins = Pins(self._transport)
        self.sessions = Sessions(self._transport)
        self.memories = Memories(self._transport)
        self.feedback = FeedbackOf(self._transport)
        self.question_sets = QuestionSets(self._transport)
        self.session_documents = SessionDocuments(self._transport)
        self.exports = Exports(self._transport)
        self.erasures = Erasures(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.audit = Audit(self._transport)
        self.traces = Traces(self._transport)
        self.admin = Admin(self._transport)

    def token(
        self,
        *,
        subject: str,
        scopes: Sequence[str] = ("query",),
        collections: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        read_only: bool = False,
        lifetime_seconds: int = 900,
    ) -> Token:
        """A short-lived credential for an end user of yours, within what this key allows. It dies with the key."""
        body = {
            "subject": subject,
            "scopes": list(scopes),
            "collections": None if collections is None else list(collections),
            "labels": None if labels is None else list(labels),
            "read_only": read_only,
            "lifetime_seconds": lifetime_seconds,
        }
        return Token.parse(self._transport.call("POST", "/v1/tokens", json=body).json())

    def usage(self, *, first: str | None = None, last: str | None = None, group_by: Sequence[str] = ()) -> Usage:
        """Budgets as they stand; tokens and money by day and operation, of this month or from `first` to `last`.

        `group_by`: any of day, operation, key and collection, for `groups`.
        """
        given = {"from": first, "to": last, "group_by": list(group_by)}
        params = {name: value for name, value in given.items() if value}
        return Usage.parse(self._transport.call("GET", "/v1/usage", params=params).json())

    def export_usage(self, *, month: str, format: str = "csv") -> str:
        """A month ("2026-11") line by line, by day, operation, key and collection, and its sum; `csv` or `json`."""
        return self._transport.call("GET", "/v1/usage/export", params={"month": month, "format": format}).text

    def ready(self) -> dict[str, Any]:
        """State of each part of the service; raises ServiceUnavailableError while one is missing."""
        answer: dict[str, Any] = self._transport.call("GET", "/readyz").json()
        return answer

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Admin(Oversight):
    """For operator keys only."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self.tenants = Tenants(transport)
        self.keys = Keys(transport)
        self.budgets = Budgets(transport)


class Keys:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        tenant: str,
        name: str,
        scopes: Sequence[str],
        collections: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        read_only: bool = False,
        expires_at: str | None = None,
        allowed_addresses: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> NewKey:
        """The answer's `secret` is shown this once. `expires_at` is RFC 3339, as `2027-01-31T00:00:00Z`."""
        body = {
            "tenant": tenant,
            "name": name,
            "scopes": list(scopes),
            "collections": None if collections is None else list(collections),
            "labels": None if labels is None else list(labels),
            "read_only": read_only,
            "expires_at": expires_at,
            "allowed_addresses": None if allowed_addresses is None else list(allowed_addresses),
        }
        return NewKey.parse(self._transport.call("POST", "/v1/admin/keys", json=body, idempotency_key=idempotency_key).json())

    def list(self, *, tenant: str, page_size: int = 100) -> Iterator[Key]:
        for item in _pages(self._transport, "/v1/admin/keys", page_size, tenant=tenant):
            yield Key.parse(item)

    def get(self, key_id: str) -> Key:
        return Key.parse(self._transport.call("GET", _path("/v1/admin/keys", key_id)).json())

    def rotate(self, key_id: str, *, overlap_seconds: int = 24 * 3600, idempotency_key: str | None = None) -> NewKey:
        """A key with the same terms in its place; the old one stays valid for the overlap."""
        path, body = _path("/v1/admin/keys", key_id, "rotate"), {"overlap_seconds": overlap_seconds}
        return NewKey.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key).json())

    def revoke(self, key_id: str) -> Key:
        return Key.parse(self._transport.call("DELETE", _path("/v1/admin/keys", key_id), repeatable=True).json())
