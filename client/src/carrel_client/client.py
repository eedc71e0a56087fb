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
from carrel_client.collections import Collections
from carrel_client.documents import Documents
from carrel_client.errors import CarrelClientError
from carrel_client.evaluation import FeedbackOf, QuestionSets
from carrel_client.jobs import Events, Jobs
from carrel_client.models import (
    Key,
    NewKey,
    Placement,
    Tenant,
    Token,
    Usage,
)
from carrel_client.transport import Transport
from carrel_client.transport import pages as _pages
from carrel_client.transport import path_of as _path

DEFAULT_URL = "http://127.0.0.1:8321"


class Carrel(Asking):
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
        self.feedback = FeedbackOf(self._transport)
        self.question_sets = QuestionSets(self._transport)
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

    def usage(self) -> Usage:
        """Tokens and money of this month: limit, used, held, in all, and by day and operation."""
        return Usage.parse(self._transport.call("GET", "/v1/usage").json())

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


class Admin:
    """For operator keys only."""

    def __init__(self, transport: Transport) -> None:
        self.tenants = Tenants(transport)
        self.keys = Keys(transport)


class Tenants:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, name: str, monthly_tokens: int | None = None, idempotency_key: str | None = None) -> Tenant:
        """`monthly_tokens` None leaves it to the service's default; `update` can lift a limit."""
        body: dict[str, Any] = {"name": name}
        if monthly_tokens is not None:
            body["monthly_tokens"] = monthly_tokens
        answer = self._transport.call("POST", "/v1/admin/tenants", json=body, idempotency_key=idempotency_key)
        return Tenant.parse(answer.json())

    def get(self, tenant: str) -> Tenant:
        """By id or name."""
        return Tenant.parse(self._transport.call("GET", _path("/v1/admin/tenants", tenant)).json())

    def list(self, *, page_size: int = 100) -> Iterator[Tenant]:
        for item in _pages(self._transport, "/v1/admin/tenants", page_size):
            yield Tenant.parse(item)

    def update(self, tenant: str, *, monthly_tokens: int | None) -> Tenant:
        body = {"monthly_tokens": monthly_tokens}
        return Tenant.parse(self._transport.call("PATCH", _path("/v1/admin/tenants", tenant), json=body).json())

    def token(
        self, tenant: str, *, scopes: Sequence[str], lifetime_seconds: int = 900, idempotency_key: str | None = None
    ) -> Token:
        """A short-lived credential to act as this tenant; the exchange is audited."""
        body = {"scopes": list(scopes), "lifetime_seconds": lifetime_seconds}
        path = _path("/v1/admin/tenants", tenant, "tokens")
        return Token.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key).json())

    def placement(self, tenant: str, collection: str) -> Placement:
        """Where a collection's vectors are to lie, and whether they do."""
        return Placement.parse(self._transport.call("GET", _placement(tenant, collection)).json())

    def place(self, tenant: str, collection: str, *, placement: str) -> Placement:
        """`shared`, `dedicated`, or `auto` to go by the number of points. They are moved while the collection is used."""
        body = {"placement": placement}
        return Placement.parse(self._transport.call("PUT", _placement(tenant, collection), json=body).json())


def _placement(tenant: str, collection: str) -> str:
    return _path("/v1/admin/tenants", tenant, "collections", collection, "placement")


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
