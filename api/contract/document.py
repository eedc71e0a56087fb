"""The OpenAPI document: what the framework derives from the routes, and what it cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import idempotency
from api.contract import examples, refusals
from api.routing import RETRIEVAL_KEY, STREAMED_KEY

SECURITY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A tenant's key `carrel_…`, a short-lived token made with one, or a JWT of the operator's identity "
        "provider. Operations below `/v1/admin` take an operator's key.",
    }
}
SERVERS = [{"url": "/", "description": "The service that serves this document."}]
#: The interface's own version, which paths carry. The distribution's is `info.version`.
INTERFACE = "v1"


def document_of(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        servers=SERVERS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    document["info"]["x-interface"] = INTERFACE
    document["components"]["securitySchemes"] = SECURITY
    document["security"] = [{"key": []}]
    idempotency.described(document, RETRIEVAL_KEY, STREAMED_KEY)
    refusals.described(document)
    examples.described(document)
    return document
