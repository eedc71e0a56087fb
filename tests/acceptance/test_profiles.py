"""Profiles as users and operators meet them: over HTTP, on the command line, and when the service starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from carrel_client import InvalidRequestError, NotFoundError
from config.clock import system_clock
from config.database import Database
from tenants.audit.record import AuditLog
from tests.support import Service, carrel, carrel_process, environment, running_service

TEXT = "\n\n".join(f"Rule {number}: a book may be kept for {number} weeks, and maps stay here." for number in range(30))


def test_a_collection_is_made_with_a_profile_and_given_another(service: Service) -> None:
    name, one = service.tenant()
    _, two = service.tenant()
    profiles = {profile.name: profile for profile in one.collections.profiles()}
    assert {"standard", "precise", "economy"} <= profiles.keys()
    made = one.collections.create(name="rules", profile="precise")
    two.collections.create(name="rules")
    assert made.profile == "precise"
    first = one.documents.create(text=TEXT, external_id="rules", collection="rules")
    assert (first.document.profile, first.document.chunking) == ("precise", profiles["precise"].chunking)
    done = first.wait()
    assert one.collections.update("rules", profile="standard").documents == 1
    again = one.documents.create(text=TEXT, external_id="rules", collection="rules").wait()
    assert done is not None
    assert again is not None
    assert done.chunks_total > again.chunks_total
    assert one.documents.create(text=TEXT, external_id="rules", collection="rules").job is None
    for passage in one.query("how long may I keep a book?", collections=["rules"]).passages:
        assert TEXT[passage.start : passage.end] == passage.text
    shown = {client: [collection.profile for collection in client.collections.list()] for client in (one, two)}
    assert shown == {one: ["standard"], two: ["standard"]}
    assert _audited(service, name, "PATCH /v1/collections/{name}") == [{"collection": made.id, "profile": "standard"}]


def _audited(service: Service, tenant: str, action: str) -> list[dict[str, Any]]:
    with service.admin as admin:
        tenant_id = admin.admin.tenants.get(tenant).id
    database = Database(f"sqlite:///{service.data_dir / 'carrel.db'}")
    try:
        return [entry.detail for entry in AuditLog(database, system_clock).of(tenant_id) if entry.action == action]
    finally:
        database.close()


def test_what_there_is_not_is_refused_with_field_and_names(service: Service) -> None:
    name, one = service.tenant()
    _, two = service.tenant()
    two.collections.create(name="others")
    one.collections.create(name="mine")
    for call in (
        lambda: one.collections.create(name="new", profile="none"),
        lambda: one.collections.update("mine", profile="none"),
    ):
        with pytest.raises(InvalidRequestError, match="economy, precise, standard") as refused:
            call()
        assert (refused.value.status, refused.value.field) == (422, "profile")
    bounded = service.client(service.key(name, collections=["elsewhere"]))
    refusals = set()
    for client, collection in ((one, "others"), (one, "missing"), (bounded, "mine")):
        with pytest.raises(NotFoundError) as missing:
            client.collections.update(collection, profile="precise")
        refusals.add(str(missing.value.detail).replace(collection, "…"))
    assert len(refusals) == 1


def test_the_command_line_makes_lists_and_changes_collections(service: Service) -> None:
    carrel("tenant", "create", "cli-profiles", env=service.env)

    def run(*arguments: str) -> Any:
        done = carrel("collection", *arguments, "-t", "cli-profiles", "--json", env=service.env)
        return json.loads(done.stdout or done.stderr)

    assert run("create", "contracts", "--profile", "precise")["profile"] == "precise"
    assert run("update", "contracts", "-p", "economy")["profile"] == "economy"
    assert [(one["name"], one["profile"]) for one in run("list")] == [("contracts", "economy")]
    assert {one["name"]: one["priority"] for one in run("profiles")}["economy"] == "low"
    assert run("update", "contracts", "-p", "none")["error"]["code"] == "invalid_input"
    shown = carrel("collection", "profiles", "-t", "cli-profiles", env=service.env).stdout
    assert "precise" in shown
    assert "overlap" in shown
    assert "contracts" in carrel("collection", "list", "-t", "cli-profiles", env=service.env).stdout


@pytest.mark.xdist_group("processes")
def test_the_operators_profiles_are_there_and_one_in_use_must_stay(tmp_path: Path) -> None:
    file, data = tmp_path / "profiles.toml", tmp_path / "data"
    options = {"embedding_runtime": "hash", "profiles_file": file}
    file.write_text('[contracts]\nchunk_tokens = 64\noverlap_tokens = 16\npriority = "high"\n')
    with running_service(data, **options) as service:
        _, one = service.tenant()
        one.collections.create(name="rules", profile="contracts")
        submitted = one.documents.create(text=TEXT, collection="rules")
        assert submitted.document.chunking["chunk_tokens"] == 64
        assert submitted.wait(timeout_s=60) is not None
    for content, said in (
        ("", "not there: contracts"),
        ("[contracts]\nchunk_tokens = 400\n", "'contracts': `chunk_tokens` is 400, and at most 2"),
        ("[contracts]\nchunks = 4\n", "'contracts': `chunks`"),
    ):
        file.write_text(content)
        refused = carrel_process("serve", env=environment(data, **options))
        assert (refused.returncode, said in refused.stderr) == (78, True), refused.stderr
