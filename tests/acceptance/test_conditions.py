"""Conditions, order, near-duplicates and dead letters as users meet them: over HTTP, in the client, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from carrel_client import NotFoundError, VersionConflictError
from tests.support import Service, carrel

TEXT = " ".join(f"oak{number}" for number in range(80))


def test_of_two_writers_who_saw_one_version_the_second_is_told(service: Service) -> None:
    name, client = service.tenant()
    key = service.key(name)
    first = client.documents.create(text="one", external_id="rules", create_only=True)
    headers = {"Authorization": f"Bearer {key}"}
    shown = httpx2.get(f"{service.url}/v1/documents/{first.document.id}", headers=headers)
    assert shown.headers["etag"] == shown.json()["etag"] == first.document.etag
    second = client.documents.create(text="two", external_id="rules", if_match=first.document.etag)
    with pytest.raises(VersionConflictError, match="at version 2 now") as refused:
        client.documents.create(text="three", external_id="rules", if_match=first.document.etag)
    assert (refused.value.status, refused.value.code, refused.value.etag) == (412, "version_conflict", second.document.etag)
    with pytest.raises(VersionConflictError):
        client.documents.delete(first.document.id, if_match=first.document.etag)
    with pytest.raises(NotFoundError):
        service.tenant()[1].documents.delete(first.document.id, if_match=second.document.etag)
    answer = httpx2.post(f"{service.url}/v1/documents", headers=headers, json={"text": "two", "external_id": "rules"})
    assert answer.headers["etag"] == second.document.etag
    client.documents.delete(first.document.id, if_match=second.document.etag)


def test_the_command_takes_conditions_and_an_order(service: Service, tmp_path: Path) -> None:
    name, client = service.tenant()
    job = client.documents.create(text="one", external_id="rules").job
    assert job is not None
    (tmp_path / "rules").write_text("two")

    def run(*arguments: str, tenant: str = name) -> Any:
        done = carrel("document", *arguments, "--tenant", tenant, "--json", env=service.env)
        return json.loads(done.stdout) if done.returncode == 0 else json.loads(done.stderr)["error"]["code"]

    assert run("put", str(tmp_path / "rules"), "--create-only") == "version_conflict"
    shown = run("show", job.document_id)
    assert run("put", str(tmp_path / "rules"), "--if-match", shown["etag"], "--after", job.id)["version"] == 2
    assert run("delete", job.document_id, "--if-match", shown["etag"]) == "version_conflict"
    assert run("delete", job.document_id, tenant=service.tenant()[0]) == "not_found"
    gone = run("delete", job.document_id, "--if-match", run("show", job.document_id)["etag"])
    assert client.jobs.wait(gone["id"]).state == "succeeded"


def test_a_linked_document_comes_back_when_its_original_goes(service: Service) -> None:
    _, client = service.tenant()
    client.collections.create(name="links", near_duplicates="link")
    assert client.collections.update("links", near_threshold=0.85).near_duplicates == "link"
    first = client.documents.create(text=TEXT, external_id="one", collection="links")
    first.wait()
    second = client.documents.create(text=TEXT.upper(), external_id="two", collection="links")
    job = second.wait()
    assert job is not None
    near = client.documents.get(second.document.id).near_duplicate_of
    assert near is not None
    assert (job.outcome, job.tokens_charged, near.document_id, near.linked) == ("linked", 0, first.document.id, True)
    client.jobs.wait(client.documents.delete(first.document.id).id)
    [again] = [one for one in client.jobs.list() if one.document_id == second.document.id and one.id != job.id]
    client.jobs.wait(again.id)
    [passage] = client.query("oak7 oak8", collections=["links"], top_k=1).passages
    assert passage.document_id == second.document.id


def test_dead_letters_are_listed_and_retried_from_the_command_line(service: Service) -> None:
    name, client = service.tenant()
    broken = client.documents.create(content=b"%PDF-1.4 broken", file_name="broken.pdf")
    waits = client.documents.create(text="after it", after=[broken.job.id if broken.job else ""])
    assert waits.job is not None
    for job in client.jobs.watch(waits.job.id):
        ended = job
    assert (ended.state, ended.error_code) == ("failed", "dependency_failed")

    def run(*arguments: str) -> Any:
        return json.loads(carrel("job", *arguments, "--tenant", name, "--json", env=service.env).stdout)

    listed = run("list", "--dead")
    assert {job["error_code"] for job in listed} == {"unreadable_document", "dependency_failed"}
    [again] = run("retry", "--all", "--error", "dependency_failed")
    assert (again["retry_of"], client.jobs.wait(again["id"]).state) == (waits.job.id, "succeeded")
    assert run("retry", "--all", "--error", "dependency_failed") == []
    stranger = service.tenant()[1]
    assert list(stranger.jobs.list(dead=True)) == list(stranger.jobs.retry_all()) == []
