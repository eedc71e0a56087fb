"""What is on record after requests: one entry for each change, denial and retrieval, with ids and without text; that it can be
verified from outside; and what operators do across tenants.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from carrel_client import APIError, InvalidRequestError, NotFoundError, PermissionDeniedError
from tests.support import Service, carrel, wait_for


def test_changes_denials_and_retrievals_are_recorded_without_text(quick: Service) -> None:
    name, client = quick.tenant()
    reader = quick.client(quick.key(name, "query"))
    submitted = client.documents.create(text="confidential wording", title="confidential title")
    submitted.wait()
    passages = reader.query("confidential question").passages
    reader.passage(passages[0].id)
    with contextlib.suppress(APIError):
        reader.documents.delete(submitted.document.id)
    entries = list(client.audit.list(page_size=3))
    recorded = [(entry.action, entry.decision, entry.status) for entry in reversed(entries)]
    assert recorded == [
        ("POST /v1/documents", "allowed", 202),
        ("POST /v1/query", "allowed", 200),
        ("GET /v1/passages/{passage_id}", "allowed", 200),
        ("DELETE /v1/documents/{document_id}", "denied", 403),
    ]
    assert entries[2].detail["passages"] == [passage.id for passage in passages]
    assert "confidential" not in repr(entries)
    denied = client.audit.list(decision="denied", principal=entries[0].principal_id)
    assert [entry.id for entry in denied] == [entries[0].id]
    with quick.admin as admin:
        assert [entry.id for entry in admin.admin.audit.list(name)] == [entry.id for entry in entries]
        assert any(entry.action == "POST /v1/admin/tenants" for entry in admin.admin.audit.list())
    with pytest.raises(PermissionDeniedError):
        list(reader.audit.list())
    with pytest.raises(PermissionDeniedError):
        list(quick.client(quick.key(name, collections=["default"])).audit.export())


def test_a_chain_is_verified_from_outside_and_a_forged_one_is_not(quick: Service, tmp_path: Path) -> None:
    name, client = quick.tenant()
    client.collections.create(name="one")
    wait_for(lambda: all(entry.position for entry in client.audit.list()), what="the sealer")
    file = tmp_path / "chain.ndjson"
    exported = carrel("audit", "export", "--tenant", name, "-o", str(file), "--json", env=quick.env)
    assert json.loads(exported.stdout)["lines"] == 4  # header, entry, checkpoint, end
    [report] = json.loads(carrel("audit", "verify", str(file), "--json", env=quick.env).stdout)
    assert (report["sound"], report["entries"], report["unsealed"]) == (True, 1, 0)
    file.write_text(file.read_text().replace('"status": 201', '"status": 403'))
    forged = carrel("audit", "verify", str(file), "--public-key", report["keys"][0], env=quick.env)
    assert forged.returncode == 1
    assert "changed at 1" in forged.stdout
    everything = carrel("audit", "verify", "--json", env=quick.env)
    chains = json.loads(everything.stdout)
    assert everything.returncode == 0, everything.stdout
    assert {"operator", report["chain"]} <= {each["chain"] for each in chains}
    beyond = [*client.audit.export(from_position=2**63)]  # a number that no database keeps
    assert [json.loads(beyond[at])["kind"] for at in (0, -1)] == ["header", "end"]
    shown = carrel("audit", "tail", "--tenant", name, "-n", "5", env=quick.env)
    assert "POST /v1/collections" in shown.stdout
    own = {**quick.env, "CARREL_API_KEY": quick.key(name)}
    assert [each["chain"] for each in json.loads(carrel("audit", "verify", "--json", env=own).stdout)] == [report["chain"]]


def test_a_search_across_tenants_stays_in_those_named_and_tells_each_why(quick: Service) -> None:
    tenants = [quick.tenant() for _ in range(3)]
    for number, (_, client) in enumerate(tenants):
        client.documents.create(text=f"the cabinet of tenant {number} is locked", title="Cabinet").wait()
    (first, one), (second, two), (_, three) = tenants
    used = one.usage().used
    with quick.admin as admin:
        found = admin.admin.search("cabinet", tenants=[first, second, first], reason="incident 7", top_k=3)
        assert [each.tenant for each in found] == [first, second]
        assert [[passage.text for passage in each.passages] for each in found] == [
            [f"the cabinet of tenant {number} is locked"] for number in (0, 1)
        ]
        missing = admin.admin.search("cabinet", tenants=[first], reason="incident 7", collections=["elsewhere"])
        assert missing[0].problem
        with pytest.raises(NotFoundError):
            admin.admin.search("cabinet", tenants=[first, "nobody"], reason="incident 8")
        with pytest.raises(InvalidRequestError):
            admin.admin.search("cabinet", tenants=[first], reason="    ")
        mine = next(iter(admin.admin.audit.list(action="POST /v1/admin/search", decision="allowed")))
    for client, each in ((one, found[0]), (two, found[1])):
        entry = [*client.audit.list(action="POST /v1/admin/search")][-1]
        assert entry.detail == {"reason": "incident 7", "passages": [passage.id for passage in each.passages]}
        assert entry.principal_kind == "operator"
    assert [*three.audit.list(action="POST /v1/admin/search")] == []
    assert mine.principal_kind == "operator"
    assert one.usage().used == used
    with pytest.raises(PermissionDeniedError):
        one.admin.search("cabinet", tenants=[second], reason="curiosity")


def test_sums_over_all_tenants_are_told_to_operators(quick: Service) -> None:
    name, client = quick.tenant()
    client.documents.create(text="counted", title="Counted").wait()
    for _ in range(40):
        with contextlib.suppress(APIError):
            client.documents.delete("doc_missing")
    wait_for(lambda: all(entry.position for entry in client.audit.list()), what="the sealer")
    told = json.loads(carrel("admin", "statistics", "--json", env=quick.env).stdout)
    assert told["tenants"] >= 1
    assert told["recent"]["requests"] >= 41
    assert told["recent"]["tokens"] >= 1
    asked = carrel("admin", "noisiest", "--by", "requests", "--hours", "1", "--top", "100", "--json", env=quick.env)
    noisy = json.loads(asked.stdout)
    [mine] = [tenant for tenant in noisy if tenant["tenant"] == name]
    assert mine["requests"] >= 41
    by_tokens = json.loads(carrel("admin", "noisiest", "--by", "tokens", "--top", "100", "--json", env=quick.env).stdout)
    assert name in [tenant["tenant"] for tenant in by_tokens]
