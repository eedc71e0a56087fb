"""Every POST that changes something: how to send it under a name, and how to count what it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
from sqlmodel import SQLModel, col, func, select

from config.database import Database
from ingestion.jobs.tables import Job
from ingestion.stores.tables import FileBatch, StoredFile, VectorStore
from rag.corpus import Collection, Document, DocumentVersion, SpaceRow
from rag.evaluation.tables import QuestionSet
from rag.memories.tables import MemoryVersion
from rag.sessions.tables import ChatSession, Turn
from tenants.tables import ApiKey, Tenant
from tenants.webhooks.tables import WebhookEndpoint

Options = dict[str, Any]


@dataclass(frozen=True)
class Change:
    route: str  #: the template
    send: Callable[[str, str], tuple[str, Options]]  #: tenant and name → path and what httpx2 sends
    effects: Callable[[Database, str], list[int]]  #: of one request with this name: a list of ones
    operator: bool = False
    status: int = 201
    prepare: Callable[[Database, str, str], None] = lambda _database, _tenant, _name: None  #: what must be there; repeatable


def _count(table: type[SQLModel], column: Any) -> Callable[[Database, str], list[int]]:
    def count(database: Database, name: str) -> list[int]:
        with database.system_read() as session:
            return [session.scalar(select(func.count()).select_from(table).where(column == name)) or 0]

    return count


def _documents(database: Database, name: str) -> list[int]:
    """How many documents, versions and jobs."""
    mine = select(col(Document.id)).where(col(Document.external_id) == name)
    with database.system_read() as session:
        ids = session.scalars(mine).all()
        owned = [
            session.scalar(select(func.count()).select_from(table).where(col(table.document_id).in_(ids))) or 0
            for table in (DocumentVersion, Job)
        ]
    return [len(ids), *owned]


def _form(name: str) -> Options:
    return {"files": {"file": (f"{name}.txt", f"The file {name}.".encode())}, "data": {"external_id": name}}


def _key(tenant: str, name: str) -> tuple[str, Options]:
    return "/v1/admin/keys", {"json": {"tenant": tenant, "name": name, "scopes": ["query"]}}


def _make_key(database: Database, tenant: str, name: str) -> None:
    with database.system_write() as session:
        if session.get(ApiKey, f"key_{name}") is None:
            owner = session.scalars(select(col(Tenant.id)).where(col(Tenant.name) == tenant)).one()
            given = {"id": f"key_{name}", "tenant_id": owner, "name": "old", "scopes": ["query"], "created_at": 0}
            session.add(ApiKey(**given, secret_sha256=name.encode()))


def _replacing(database: Database, name: str) -> list[int]:
    return _count(ApiKey, col(ApiKey.replaces))(database, f"key_{name}")


def _make_store(database: Database, tenant: str, name: str) -> None:
    """A vector store and a file, whose content is nowhere: that fails alone."""
    with database.system_write() as session:
        if session.get(VectorStore, f"vs_{name}") is not None:
            return
        owner = session.scalars(select(col(Tenant.id)).where(col(Tenant.name) == tenant)).one()
        space = session.scalars(select(col(SpaceRow.id))).one()
        mine: dict[str, Any] = {"tenant_id": owner, "created_at": 0}
        session.add(Collection(id=f"col_{name}", name=f"vs_{name}", space_id=space, **mine))
        session.flush()
        session.add(VectorStore(id=f"vs_{name}", collection_id=f"col_{name}", name=name, last_active_at=0, **mine))
        blob = f"{'ab' * 16}-{'cd' * 32}"
        session.add(StoredFile(id=f"file-{name}", name=name, purpose="user_data", bytes=1, blob=blob, **mine))


def _batch(_tenant: str, name: str) -> tuple[str, Options]:
    return f"/v1/vector_stores/vs_{name}/file_batches", {"json": {"file_ids": [f"file-{name}"]}}


def _batches(database: Database, name: str) -> list[int]:
    return _count(FileBatch, col(FileBatch.collection_id))(database, f"col_{name}")


def _question_set(_tenant: str, name: str) -> tuple[str, Options]:
    questions = [{"text": "where?", "relevant": {"a": 1}}]
    return "/v1/question-sets", {"json": {"name": name, "questions": questions}}


def _make_session(database: Database, tenant: str, name: str) -> None:
    with database.system_write() as session:
        if session.get(ChatSession, f"ses_{name}") is None:
            owner = session.scalars(select(col(Tenant.id)).where(col(Tenant.name) == tenant)).one()
            times = {"created_at": 0, "last_active_at": 0}
            session.add(ChatSession(id=f"ses_{name}", tenant_id=owner, subject="ann", **times))


def _in_session(database: Database, name: str) -> list[int]:
    return _count(Turn, col(Turn.session_id))(database, f"ses_{name}")


def _forks(database: Database, name: str) -> list[int]:
    return _count(ChatSession, col(ChatSession.forked_from))(database, f"ses_{name}")


CHANGES = {
    "session": Change(
        "/v1/sessions",
        lambda _, name: ("/v1/sessions", {"json": {"subject": "ann", "title": name}}),
        _count(ChatSession, col(ChatSession.title)),
    ),
    "turns": Change(
        "/v1/sessions/{session_id}/turns",
        lambda _, name: (f"/v1/sessions/ses_{name}/turns", {"json": {"turns": [{"role": "user", "content": "hello"}]}}),
        _in_session,
        prepare=_make_session,
    ),
    "fork": Change(
        "/v1/sessions/{session_id}/fork",
        lambda _, name: (f"/v1/sessions/ses_{name}/fork", {"json": {}}),
        _forks,
        prepare=_make_session,
    ),
    "document": Change(
        "/v1/documents",
        lambda _, name: ("/v1/documents", {"json": {"text": f"The text {name}.", "external_id": name}}),
        _documents,
        status=202,
    ),
    "file": Change("/v1/documents", lambda _, name: ("/v1/documents", _form(name)), _documents, status=202),
    "attached": Change(
        "/v1/sessions/{session_id}/documents",
        lambda _, name: (f"/v1/sessions/ses_{name}/documents", {"json": {"text": f"The text {name}.", "external_id": name}}),
        _documents,
        status=202,
        prepare=_make_session,
    ),
    "collection": Change(
        "/v1/collections",
        lambda _, name: ("/v1/collections", {"json": {"name": name}}),
        _count(Collection, col(Collection.name)),
    ),
    "questions": Change("/v1/question-sets", _question_set, _count(QuestionSet, col(QuestionSet.name))),
    "upload": Change(
        "/v1/files",
        lambda _, name: ("/v1/files", {"files": {"file": (name, b"A file.")}, "data": {"purpose": "user_data"}}),
        _count(StoredFile, col(StoredFile.name)),
        status=200,
    ),
    "store": Change(
        "/v1/vector_stores",
        lambda _, name: ("/v1/vector_stores", {"json": {"name": name}}),
        _count(VectorStore, col(VectorStore.name)),
        status=200,
    ),
    "batch": Change("/v1/vector_stores/{vector_store_id}/file_batches", _batch, _batches, status=200, prepare=_make_store),
    "webhook": Change(
        "/v1/webhooks",
        lambda _, name: ("/v1/webhooks", {"json": {"url": "https://example.com/", "events": ["*"], "description": name}}),
        _count(WebhookEndpoint, col(WebhookEndpoint.description)),
    ),
    "memory": Change(
        "/v1/memories",
        lambda _, name: ("/v1/memories", {"json": {"subject": name, "memories": [{"text": "Ann sings.", "key": "art"}]}}),
        _count(MemoryVersion, col(MemoryVersion.subject)),
    ),
    "tenant": Change(
        "/v1/admin/tenants",
        lambda _, name: ("/v1/admin/tenants", {"json": {"name": name}}),
        _count(Tenant, col(Tenant.name)),
        operator=True,
    ),
    "key": Change("/v1/admin/keys", _key, _count(ApiKey, col(ApiKey.name)), operator=True),
    "rotation": Change(
        "/v1/admin/keys/{key_id}/rotate",
        lambda _, name: (f"/v1/admin/keys/key_{name}/rotate", {"json": {"overlap_seconds": 60}}),
        _replacing,
        operator=True,
        prepare=_make_key,
    ),
    "token": Change(
        "/v1/admin/tenants/{tenant}/tokens",
        lambda tenant, _: (f"/v1/admin/tenants/{tenant}/tokens", {"json": {"scopes": ["query"]}}),
        lambda _database, _name: [],
        operator=True,
    ),
}


def post(url: str, credential: str, path: str, key: str | None, options: Options) -> httpx2.Response:
    """On a connection of its own, as a client that starts anew would."""
    headers = {"Authorization": f"Bearer {credential}"} | ({} if key is None else {"Idempotency-Key": key})
    return httpx2.post(url + path, headers=headers | options.get("headers", {}), timeout=60, **_without_headers(options))


def _without_headers(options: Options) -> Options:
    return {name: value for name, value in options.items() if name != "headers"}
