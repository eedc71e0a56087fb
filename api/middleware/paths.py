"""What a path says of a request before it meets its route: whether it needs a key, and what kind of work it is."""

from __future__ import annotations

import re

from tenants.limits.rates import OperationClass

PUBLIC = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})
#: Bodies of any length, which their routes read line by line and bound themselves.
STREAMED = frozenset({"/v1/bulk"})
#: POST routes that change nothing.
ASKING = frozenset(
    {
        *("/v1/query", "/v1/context", "/v1/tokens", "/v1/admin/search"),
        *("/v1/recall", "/v1/sessions/{session_id}/recall", "/v1/memories/search"),
        *("/v1/traces/replay", "/v1/traces/{trace_id}/replay"),
        *("/v1/embeddings", "/v1/vector_stores/{vector_store_id}/search"),
        *("/mcp/", "/retrieval"),
    }
)
_ASKING = re.compile("|".join(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) for path in sorted(ASKING)))
#: Reads that are audited although they change nothing: they hand out content.
RETRIEVALS = re.compile(
    r"/v1/(sessions/[^/]+/)?documents/[^/]+/text|/v1/passages/[^/]+|/v1/sessions/[^/]+/(turns(/[^/]+)?|pins|export)"
    r"|/v1/subjects/[^/]+/export|/v1/memories(/[^/]+(/history)?)?|/v1/traces(/[^/]+)?|/v1/(admin/)?audit/export|/v1/feedback"
    r"|/v1/(vector_stores/[^/]+/)?files/[^/]+/content"
)
#: What stands before the name of a subject, the name, which may be any text, and what stands behind it.
OF_SUBJECT = re.compile(r"(/v1/subjects/)(.+?)(/export)?", re.DOTALL)
#: Somebody waits for the next turn of a conversation: its writes are no bulk work, unless they bring documents.
CONVERSING = re.compile(r"/v1/(sessions|memories|subjects|erasures)(/.*)?(?<!/promote)", re.DOTALL)


def class_of(method: str, path: str) -> OperationClass:
    if path.startswith("/v1/admin/"):
        return OperationClass.ADMIN
    if method in ("GET", "HEAD"):
        return OperationClass.READ
    asks = _ASKING.fullmatch(path) or CONVERSING.fullmatch(path)
    return OperationClass.QUERY if asks else OperationClass.INGEST
