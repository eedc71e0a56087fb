"""What a path says of a request before it meets its route: whether it needs a key, and what kind of work it is."""

from __future__ import annotations

import re

from tenants.rates import OperationClass

PUBLIC = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})
#: Bodies of any length, which their routes read line by line and bound themselves.
STREAMED = frozenset({"/v1/bulk"})
#: POST routes that change nothing.
ASKING = frozenset({"/v1/query", "/v1/context", "/v1/tokens", "/v1/admin/search"})
#: Reads that are audited although they change nothing: they hand out content.
RETRIEVALS = re.compile(
    r"/v1/documents/[^/]+/text|/v1/passages/[^/]+|/v1/sessions/[^/]+/turns(/[^/]+)?|/v1/(admin/)?audit/export"
)
#: Somebody waits for the next turn of a conversation: its writes are no bulk work.
CONVERSING = re.compile(r"/v1/sessions(/.*)?")


def class_of(method: str, path: str) -> OperationClass:
    if path.startswith("/v1/admin/"):
        return OperationClass.ADMIN
    if method in ("GET", "HEAD"):
        return OperationClass.READ
    asks = path in ASKING or CONVERSING.fullmatch(path)
    return OperationClass.QUERY if asks else OperationClass.INGEST
