"""The ASGI application: routes, error handlers, OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api import middleware
from api.contract.document import document_of
from api.openai import embedding_routes, file_routes, member_routes, store_routes
from api.problems import install_handlers
from api.routes import (
    admin,
    audit,
    bulk,
    context,
    dify,
    documents,
    erasures,
    evaluation,
    events,
    feedback,
    health,
    jobs,
    knowledge,
    mcp,
    memories,
    oversight,
    pins,
    recall,
    session_documents,
    sessions,
    tenants,
    tokens,
    traces,
    tuning,
    usage,
    webhooks,
)
from api.version import VERSION
from api.wiring.api import ApiServices

MULTIPART_OVERHEAD = 1024 * 1024
DESCRIPTION = """Carrel gives every tenant a private room of knowledge: documents go in, cited passages come out.

Send `Authorization: Bearer <key>`. A key belongs to one tenant and carries scopes; each operation names the one it needs
(`x-carrel-scope`). Refusals are problem details (RFC 9457) with a stable `code`. Lists are paged by `after` and `next`."""

_ROUTES = (
    *(documents, bulk, jobs, knowledge, context),
    *(sessions, session_documents, pins, recall, memories, traces, erasures),
    *(evaluation, feedback, tuning, events, usage, webhooks, tokens, audit),
    *(store_routes, member_routes, file_routes, embedding_routes, mcp, dify),
    *(admin, tenants, oversight, health),
)
TAGS = [
    {"name": "Documents", "description": "Bring, show and delete documents."},
    {"name": "Jobs", "description": "The work on documents: how far it is, and how to end or repeat it."},
    {"name": "Knowledge", "description": "Ask questions; collections."},
    {"name": "Sessions", "description": "Conversations of end users: turns, what is attached to them, and their end."},
    {"name": "Memories", "description": "What is known of an application's end users: facts, with their history."},
    {"name": "OpenAI", "description": "Vector stores, files, embeddings and models, as the OpenAI SDK calls them."},
    {"name": "Evaluation", "description": "How good answers are: questions to measure by, and what users say."},
    {"name": "Traces", "description": "What questions left behind, and asking them again."},
    {"name": "Events", "description": "What happened to a tenant's documents, jobs, keys and budget."},
    {"name": "Webhooks", "description": "Events sent to a URL of the tenant's, signed, at least once."},
    {"name": "Usage", "description": "Tokens, money and budgets."},
    {"name": "Audit", "description": "Who did what: the record of requests, and its chain to be verified."},
    {"name": "Tokens", "description": "Short-lived credentials for the end users of an application."},
    {"name": "Administration", "description": "Tenants and keys: operator keys only."},
    {"name": "Agents", "description": "Tools for agents."},
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
    install_handlers(app, [route for module in _ROUTES for route in module.routes.routes if isinstance(route, APIRoute)])
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
    app.openapi_schema = app.openapi_schema or document_of(app)
    return app.openapi_schema
