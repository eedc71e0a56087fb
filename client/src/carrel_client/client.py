"""`Carrel`: noun.verb, keyword-only, typed answers and errors.

What creates takes an `idempotency_key`: calls with one key and the same arguments create once, however often and from
wherever they are made. Without one each call gets a key of its own, for its retries.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack, overload

from carrel_client.errors import CarrelClientError
from carrel_client.jobs import Events, Jobs
from carrel_client.models import (
    Collection,
    Document,
    Estimate,
    Job,
    Key,
    NewKey,
    Placement,
    Profile,
    QueryResult,
    Tenant,
    Token,
    Usage,
)
from carrel_client.transport import Transport
from carrel_client.transport import pages as _pages
from carrel_client.transport import path_of as _path

DEFAULT_URL = "http://127.0.0.1:8321"


class Carrel:
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
        self.admin = Admin(self._transport)

    def query(
        self,
        query: str,
        *,
        collections: Sequence[str] | None = None,
        top_k: int = 10,
        filter: Mapping[str, Any] | None = None,
    ) -> QueryResult:
        """Find the passages that answer `query`, best first."""
        body: dict[str, Any] = {"query": query, "top_k": top_k}
        if collections is not None:
            body["collections"] = list(collections)
        if filter is not None:
            body["filter"] = dict(filter)
        return QueryResult.parse(self._transport.call("POST", "/v1/query", json=body, repeatable=True).json())

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


@dataclass(frozen=True)
class Submitted:
    """An accepted document. `job` is None when this content was live already."""

    document: Document
    job: Job | None
    _jobs: Jobs

    def wait(self, *, timeout_s: float = 600.0, on_progress: Callable[[Job], None] | None = None) -> Job | None:
        """Return the finished job; raise JobFailedError, or TimeoutError after `timeout_s`."""
        return None if self.job is None else self._jobs.wait(self.job.id, timeout_s=timeout_s, on_progress=on_progress)


class Brought(TypedDict, total=False):
    """What `Documents.create` takes of a document."""

    text: str | None
    file: str | Path | None
    content: bytes | None
    url: str | None
    file_name: str | None
    format: str
    collection: str
    external_id: str | None
    title: str | None
    source: str | None
    attributes: Mapping[str, Any] | None
    labels: Sequence[str] | None
    idempotency_key: str | None


class Documents:
    def __init__(self, transport: Transport) -> None:
        self._transport, self._jobs = transport, Jobs(transport)

    @overload
    def create(self, *, dry_run: Literal[False] = False, **document: Unpack[Brought]) -> Submitted: ...

    @overload
    def create(self, *, dry_run: Literal[True], **document: Unpack[Brought]) -> Estimate: ...

    def create(
        self,
        *,
        text: str | None = None,
        file: str | Path | None = None,
        content: bytes | None = None,
        url: str | None = None,
        file_name: str | None = None,
        format: str = "text",
        collection: str = "default",
        external_id: str | None = None,
        title: str | None = None,
        source: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        labels: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> Submitted | Estimate:
        """Bring a document: `text` (format "text" or "markdown"), a `file` by path, `content` with a `file_name`, or a `url`,
        which the service fetches.

        Bring it again under the same `external_id` to replace it. Without one its content is its identity, or its URL. With
        `dry_run` nothing is brought, and the answer is what it would cost; of a URL it is not known.
        """
        if sum(given is not None for given in (text, file, content, url)) != 1:
            raise CarrelClientError("Give exactly one of text, file, content and url.")
        fields: dict[str, Any] = {
            "collection": collection,
            "external_id": external_id,
            "title": title,
            "source": source,
            "attributes": dict(attributes or {}),
            "labels": list(labels or []),
        }
        if text is not None:
            sent: dict[str, Any] = {"json": {**fields, "text": text, "format": format}}
        elif url is not None:
            sent = {"json": {**fields, "url": url}}
        else:
            sent = _upload(fields, None if file is None else Path(file), content, file_name)
        if dry_run:
            sent |= {"params": {"dry_run": "true"}}
        answer = self._transport.call(
            "POST", "/v1/documents", **sent, idempotency_key=idempotency_key, repeatable=dry_run
        ).json()
        if dry_run:
            return Estimate.parse(answer)
        job = None if answer["job"] is None else Job.parse(answer["job"])
        return Submitted(Document.parse(answer["document"]), job, self._jobs)

    def get(self, document_id: str) -> Document:
        return Document.parse(self._transport.call("GET", _path("/v1/documents", document_id)).json())

    def text(self, document_id: str) -> str:
        """The text that passages cite: `text[p.start:p.end] == p.text`."""
        answer: str = self._transport.call("GET", _path("/v1/documents", document_id, "text")).json()["text"]
        return answer

    def list(self, *, collection: str | None = None, page_size: int = 100) -> Iterator[Document]:
        """All documents, oldest first, fetched page by page."""
        for item in _pages(self._transport, "/v1/documents", page_size, collection=collection):
            yield Document.parse(item)

    def delete(self, document_id: str) -> Job:
        """Gone from every answer at once; the returned job removes what is left."""
        return Job.parse(self._transport.call("DELETE", _path("/v1/documents", document_id)).json()["job"])


def _upload(fields: dict[str, Any], path: Path | None, content: bytes | None, file_name: str | None) -> dict[str, Any]:
    raw = content if path is None else path.read_bytes()
    name = file_name or ("document" if path is None else path.name)
    form = {key: value for key, value in fields.items() if isinstance(value, str)}
    form |= {key: json.dumps(fields[key]) for key in ("attributes", "labels")}
    return {"files": {"file": (name, raw)}, "data": form}


class Collections:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, *, name: str, profile: str | None = None, idempotency_key: str | None = None) -> Collection:
        """`profile` None is `standard`."""
        body = {"name": name} | ({} if profile is None else {"profile": profile})
        answer = self._transport.call("POST", "/v1/collections", json=body, idempotency_key=idempotency_key)
        return Collection.parse(answer.json())

    def update(self, name: str, *, profile: str) -> Collection:
        """Documents that are brought from now on are processed by this profile; the others keep their chunks."""
        answer = self._transport.call("PATCH", _path("/v1/collections", name), json={"profile": profile})
        return Collection.parse(answer.json())

    def profiles(self) -> list[Profile]:
        """All that a collection can have."""
        answer = self._transport.call("GET", "/v1/profiles").json()
        return [Profile.parse(item) for item in answer["data"]]

    def list(self, *, page_size: int = 100) -> Iterator[Collection]:
        for item in _pages(self._transport, "/v1/collections", page_size):
            yield Collection.parse(item)


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
        idempotency_key: str | None = None,
    ) -> NewKey:
        """The answer's `secret` is shown this once."""
        body = {
            "tenant": tenant,
            "name": name,
            "scopes": list(scopes),
            "collections": None if collections is None else list(collections),
            "labels": None if labels is None else list(labels),
        }
        return NewKey.parse(self._transport.call("POST", "/v1/admin/keys", json=body, idempotency_key=idempotency_key).json())

    def list(self, *, tenant: str, page_size: int = 100) -> Iterator[Key]:
        for item in _pages(self._transport, "/v1/admin/keys", page_size, tenant=tenant):
            yield Key.parse(item)

    def revoke(self, key_id: str) -> Key:
        return Key.parse(self._transport.call("DELETE", _path("/v1/admin/keys", key_id), repeatable=True).json())
