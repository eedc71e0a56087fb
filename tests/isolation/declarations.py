"""What every operation takes and answers: the table that a new operation must join.

An entry says how the operation is called well (`parts`), which scope it needs, what a good call answers, and which of its
places take something by which a caller could name what is not his (`takes`: place → kind). The walk and the probes follow
from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

REFUSED = frozenset({400, 404, 422})


@dataclass(frozen=True, slots=True)
class Kind:
    """What may stand at a place."""

    foreign: int | None  #: status for one that is another tenant's, and for one that nobody has; None: as of a good call
    malformed: frozenset[int] | None = REFUSED  #: statuses for nonsense; None: as of a good call, or a refusal
    like: str | None = None  #: the kind whose values are probed here, where a good call needs another
    bounded: tuple[str, ...] = ()  #: names of bounds of a key outside of which it is 404
    optional: bool = False  #: left out of a good call


BY_COLLECTION, BY_LABELS = "key of other collections", "key of other labels"
BY_SUBJECT = "token of another subject"
BOUNDED_USERS = USER_BY_COLLECTION, USER_BY_LABELS = "user by collection", "user by labels"
_BOTH = (BY_COLLECTION, BY_LABELS)

#: "kind/variant" is looked up as its kind; a good call takes the variant.
KINDS: Mapping[str, Kind] = {
    "document": Kind(404, bounded=_BOTH),
    "job": Kind(404, bounded=_BOTH),
    "passage": Kind(404, bounded=_BOTH),
    "question set": Kind(404, bounded=(BY_COLLECTION,)),
    "new set name": Kind(None, like="set name"),
    "collection name": Kind(404, bounded=(BY_COLLECTION,)),
    "new collection name": Kind(None, like="collection name", bounded=(BY_COLLECTION,)),
    "tenant": Kind(404),
    "new tenant name": Kind(None, like="tenant/name"),
    "key": Kind(404),
    "deletion": Kind(404),
    "passage of attached": Kind(404, bounded=(BY_SUBJECT,)),
    "attached document": Kind(404, bounded=(BY_SUBJECT,)),
    "erasure": Kind(404, bounded=(BY_SUBJECT,)),
    "bound": Kind(None, malformed=None, like="collection name"),  # a key can be made before its collection
    "cursor": Kind(422, malformed=frozenset({422}), optional=True),
    "idempotency key": Kind(None, malformed=None, optional=True),
    "etag": Kind(412, malformed=frozenset({412, 422}), optional=True),
    "earlier job": Kind(404, like="job", bounded=_BOTH),
    "newest job": Kind(None, malformed=None, like="job", optional=True),  # a bound, that is compared and looked up nowhere
    "error code": Kind(None, malformed=None, optional=True),
    "webhook": Kind(404),
    "delivery": Kind(404),
    "wanted collection": Kind(None, malformed=None, like="collection name"),  # a tenant without it is answered as such
    "principal": Kind(None, malformed=None, like="key", optional=True),  # compared with the caller's own entries only
    "session": Kind(404, bounded=(BY_SUBJECT,)),
    "subject in a path": Kind(None, malformed=frozenset({200, 202, *REFUSED}), like="subject"),  # an empty one is no path
    "turn": Kind(404, bounded=(BY_SUBJECT,)),
    "memory": Kind(404, bounded=(BY_SUBJECT,)),
    "session's subject": Kind(404, like="subject", bounded=(BY_SUBJECT,)),  # another subject has no such session
    "path": Kind(None, malformed=None, like="document", optional=True),
    "trace": Kind(404, bounded=(*_BOTH, BY_SUBJECT)),
    "traced subject": Kind(None, malformed=None, like="subject", optional=True),  # of one's own traces only
    "traced session": Kind(None, malformed=None, like="session", optional=True),
    "event": Kind(422, malformed=frozenset({422}), optional=True),
    **{
        kind: Kind(None, malformed=None)
        for kind in (
            *("text", "title", "external id", "source", "label", "key name", "set name", "subject", "tag"),
            *("memory key", "attached external id"),
        )
    },
    **{kind: Kind(None, malformed=None) for kind in ("attribute key", "attribute value", "number key")},
    "file": Kind(404),
    "vector store": Kind(404, bounded=(BY_COLLECTION,)),
    "store file": Kind(404, like="file"),
    "file batch": Kind(404, bounded=(BY_COLLECTION,)),
    "listed after": Kind(None, malformed=None, like="file", optional=True),  # compared, and looked up nowhere
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
_COLLECTION = {"path.name": "collection name"}
_WEBHOOK = {"path.webhook_id": "webhook"}
_WHOLE = {BY_COLLECTION: 403, BY_LABELS: 403}  #: what tells of all documents is told to keys without bounds
_HOOK = {"url": "https://example.com/hook", "events": ["document.*"], "coalesce_seconds": 5}
_DESCRIBED = {"collection": "collection name", "external_id": "external id", "title": "title", "source": "source"}

_STORE = {"path.vector_store_id": "vector store"}
_STORE_FILE = {**_STORE, "path.file_id": "store file"}
_BATCH = {**_STORE, "path.batch_id": "file batch"}
_LISTED = {"query.after": "listed after", "query.before": "listed after"}
_ORDERED = {"query": {"order": "asc"}}
_FILTERED = {"query": {"order": "asc", "filter": "completed"}}
_STATIC = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}}
_STAFF = {"labels": []}
_TELLS_ALL = {BY_COLLECTION: 403, BY_LABELS: 403}

_ANOTHERS = {BY_SUBJECT: 403}  #: who speaks for a subject names no other
_SESSION = {"path.session_id": "session"}
_BOUNDS = {
    **{"idle_ttl_seconds": 10**6, "absolute_ttl_seconds": 10**7, "max_turns": 1000, "max_tokens": 10**6},
    **{"when_full": "archive", "budget_tokens": 10**6, "budget_micro_usd": None},
}
_RECALL = {
    **{"top_k": 5, "neighbours": 1, "roles": ["user", "assistant"], "times": "boost", "recency": 0.1, "mode": "hybrid"},
    **{"said_after": "2020-01-01T00:00:00Z", "said_before": "2100-01-01T00:00:00Z", "asked_at": "2026-03-10T12:00:00Z"},
    "explain": True,
}
_SESSIONS: tuple[Operation, ...] = (
    Operation(
        "POST /v1/sessions",
        "converse",
        201,
        {"body.subject": "subject", "body.title": "title", "body.tags.0": "tag", "body.metadata.of": "text"},
        {"body": {"tags": [""], **_BOUNDS}},
        but=_ANOTHERS,
    ),
    Operation(
        "GET /v1/sessions",
        "query",
        200,
        {"query.subject": "subject", "query.tag": "tag", **_PAGED},
        {"query": {"state": "open"}},
        but=_ANOTHERS,
    ),
    Operation("GET /v1/sessions", "query", 200, {"query.tag": "tag"}, variant="of all subjects"),
    Operation("GET /v1/sessions/{session_id}", "query", 200, _SESSION),
    Operation(
        "PATCH /v1/sessions/{session_id}",
        "converse",
        200,
        {**_SESSION, "body.title": "title", "body.tags.0": "tag", "body.metadata.of": "text"},
        {"body": {"tags": [""]}},
    ),
    Operation(
        "PATCH /v1/sessions/{session_id}",
        "converse",
        200,
        _SESSION,
        {"body": _BOUNDS},
        but=dict.fromkeys(("subject token", *BOUNDED_USERS), 403),
        variant="bounds",
    ),
    Operation(
        "POST /v1/sessions/{session_id}/turns",
        "converse",
        201,
        {
            **_SESSION,
            "body.turns.0.content": "text",
            "body.turns.0.speaker": "title",
            "body.turns.0.metadata.of": "text",
            "body.turns.0.files.0": "attached document",
            "body.turns.0.idempotency_key": "idempotency key",
        },
        {"body": {"turns": [{"files": [""], "role": "user", "tool_calls": [{"id": "1"}], "said_at": "2026-03-10T12:00:00Z"}]}},
    ),
    Operation("GET /v1/sessions/{session_id}/turns", "query", 200, {**_SESSION, **_PAGED}, {"query": {"order": "newest"}}),
    Operation("GET /v1/sessions/{session_id}/turns/{turn_id}", "query", 200, {**_SESSION, "path.turn_id": "turn"}),
    Operation("POST /v1/sessions/{session_id}/recall", "query", 200, {**_SESSION, "body.query": "text"}, {"body": _RECALL}),
    Operation(
        "POST /v1/recall",
        "query",
        200,
        {"body.query": "text", "body.subject": "subject", "body.tags.0": "tag"},
        {"body": {**_RECALL, "tags": [""]}},
        but=_ANOTHERS,
    ),
    Operation("POST /v1/sessions/{session_id}/close", "converse", 200, _SESSION),
    Operation("POST /v1/sessions/{session_id}/archive", "converse", 200, _SESSION),
    Operation("POST /v1/sessions/{session_id}/resume", "converse", 200, _SESSION),
    Operation("POST /v1/sessions/{session_id}/fork", "converse", 201, {**_SESSION, "body.turn_id": "turn"}),
    Operation("POST /v1/sessions/{session_id}/pins", "converse", 201, _SESSION, {"body": {"seq": 2}}),
    Operation("GET /v1/sessions/{session_id}/pins", "query", 200, _SESSION),
    Operation("DELETE /v1/sessions/{session_id}/pins/{seq}", "converse", 200, _SESSION, {"path": {"seq": "1"}}),
    Operation(
        "POST /v1/context",
        "query",
        200,
        {
            "body.session": "session",
            "body.message": "text",
            "body.pins.0": "title",
            "body.collections.0": "collection name",
        },
        {
            "body": {
                **{"pins": [""], "collections": [""], "top_k": 100, "max_tokens": 100_000, "strategy": "hybrid"},
                **{"memories": True, "newest_turns": 1, "recall_top_k": 50, "knowledge": "system"},
                "shares": {"recent": 0.1, "summary": 0.1, "memories": 0.3, "documents": 0.3, "recalled": 0.2},
            }
        },
        variant="of a session",
    ),
)

_MEMORY = {"path.memory_id": "memory"}
_TIMES = {"as_of": "2020-01-01T00:00:00Z", "valid_at": "2020-01-01T00:00:00Z"}
_SPAN = {"valid_from": "2026-01-01T00:00:00Z", "valid_to": "2099-01-01T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z"}
_MEMORIES: tuple[Operation, ...] = (
    Operation(
        "POST /v1/memories",
        "converse",
        201,
        {
            "body.subject": "subject",
            "body.agent": "title",
            "body.memories.0.text": "text",
            "body.memories.0.key": "memory key",
            "body.memories.0.tags.0": "tag",
            "body.memories.0.reason": "title",
            "body.memories.0.sources.0.document_id": "document",
        },
        {"body": {"memories": [{"tags": [""], "metadata": {"a": 1}, "sources": [{}], **_SPAN}]}},
        but=_ANOTHERS,
    ),
    Operation(
        "POST /v1/memories",
        "converse",
        201,
        {
            "body.subject": "session's subject",
            "body.session_id": "session",
            "body.memories.0.text": "text",
            "body.memories.0.sources.0.session_id": "session",
        },
        {"body": {"memories": [{"sources": [{}]}]}},
        variant="of a session",
        but=_ANOTHERS,
    ),
    Operation(
        "POST /v1/memories",
        "converse",
        201,
        {"body.subject": "session's subject", "body.messages.0.content": "text", "body.messages.0.session_id": "session"},
        {"body": {"messages": [{"role": "user"}], "extract": "verbatim"}},
        variant="messages",
        but=_ANOTHERS,
    ),
    Operation(
        "GET /v1/memories",
        "query",
        200,
        {"query.subject": "subject", **_PAGED},
        {"query": {"everything": "true", "valid_at": _TIMES["valid_at"]}},
        but=_ANOTHERS,
    ),
    Operation(
        "GET /v1/memories",
        "query",
        200,
        {"query.agent": "title", "query.session_id": "bound", "query.key": "memory key", "query.tag": "tag"},
        {"query": _TIMES},
        variant="some",
    ),
    Operation(
        "POST /v1/memories/search",
        "query",
        200,
        {"body.query": "text", "body.subject": "subject"},
        {"body": {"everything": True, "limit": 100}},
        but=_ANOTHERS,
    ),
    Operation(
        "POST /v1/memories/search",
        "query",
        200,
        {
            **{"body.query": "text", "body.subject": "subject", "body.agent": "title", "body.session_id": "bound"},
            **{"body.key": "memory key", "body.tag": "tag"},
        },
        {"body": {**_TIMES, "everything": False}},
        variant="some",
        but=_ANOTHERS,
    ),
    Operation("GET /v1/memories/{memory_id}", "query", 200, _MEMORY),
    Operation(
        "GET /v1/memories/{memory_id}",
        "query",
        404,
        _MEMORY,
        {"query": {"as_of": _TIMES["as_of"]}},
        variant="before it was known",
    ),
    Operation("GET /v1/memories/{memory_id}/history", "query", 200, {**_MEMORY, **_PAGED}),
    Operation(
        "PATCH /v1/memories/{memory_id}",
        "converse",
        200,
        {
            **_MEMORY,
            "body.text": "text",
            "body.key": "memory key",
            "body.tags.0": "tag",
            "body.reason": "title",
            "body.sources.0.document_id": "document",
        },
        {"body": {"tags": [""], "metadata": {}, "sources": [{}], **_SPAN}},
    ),
    Operation("DELETE /v1/memories/{memory_id}", "converse", 200, {**_MEMORY, "query.reason": "title"}),
)

_TRACE = {"path.trace_id": "trace"}
_TRACES = {"query.subject": "traced subject", "query.session_id": "traced session"}
_LONG = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
_OTHERWISE = {"profile": "precise", "tuned": True, "as_of": None, "fresh_vector": False}
_AUDIT = {"query.principal": "principal", "query.target": "path"}
_AUDIT_PARTS = {
    "query": {
        **{"action": "POST /v1/documents", "decision": "allowed"},  # of which each tenant has several: the list goes on
        **{"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"},
    }
}

_OF_SESSION = {"path.session_id": "session"}
_ATTACHED = {**_OF_SESSION, "path.document_id": "attached document"}
#: What is attached to sessions, and their end.
_BELONGINGS: tuple[Operation, ...] = (
    Operation(
        "POST /v1/sessions/{session_id}/documents",
        "converse",
        202,
        {
            **_OF_SESSION,
            **{"body.text": "text", "body.external_id": "attached external id", "body.title": "title", "body.source": "source"},
            **{"body.attributes.kind": "attribute value", "body.labels.0": "label", "header.If-Match": "etag"},
        },
        {"body": {"format": "markdown", "labels": [""]}},
        but={BY_LABELS: 403},
    ),
    Operation(
        "POST /v1/sessions/{session_id}/documents",
        "converse",
        202,
        {**_OF_SESSION, "body.text": "text", "body.after.0": "earlier job"},
        {"body": {"collection": "default", "external_id": "new", "after": [""], "after_policy": "any_end"}},
        variant="after",
    ),
    Operation(
        "POST /v1/sessions/{session_id}/documents",
        "converse",
        202,
        {
            **_OF_SESSION,
            **{f"form.{name}": kind for name, kind in (("file", "text"), ("external_id", "external id"), ("title", "title"))},
            "form.source": "source",
        },
        {
            "form": {"collection": "default", "attributes": "{}", "labels": "[]", "after": "[]", "after_policy": "any_end"},
            "header": {"If-None-Match": "*"},
        },
        variant="form",
    ),
    Operation(
        "POST /v1/sessions/{session_id}/documents",
        "converse",
        202,
        {**_OF_SESSION, "body.external_id": "external id"},
        {"body": {"url": "http://localhost/"}},
        variant="url",
    ),
    Operation("GET /v1/sessions/{session_id}/documents", "query", 200, {**_OF_SESSION, **_PAGED}),
    Operation("GET /v1/sessions/{session_id}/documents/{document_id}", "query", 200, _ATTACHED),
    Operation("GET /v1/sessions/{session_id}/documents/{document_id}/text", "query", 200, _ATTACHED),
    Operation(
        "DELETE /v1/sessions/{session_id}/documents/{document_id}",
        "converse",
        200,
        {**_ATTACHED, "header.If-Match": "etag"},
    ),
    Operation(
        "POST /v1/sessions/{session_id}/promote",
        "ingest",
        202,
        {**_OF_SESSION, "body.collection": "new collection name", "body.documents.0": "attached document"},
        {"body": {"documents": [""], "turns": False}},
    ),
    Operation("GET /v1/sessions/{session_id}/export", "query", 200, _OF_SESSION),
    Operation("GET /v1/subjects/{subject}/export", "query", 200, {"path.subject": "subject in a path"}, but=_ANOTHERS),
    Operation("DELETE /v1/sessions/{session_id}", "converse", 202, _OF_SESSION),
    Operation("DELETE /v1/subjects/{subject}", "converse", 202, {"path.subject": "subject in a path"}, but=_ANOTHERS),
    Operation("POST /v1/erasures", "converse", 202, {"body.subject": "subject"}, but=_ANOTHERS),
    Operation("GET /v1/erasures/{erasure_id}", "query", 200, {"path.erasure_id": "erasure"}),
    Operation(
        "POST /v1/query",
        "query",
        200,
        {"body.query": "text", "body.session": "session"},
        {"body": {"collections": []}},
        variant="session",
    ),
    Operation(
        "POST /v1/context",
        "query",
        200,
        {"body.query": "text", "body.session": "session"},
        {"body": {"collections": []}},
        variant="session",
    ),
)

_ARGUMENTS = "body.params.arguments"


def _tool(name: str) -> Mapping[str, Any]:
    filters = {"filters": {"op": "ne"}} if name == "knowledge_search" else {}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": filters}}
    return {"header": {"accept": "application/json, text/event-stream"}, "body": call}


_DECLARED: tuple[Operation, ...] = (
    *_BELONGINGS,
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
            "header.If-Match": "etag",
        },
        {"body": {"format": "markdown", "labels": [""]}},
        but={BY_LABELS: 403},
    ),
    Operation(
        "POST /v1/documents",
        "ingest",
        202,
        {"body.text": "text", "body.collection": "collection name", "body.labels.0": "label", "body.after.0": "earlier job"},
        {"body": {"labels": [""], "external_id": "new", "after": [""], "after_policy": "any_end"}},
        but={BY_LABELS: 403},
        variant="after",
    ),
    Operation(
        "POST /v1/documents",
        "ingest",
        202,
        {"body.text": "text", "body.collection": "collection name", "body.labels.0": "label"},
        {"body": {"labels": [""], "external_id": "new"}, "header": {"If-None-Match": "*"}},
        but={BY_LABELS: 403},
        variant="create only",
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
        {"form": {"attributes": '{"year": 2026}', "labels": "[]", "after": "[]", "after_policy": "any_end"}},
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
    Operation(
        "POST /v1/bulk",
        "ingest",
        202,
        {
            "line.text": "text",
            **{f"line.{name}": kind for name, kind in _DESCRIBED.items()},
            "line.attributes.kind": "attribute value",
            "line.labels.0": "label",
        },
        {
            "line": {"format": "markdown", "labels": [""], "after": [], "after_policy": "any_end"},
            "query": {"max_errors": "5", "new_documents": "1", "new_bytes": "1"},
        },
        but={BY_LABELS: 403},
    ),
    Operation(  # its job is refused: no test fetches anything from outside
        "POST /v1/bulk",
        "ingest",
        202,
        {**{f"line.{name}": kind for name, kind in _DESCRIBED.items()}, "line.labels.0": "label"},
        {"line": {"url": "http://localhost/", "labels": [""]}, "query": {"max_errors": "5"}},
        but={BY_LABELS: 403},
        variant="url",
    ),
    Operation("GET /v1/documents", "query", 200, {"query.collection": "collection name", **_PAGED}),
    Operation(
        "GET /v1/documents",
        "query",
        200,
        {"query.collection": "collection name", "query.external_id": "external id"},
        variant="by external id",
    ),
    Operation("GET /v1/documents/{document_id}", "query", 200, _DOCUMENT),
    Operation("GET /v1/documents/{document_id}/text", "query", 200, _DOCUMENT),
    Operation(
        "DELETE /v1/documents/{document_id}",
        "ingest",
        200,
        {**_DOCUMENT, "header.If-Match": "etag", "query.after_job": "earlier job"},
        {"query": {"after_policy": "any_end"}},
    ),
    Operation(
        "GET /v1/jobs",
        "query",
        200,
        {"query.collection": "collection name", "query.error": "error code", **_PAGED},
        {"query": {"state": "queued"}},
    ),
    Operation(
        "GET /v1/jobs", "query", 200, {"query.collection": "collection name"}, {"query": {"dead": "true"}}, variant="dead"
    ),
    Operation(
        "POST /v1/jobs/retry",
        "ingest",
        200,
        {"body.collection": "collection name", "body.error": "error code", "body.through": "newest job"},
        {"body": {"limit": 1}},
    ),
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
    Operation(
        "POST /v1/query",
        "query",
        200,
        {
            "body.query": "text",
            "body.queries.0": "title",
            "body.collections.0": "collection name",
            "body.boosts.0.filter.key": "attribute key",
            "body.boosts.0.filter.value": "attribute value",
        },
        {
            "body": {
                "queries": [""],
                "collections": [""],
                "top_k": 100,
                "boosts": [{"filter": {"op": "eq"}, "weight": 0.1}],
                "recency": {"weight": 0.1},
                "diversity": {"collapse": True, "per_document": 2, "mmr": 0.5},
                "expand": {"before": 1, "after": 1},
                "group_by": "document",
                "group_size": 2,
                "rerank": True,
                "rewrite": {"mode": "none"},
                "min_relevance": None,
                "dense_weight": 0.5,
                # By words, which passages there are depends on the question.
                **{"tuned": True, "mode": "hybrid", "explain": True, "as_of": None},
            }
        },
        variant="arranged",
    ),
    Operation(
        "POST /v1/context",
        "query",
        200,
        {
            "body.query": "text",
            "body.queries.0": "title",
            "body.collections.0": "collection name",
            "body.filter.key": "attribute key",
            "body.filter.value": "attribute value",
        },
        {
            "body": {
                **{"queries": [""], "collections": [""], "top_k": 100, "filter": {"op": "eq"}, "max_tokens": 100_000},
                **{"tokenizer": "cl100k_base", "expand": {"after": 1}, "diversity": {}, "boosts": [], "recency": None},
                **{
                    "group_by": None,
                    "group_size": 3,
                    "rerank": False,
                    "rewrite": "none",
                    "min_relevance": None,
                    "dense_weight": None,
                    "tuned": False,
                    "mode": "dense",
                    "explain": True,
                    "as_of": None,
                },
            }
        },
    ),
    Operation(
        "GET /v1/passages/{passage_id}",
        "query",
        200,
        {"path.passage_id": "passage"},
        {"query": {"around": "100", "version": "1"}},
    ),
    Operation(
        "GET /v1/passages/{passage_id}",
        "query",
        200,
        {"path.passage_id": "passage of attached", "query.session": "session"},
        variant="of a session",
    ),
    Operation(
        "POST /v1/collections",
        "ingest",
        201,
        {"body.name": "new collection name"},
        {
            "body": {
                "profile": "precise",
                "near_duplicates": "skip",
                "near_threshold": 0.95,
                "semantic_cache": True,
                "semantic_threshold": 0.9,
                "keep_versions_days": 30,
                "attributes": {"year": "number", "published": "datetime"},
            }
        },
    ),
    Operation(
        "PATCH /v1/collections/{name}",
        "ingest",
        200,
        {"path.name": "collection name"},
        {
            "body": {
                "profile": "economy",
                "near_duplicates": "link",
                "near_threshold": 0.8,
                "semantic_cache": False,
                "semantic_threshold": 1,
                "keep_versions_days": 0,
                "attributes": {"height": "number"},
            }
        },
    ),
    Operation(
        "POST /v1/feedback",
        "query",
        201,
        {"body.query": "text", "body.passage_id": "passage", "body.comment": "title", "body.subject": "subject"},
        {"body": {"useful": True, "rating": 4}},
        but=_ANOTHERS,
    ),
    Operation(
        "POST /v1/feedback",
        "query",
        201,
        {"body.query": "text", "body.document_id": "document"},
        {"body": {"useful": False}},
        variant="document",
    ),
    Operation(
        "GET /v1/feedback",
        "manage",
        200,
        {"query.collection": "collection name", **_PAGED},
        but={BY_COLLECTION: 403, BY_LABELS: 403},
    ),
    Operation("GET /v1/collections/{name}/tuning", "query", 200, _COLLECTION, but={BY_LABELS: 403}),
    Operation(
        "PUT /v1/collections/{name}/tuning",
        "ingest",
        200,
        {
            **_COLLECTION,
            "body.parameters.boosts.0.filter.key": "attribute key",
            "body.parameters.boosts.0.filter.value": "attribute value",
        },
        {
            "body": {
                "parameters": {"dense_weight": 0.5, "boosts": [{"filter": {"op": "eq"}, "weight": 0.1}], "recency": None},
                "figures": {"questions": 30, "ndcg10_before": 0.5, "ndcg10_after": 0.6, "p": 0.01},
                "replaces": 1,
            }
        },
        but={BY_LABELS: 403},
    ),
    Operation(
        "DELETE /v1/collections/{name}/tuning",
        "ingest",
        200,
        _COLLECTION,
        {"query": {"version": "1"}},
        but={BY_LABELS: 403},
    ),
    Operation("GET /v1/traces", "query", 200, {**_TRACES, **_PAGED}, {"query": {"kind": "query", **_LONG}}),
    Operation("GET /v1/traces/{trace_id}", "query", 200, _TRACE),
    Operation(
        "POST /v1/traces/{trace_id}/replay",
        "query",
        200,
        {**_TRACE, "body.collections.0": "collection name"},
        {"body": {"collections": [""], **_OTHERWISE}},
    ),
    *(
        Operation(
            "POST /v1/traces/{trace_id}/replay",
            "query",
            200,
            {"path.trace_id": f"trace/{of}"},
            {"body": {"as_of": "now", "fresh_vector": True}},
            variant=of,
        )
        for of in ("of a session", "of a recall")
    ),
    Operation(
        "POST /v1/traces/replay",
        "query",
        200,
        {"body.session_id": "traced session", "body.subject": "traced subject", "body.collections.0": "collection name"},
        {"body": {"collections": [""], "last": 10, "kind": "query", **_OTHERWISE}},
    ),
    Operation("DELETE /v1/collections/{name}", "ingest", 200, {"path.name": "collection name/empty"}),
    Operation(
        "POST /v1/question-sets",
        "ingest",
        201,
        {"body.name": "new set name", "body.collection": "collection name", "body.questions.0.text": "text"},
        {"body": {"questions": [{"text": "", "relevant": {"a document": 1}}]}},
        but={BY_LABELS: 403},
    ),
    Operation("GET /v1/question-sets", "query", 200, {"query.collection": "collection name", **_PAGED}, but={BY_LABELS: 403}),
    Operation("GET /v1/question-sets/{set_id}", "query", 200, {"path.set_id": "question set"}, but={BY_LABELS: 403}),
    Operation("DELETE /v1/question-sets/{set_id}", "ingest", 200, {"path.set_id": "question set"}, but={BY_LABELS: 403}),
    *_SESSIONS,
    *_MEMORIES,
    Operation("GET /v1/profiles", "query", 200),
    Operation("GET /v1/collections", "query", 200, _PAGED),
    Operation("GET /v1/usage", "manage", 200),
    Operation("POST /v1/webhooks", "manage", 201, {"body.description": "title"}, {"body": _HOOK}, but=_WHOLE),
    Operation("GET /v1/webhooks", "manage", 200, _PAGED, but=_WHOLE),
    Operation("GET /v1/webhooks/{webhook_id}", "manage", 200, _WEBHOOK, but=_WHOLE),
    Operation(
        "PATCH /v1/webhooks/{webhook_id}",
        "manage",
        200,
        {**_WEBHOOK, "body.description": "title"},
        {"body": {**_HOOK, "enabled": True}},
        but=_WHOLE,
    ),
    Operation("DELETE /v1/webhooks/{webhook_id}", "manage", 200, _WEBHOOK, but=_WHOLE),
    Operation("POST /v1/webhooks/{webhook_id}/rotate", "manage", 200, _WEBHOOK, {"body": {"overlap_hours": 1}}, but=_WHOLE),
    Operation("POST /v1/webhooks/{webhook_id}/test", "manage", 202, _WEBHOOK, but=_WHOLE),
    Operation(
        "POST /v1/webhooks/{webhook_id}/replay",
        "manage",
        202,
        _WEBHOOK,
        {"body": {"since": "2026-01-01T00:00:00Z", "until": None}},
        but=_WHOLE,
    ),
    Operation(
        "GET /v1/webhooks/{webhook_id}/deliveries",
        "manage",
        200,
        {**_WEBHOOK, **_PAGED},
        {"query": {"state": "pending"}},
        but=_WHOLE,
    ),
    Operation(
        "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
        "manage",
        202,
        {**_WEBHOOK, "path.delivery_id": "delivery"},
        but=_WHOLE,
    ),
    Operation(
        "POST /v1/admin/tenants",
        "operate",
        201,
        {"body.name": "new tenant name", "body.metadata.kind": "text"},
        {"body": {"monthly_tokens": 5, "plan": "starter"}},
    ),
    Operation("PUT /v1/admin/tenants", "operate", 200, parts={"body": {"csv": "name,plan\nimported,starter\n"}}),
    Operation("PUT /v1/admin/tenants/{tenant}/suspension", "operate", 200, _TENANT, {"body": {"reads": True}}),
    Operation("DELETE /v1/admin/tenants/{tenant}/suspension", "operate", 200, _TENANT),
    Operation("GET /v1/admin/tenants/{tenant}/limits", "operate", 200, _TENANT),
    Operation(
        "PUT /v1/admin/tenants/{tenant}/limits/{limit}",
        "operate",
        200,
        {**_TENANT, "body.reason": "text"},
        {"path": {"limit": "documents"}, "body": {"value": 10**6, "expires_at": "2100-01-01T00:00:00Z"}},
    ),
    Operation("DELETE /v1/admin/tenants/{tenant}/limits/{limit}", "operate", 200, _TENANT, {"path": {"limit": "documents"}}),
    Operation("DELETE /v1/admin/tenants/{tenant}", "operate", 202, _TENANT),
    Operation("GET /v1/admin/deletions", "operate", 200, _PAGED),
    Operation("GET /v1/admin/deletions/{deletion_id}", "operate", 200, {"path.deletion_id": "deletion"}),
    Operation("GET /v1/admin/plans", "operate", 200),
    Operation("GET /v1/usage", "manage", 200, parts={"query": {"group_by": "key"}}, but=_TELLS_ALL, variant="by key"),
    Operation("GET /v1/usage", "manage", 200, parts={"query": {"from": "2026-01-01", "to": "2026-12-31"}}, variant="of days"),
    Operation("GET /v1/usage/export", "manage", 200, parts={"query": {"month": "2026-11"}}, but=_TELLS_ALL),
    Operation(
        "GET /v1/usage/export",
        "manage",
        200,
        parts={"query": {"month": "2026-11", "format": "json"}},
        but=_TELLS_ALL,
        variant="as json",
    ),
    Operation("GET /v1/admin/tenants/{tenant}/budgets", "operate", 200, _TENANT),
    Operation(
        "PUT /v1/admin/tenants/{tenant}/budgets/{kind}/{span}",
        "operate",
        200,
        _TENANT,
        {"path": {"kind": "embedding", "span": "day"}, "body": {"tokens": 10**9, "soft": False, "reason": "a test"}},
    ),
    Operation(
        "PUT /v1/admin/tenants/{tenant}/budgets/{kind}/{span}",
        "operate",
        200,
        _TENANT,
        {"path": {"kind": "llm", "span": "month"}, "body": {"micro_usd": 10**9, "until": "2099-01-01T00:00:00Z"}},
        variant="until",
    ),
    Operation("GET /v1/audit", "manage", 200, {**_AUDIT, **_PAGED}, _AUDIT_PARTS, but={BY_COLLECTION: 403, BY_LABELS: 403}),
    Operation(
        "GET /v1/audit/export",
        "manage",
        200,
        parts={"query": {"from_position": "1"}},
        but={BY_COLLECTION: 403, BY_LABELS: 403},
    ),
    Operation("GET /v1/admin/audit", "operate", 200, {"query.tenant": "tenant", **_AUDIT, **_PAGED}, _AUDIT_PARTS),
    Operation("GET /v1/admin/audit/export", "operate", 200, {"query.tenant": "tenant"}, {"query": {"from_position": "1"}}),
    Operation(
        "POST /v1/admin/search",
        "operate",
        200,
        {
            "body.tenants.0": "tenant",
            "body.query": "text",
            "body.collections.0": "wanted collection",
            "body.filter.key": "attribute key",
            "body.filter.value": "attribute value",
        },
        {"body": {"tenants": [""], "reason": "a test", "collections": [""], "filter": {"op": "eq"}, "top_k": 5}},
    ),
    Operation("GET /v1/admin/statistics", "operate", 200, parts={"query": {"hours": "24"}}),
    Operation("GET /v1/admin/noisiest", "operate", 200, parts={"query": {"by": "failed", "hours": "24", "top": "3"}}),
    Operation(
        "POST /v1/tokens",
        "query",
        201,
        {"body.subject": "subject", "body.collections.0": "bound", "body.labels.0": "label"},
        {"body": {"scopes": ["query"], "collections": [""], "labels": [""], "read_only": False, "lifetime_seconds": 9}},
        # A token is made with a key, and allows nothing that the key does not.
        but={
            **dict.fromkeys((BY_COLLECTION, BY_LABELS, "subject token", "token of another tenant"), 403),
            **dict.fromkeys(("query token", "full token", BY_SUBJECT), 403),
        },
    ),
    *(
        Operation(
            "POST /mcp/",
            "query",
            200,
            {f"{_ARGUMENTS}.{name}": kind for name, kind in takes.items()},
            _tool(tool),
            variant=variant,
        )
        for tool, variant, takes in (
            ("search", "search", {"query": "text"}),
            ("fetch", "fetch document", {"id": "document"}),
            ("fetch", "fetch passage", {"id": "passage"}),
            (
                "knowledge_search",
                "knowledge_search",
                {
                    "query": "text",
                    "collection": "collection name",
                    "filters.key": "attribute key",
                    "filters.value": "attribute value",
                },
            ),
            ("list_collections", "list_collections", {}),
        )
    ),
    Operation(
        "POST /mcp/",
        "query",
        200,
        {f"{_ARGUMENTS}.query": "text", f"{_ARGUMENTS}.subject": "subject"},
        _tool("memory_search"),
        variant="memory_search",
        but=_ANOTHERS,
    ),
    Operation(
        "POST /mcp/",
        "query",
        200,
        {f"{_ARGUMENTS}.text": "text", f"{_ARGUMENTS}.subject": "subject", f"{_ARGUMENTS}.key": "memory key"},
        _tool("memory_add"),
        variant="memory_add",
        but={**_ANOTHERS, **dict.fromkeys(("query key", "query token", "read-only key"), 403)},
    ),
    Operation(
        "POST /retrieval",
        "query",
        200,
        {
            **{"body.knowledge_id": "collection name", "body.query": "text"},
            "body.metadata_condition.conditions.0.name": "attribute key",
            "body.metadata_condition.conditions.0.value": "attribute value",
        },
        {
            "body": {
                "retrieval_setting": {"top_k": 3, "score_threshold": 0},
                "metadata_condition": {"conditions": [{"comparison_operator": "is not"}]},
            }
        },
    ),
    Operation("GET /v1/admin/tenants", "operate", 200, _PAGED),
    Operation(
        "POST /v1/files",
        "ingest",
        200,
        {"form.file": "text"},
        {"form": {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}},
        but=_WHOLE,
    ),
    Operation(
        "GET /v1/files",
        "query",
        200,
        {"query.after": "listed after"},
        {"query": {"order": "asc", "purpose": "user_data"}},
        but=_WHOLE,
    ),
    Operation("GET /v1/files/{file_id}", "query", 200, {"path.file_id": "file"}, but=_WHOLE),
    Operation("GET /v1/files/{file_id}/content", "query", 200, {"path.file_id": "file"}, but=_WHOLE),
    Operation("DELETE /v1/files/{file_id}", "ingest", 200, {"path.file_id": "file"}, but=_WHOLE),
    Operation(
        "POST /v1/vector_stores",
        "ingest",
        200,
        {"body.name": "title", "body.description": "text", "body.file_ids.0": "file", "body.metadata.kind": "attribute value"},
        {
            "body": {
                **{"file_ids": [""], "metadata": {}, "expires_after": {"anchor": "last_active_at", "days": 3}},
                **{"chunking_strategy": _STATIC, "carrel": {"profile": "precise"}},
            }
        },
        but=_WHOLE,
    ),
    Operation("GET /v1/vector_stores", "query", 200, _LISTED, _ORDERED),
    Operation("GET /v1/vector_stores/{vector_store_id}", "query", 200, _STORE),
    Operation(
        "POST /v1/vector_stores/{vector_store_id}",
        "ingest",
        200,
        {**_STORE, "body.name": "title", "body.metadata.kind": "attribute value"},
        {"body": {"metadata": {}, "expires_after": None}},
        but=_WHOLE,
    ),
    Operation("DELETE /v1/vector_stores/{vector_store_id}", "ingest", 200, _STORE, but=_WHOLE),
    Operation(
        "POST /v1/vector_stores/{vector_store_id}/search",
        "query",
        200,
        {
            **_STORE,
            "body.query": "text",
            "body.filters.key": "attribute key",
            "body.filters.value": "attribute value",
        },
        {
            "body": {
                **{"filters": {"type": "eq"}, "max_num_results": 50, "rewrite_query": True},
                **{"ranking_options": {"ranker": "none", "score_threshold": 0.0}, "carrel": {"mode": "dense"}},
            }
        },
    ),
    Operation(
        "POST /v1/vector_stores/{vector_store_id}/files",
        "ingest",
        200,
        {**_STORE, "body.file_id": "file", "body.attributes.kind": "attribute value"},
        {"body": {"attributes": {}, "chunking_strategy": _STATIC, "carrel": _STAFF}},
        but=_WHOLE,
    ),
    Operation("GET /v1/vector_stores/{vector_store_id}/files", "query", 200, {**_STORE, **_LISTED}, _FILTERED),
    Operation("GET /v1/vector_stores/{vector_store_id}/files/{file_id}", "query", 200, _STORE_FILE),
    Operation(
        "POST /v1/vector_stores/{vector_store_id}/files/{file_id}",
        "ingest",
        200,
        {**_STORE_FILE, "body.attributes.kind": "attribute value"},
        {"body": {"attributes": {}}},
        but=_WHOLE,
    ),
    Operation("DELETE /v1/vector_stores/{vector_store_id}/files/{file_id}", "ingest", 200, _STORE_FILE, but=_WHOLE),
    Operation("GET /v1/vector_stores/{vector_store_id}/files/{file_id}/content", "query", 200, _STORE_FILE),
    Operation(
        "POST /v1/vector_stores/{vector_store_id}/file_batches",
        "ingest",
        200,
        {**_STORE, "body.file_ids.0": "file", "body.attributes.kind": "attribute value"},
        {"body": {"file_ids": [""], "attributes": {}, "chunking_strategy": {"type": "auto"}, "carrel": _STAFF}},
        but=_WHOLE,
    ),
    Operation(
        "POST /v1/vector_stores/{vector_store_id}/file_batches",
        "ingest",
        200,
        {**_STORE, "body.files.0.file_id": "file"},
        {"body": {"files": [{"attributes": {"year": 2026}}]}},
        but=_WHOLE,
        variant="one by one",
    ),
    Operation("GET /v1/vector_stores/{vector_store_id}/file_batches/{batch_id}", "query", 200, _BATCH),
    Operation("POST /v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", "ingest", 200, _BATCH, but=_WHOLE),
    Operation(
        "GET /v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/files",
        "query",
        200,
        {**_BATCH, **_LISTED},
        _FILTERED,
    ),
    Operation(
        "POST /v1/embeddings",
        "query",
        200,
        {"body.input": "text", "body.user": "subject"},
        {"body": {"model": "hash", "dimensions": 256, "encoding_format": "base64", "carrel": {"truncate": True}}},
    ),
    Operation("GET /v1/models", "query", 200),
    Operation("GET /v1/models/{model}", "query", 200, parts={"path": {"model": "hash"}}),
    Operation("GET /v1/admin/tenants/{tenant}", "operate", 200, _TENANT),
    Operation(
        "PATCH /v1/admin/tenants/{tenant}",
        "operate",
        200,
        _TENANT,
        {"body": {"monthly_tokens": 7, "plan": None, "metadata": {}}},
    ),
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
        {
            "body": {
                **{"scopes": ["query"], "collections": [""], "labels": [""], "read_only": True},
                **{"expires_at": "2099-01-01T00:00:00Z", "allowed_addresses": ["192.0.2.0/24"]},
            }
        },
    ),
    Operation("GET /v1/admin/keys", "operate", 200, {"query.tenant": "tenant", **_PAGED}),
    Operation("GET /v1/admin/keys/{key_id}", "operate", 200, {"path.key_id": "key"}),
    Operation(
        "POST /v1/admin/keys/{key_id}/rotate",
        "operate",
        201,
        {"path.key_id": "key"},
        {"body": {"overlap_seconds": 3600}},
    ),
    Operation("DELETE /v1/admin/keys/{key_id}", "operate", 200, {"path.key_id": "key"}),
)


def _keyed(operation: Operation) -> Operation:
    """Every POST takes a name under which it is carried out once, but for streams."""
    if not operation.name.startswith("POST ") or "line" in operation.parts:
        return operation
    return replace(operation, takes={**operation.takes, "header.Idempotency-Key": "idempotency key"})


OPERATIONS = tuple(map(_keyed, _DECLARED))
