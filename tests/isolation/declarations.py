"""What every operation takes and answers: the table that a new operation must join.

An entry says how the operation is called well (`parts`), which scope it needs, what a good call answers, and which of its
places take something by which a caller could name what is not his (`takes`: place → kind). The walk and the probes follow
from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

REFUSED = frozenset({404, 422})


@dataclass(frozen=True, slots=True)
class Kind:
    """What may stand at a place."""

    foreign: int | None  #: status for one that is another tenant's, and for one that nobody has; None: as of a good call
    malformed: frozenset[int] | None = REFUSED  #: statuses for nonsense; None: as of a good call, or a refusal
    like: str | None = None  #: the kind whose values are probed here, where a good call needs another
    bounded: tuple[str, ...] = ()  #: names of bounds of a key outside of which it is 404
    optional: bool = False  #: left out of a good call


BY_COLLECTION, BY_LABELS = "key of other collections", "key of other labels"
_BOTH = (BY_COLLECTION, BY_LABELS)

#: "kind/variant" is looked up as its kind; a good call takes the variant.
KINDS: Mapping[str, Kind] = {
    "document": Kind(404, bounded=_BOTH),
    "job": Kind(404, bounded=_BOTH),
    "collection name": Kind(404, bounded=(BY_COLLECTION,)),
    "new collection name": Kind(None, like="collection name", bounded=(BY_COLLECTION,)),
    "tenant": Kind(404),
    "new tenant name": Kind(None, like="tenant/name"),
    "key": Kind(404),
    "bound": Kind(None, malformed=None, like="collection name"),  # a key can be made before its collection
    "cursor": Kind(422, malformed=frozenset({422}), optional=True),
    "idempotency key": Kind(None, malformed=None, optional=True),
    "event": Kind(422, malformed=frozenset({422}), optional=True),
    **{kind: Kind(None, malformed=None) for kind in ("text", "title", "external id", "source", "label", "key name")},
    **{kind: Kind(None, malformed=None) for kind in ("attribute key", "attribute value", "number key")},
}


@dataclass(frozen=True, slots=True)
class Operation:
    name: str  #: as its door lists it
    scope: str
    success: int
    takes: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)
    but: Mapping[str, int] = field(default_factory=dict)  #: principal → status, where the general rule does not hold
    variant: str = ""  #: of an operation that can be called in several ways
    door: str = "http"

    def __str__(self) -> str:
        return f"{self.name} {self.variant}".strip()


def kind_of(declared: str) -> Kind:
    return KINDS[declared.partition("/")[0]]


def pool_of(declared: str) -> str:
    """The kind whose values are probed where this one is declared."""
    kind = declared.partition("/")[0]
    return KINDS[kind].like or kind


_PAGED = {"query.after": "cursor"}
_DOCUMENT = {"path.document_id": "document"}
_JOB = {"path.job_id": "job"}
_TENANT = {"path.tenant": "tenant"}
_PLACED = {**_TENANT, "path.name": "collection name"}
_DESCRIBED = {"collection": "collection name", "external_id": "external id", "title": "title", "source": "source"}

_DECLARED: tuple[Operation, ...] = (
    Operation("GET /healthz", "none", 200),
    Operation("GET /readyz", "none", 200),
    Operation(
        "POST /v1/documents",
        "ingest",
        202,
        {
            "body.text": "text",
            **{f"body.{name}": kind for name, kind in _DESCRIBED.items()},
            "body.attributes.kind": "attribute value",
            "body.labels.0": "label",
        },
        {"body": {"format": "markdown", "labels": [""]}},
        but={BY_LABELS: 403},
    ),
    Operation(  # its job is refused: no test fetches anything from outside
        "POST /v1/documents",
        "ingest",
        202,
        {**{f"body.{name}": kind for name, kind in _DESCRIBED.items()}, "body.labels.0": "label"},
        {"body": {"url": "http://localhost/", "labels": [""]}},
        but={BY_LABELS: 403},
        variant="url",
    ),
    Operation(
        "POST /v1/documents",
        "ingest",
        202,
        {"form.file": "text", **{f"form.{name}": kind for name, kind in _DESCRIBED.items()}},
        {"form": {"attributes": '{"year": 2026}', "labels": "[]"}},
        but={BY_LABELS: 403},
        variant="form",
    ),
    Operation(
        "POST /v1/documents",
        "ingest",
        200,
        {"body.text": "text", **{f"body.{name}": kind for name, kind in _DESCRIBED.items()}, "body.labels.0": "label"},
        {"body": {"format": "markdown", "labels": [""]}, "query": {"dry_run": "true"}},
        but={BY_LABELS: 403},
        variant="dry",
    ),
    Operation(
        "POST /v1/documents",
        "ingest",
        200,
        {"form.file": "text", **{f"form.{name}": kind for name, kind in _DESCRIBED.items()}},
        {"form": {"attributes": '{"year": 2026}', "labels": "[]"}, "query": {"dry_run": "1"}},
        but={BY_LABELS: 403},
        variant="dry form",
    ),
    Operation("GET /v1/documents", "query", 200, {"query.collection": "collection name", **_PAGED}),
    Operation("GET /v1/documents/{document_id}", "query", 200, _DOCUMENT),
    Operation("GET /v1/documents/{document_id}/text", "query", 200, _DOCUMENT),
    Operation("DELETE /v1/documents/{document_id}", "ingest", 200, _DOCUMENT),
    Operation("GET /v1/jobs", "query", 200, {"query.collection": "collection name", **_PAGED}, {"query": {"state": "queued"}}),
    Operation("GET /v1/jobs/{job_id}", "query", 200, _JOB),
    Operation("GET /v1/jobs/{job_id}/events", "query", 200, _JOB),
    Operation("POST /v1/jobs/{job_id}/cancel", "ingest", 200, _JOB),
    Operation("POST /v1/jobs/{job_id}/retry", "ingest", 200, {"path.job_id": "job/failed"}),
    Operation(
        "GET /v1/events",
        "manage",
        200,
        {"query.since": "event", **_PAGED},
        {"query": {"type": "document."}},
        but={BY_COLLECTION: 403, BY_LABELS: 403},
    ),
    Operation(
        "POST /v1/query",
        "query",
        200,
        {
            "body.query": "text",
            "body.collections.0": "collection name",
            "body.filter.key": "attribute key",
            "body.filter.value": "attribute value",
        },
        {"body": {"collections": [""], "top_k": 100, "filter": {"op": "eq"}}},
    ),
    Operation(
        "POST /v1/query",
        "query",
        200,
        {"body.query": "text", "body.collections.0": "collection name", "body.filter.key": "number key"},
        {"body": {"collections": [""], "filter": {"op": "gte", "value": 1}}},
        variant="number",
    ),
    Operation("POST /v1/collections", "ingest", 201, {"body.name": "new collection name"}, {"body": {"profile": "precise"}}),
    Operation(
        "PATCH /v1/collections/{name}", "ingest", 200, {"path.name": "collection name"}, {"body": {"profile": "economy"}}
    ),
    Operation("GET /v1/profiles", "query", 200),
    Operation("GET /v1/collections", "query", 200, _PAGED),
    Operation("GET /v1/usage", "manage", 200),
    Operation("POST /v1/admin/tenants", "operate", 201, {"body.name": "new tenant name"}, {"body": {"monthly_tokens": 5}}),
    Operation("GET /v1/admin/tenants", "operate", 200, _PAGED),
    Operation("GET /v1/admin/tenants/{tenant}", "operate", 200, _TENANT),
    Operation("PATCH /v1/admin/tenants/{tenant}", "operate", 200, _TENANT, {"body": {"monthly_tokens": 7}}),
    Operation(
        "POST /v1/admin/tenants/{tenant}/tokens",
        "operate",
        201,
        _TENANT,
        {"body": {"scopes": ["query"], "lifetime_seconds": 9}},
    ),
    Operation("GET /v1/admin/tenants/{tenant}/collections/{name}/placement", "operate", 200, _PLACED),
    Operation(
        "PUT /v1/admin/tenants/{tenant}/collections/{name}/placement",
        "operate",
        200,
        _PLACED,
        {"body": {"placement": "auto"}},
    ),
    Operation(
        "POST /v1/admin/keys",
        "operate",
        201,
        {"body.tenant": "tenant", "body.name": "key name", "body.collections.0": "bound", "body.labels.0": "label"},
        {"body": {"scopes": ["query"], "collections": [""], "labels": [""]}},
    ),
    Operation("GET /v1/admin/keys", "operate", 200, {"query.tenant": "tenant", **_PAGED}),
    Operation("DELETE /v1/admin/keys/{key_id}", "operate", 200, {"path.key_id": "key"}),
)


def _keyed(operation: Operation) -> Operation:
    """Every POST takes a name under which it is carried out once."""
    if not operation.name.startswith("POST "):
        return operation
    return replace(operation, takes={**operation.takes, "header.Idempotency-Key": "idempotency key"})


OPERATIONS = tuple(map(_keyed, _DECLARED))
