"""What is on record after requests: one entry for each change, denial and retrieval, with ids and without text."""

from __future__ import annotations

import contextlib

from carrel_client import APIError
from config.clock import system_clock
from config.database import Database
from tenants.audit import AuditLog
from tests.support import Service


def test_changes_denials_and_retrievals_are_recorded_without_text(service: Service) -> None:
    name, carrel = service.tenant()
    reader = service.client(service.key(name, "query"))
    submitted = carrel.documents.create(text="confidential wording", title="confidential title")
    submitted.wait()
    passages = reader.query("confidential question").passages
    with contextlib.suppress(APIError):
        reader.documents.delete(submitted.document.id)
    with service.admin as admin:
        tenant_id = admin.admin.tenants.get(name).id
    database = Database(f"sqlite:///{service.data_dir / 'carrel.db'}")
    try:
        entries = AuditLog(database, system_clock).of(tenant_id)
        others = AuditLog(database, system_clock).of(None)
    finally:
        database.close()
    recorded = {(entry.action, entry.decision, entry.status) for entry in entries}
    assert ("POST /v1/documents", "allowed", 202) in recorded
    assert ("POST /v1/query", "allowed", 200) in recorded
    assert ("DELETE /v1/documents/{document_id}", "denied", 403) in recorded
    query = next(entry for entry in entries if entry.action == "POST /v1/query")
    assert query.detail["passages"] == [passage.id for passage in passages]
    assert "confidential" not in repr([entry.model_dump() for entry in entries])
    assert any(entry.action == "POST /v1/admin/tenants" for entry in others)
