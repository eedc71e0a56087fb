"""The ASGI application: routes, error handlers, OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import idempotency, middleware
from api.problems import install_handlers
from api.routes import (
    admin,
    audit,
    bulk,
    context,
    documents,
    evaluation,
    events,
    feedback,
    health,
    jobs,
    knowledge,
    oversight,
    sessions,
    tenants,
    tokens,
    tuning,
    usage,
    webhooks,
)
from api.routing import RETRIEVAL_KEY, STREAMED_KEY
from api.version import VERSION
from api.wiring_api import ApiServices

MULTIPART_OVERHEAD = 1024 * 1024
DESCRIPTION = """Carrel gives every tenant a private room of knowledge: documents go in, cited passages come out.

Send `Authorization: Bearer <key>`. A key belongs to one tenant and carries scopes; each operation names the one it needs
(`x-carrel-scope`). Refusals are problem details (RFC 9457) with a stable `code`. Lists are paged by `after` and `next`."""

_ROUTES = (
    *(documents, bulk, jobs, knowledge, context, sessions),
    *(evaluation, feedback, tuning, events, usage, webhooks, tokens, audit),
    *(admin, tenants, oversight, health),
)
TAGS = [
    {"name": "Documents", "description": "Bring, show and delete documents."},
    {"name": "Jobs", "description": "The work on documents: how far it is, and how to end or repeat it."},
    {"name": "Knowledge", "description": "Ask questions; collections."},
    {"name": "Sessions", "description": "Conversations of an application's end users, turn by turn."},
    {"name": "Evaluation", "description": "How good answers are: questions to measure by, and what users say."},
    {"name": "Events", "description": "What happened to a tenant's documents, jobs, keys and budget."},
    {"name": "Webhooks", "description": "Events sent to a URL of the tenant's, signed, at least once."},
    {"name": "Usage", "description": "Tokens, money and budgets."},
    {"name": "Audit", "description": "Who did what: the record of requests, and its chain to be verified."},
    {"name": "Tokens", "description": "Short-lived credentials for the end users of an application."},
    {"name": "Administration", "description": "Tenants and keys: operator keys only."},
    {"name": "Health", "description": "No key needed."},
]


def create_app(services: ApiServices) -> FastAPI:
    """The bare application. `create_service` puts the middlewares around it."""
    app = FastAPI(
        title="Carrel", version=VERSION, description=DESCRIPTION, openapi_tags=TAGS, redoc_url=None, redirect_slashes=False
    )
    app.state.services = services
    for module in _ROUTES:
        app.include_router(module.routes)
    install_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def create_service(services: ApiServices) -> Any:
    """The ASGI callable that is served: every request passes the middlewares before it meets a route."""
    return middleware.stack(
        create_app(services),
        services.gates,
        draining=services.draining,
        audit=services.audit,
        max_body=services.core.settings.max_document_bytes + MULTIPART_OVERHEAD,
    )


def _openapi(app: FastAPI) -> dict[str, Any]:
    if not app.openapi_schema:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        idempotency.described(schema, RETRIEVAL_KEY, STREAMED_KEY)
        app.openapi_schema = schema
    return app.openapi_schema
