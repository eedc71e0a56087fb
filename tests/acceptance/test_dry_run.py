"""A dry run says to the token what bringing a document will charge, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from carrel_client import Carrel, Estimate, InvalidRequestError, NotFoundError, PermissionDeniedError
from config.clock import system_clock
from config.database import Database
from tenants.audit.record import AuditLog
from tests.support import Service, carrel

ROOMS = [f"Room {number} of the east wing holds maps of river {number}. " * 14 for number in range(40)]
PLAIN = "\n\n".join([*ROOMS, *ROOMS, *ROOMS[:10]])  # repeated within a batch of the pipeline and beyond it
MARKDOWN = "# Rules\n\n" + "\n\n".join(f"## Part {number}\n\n" + "Maps stay in the house. " * 30 for number in range(12))
HTML = "<!doctype html><title>Gifts</title><h1>Gifts</h1>" + "".join(f"<p>{room}</p>" for room in ROOMS[:20])
CONTENTS = {"plain.txt": PLAIN, "rules.md": MARKDOWN, "gifts.html": HTML}


def _brought(client: Carrel, name: str, content: str) -> tuple[int, int]:
    job = client.documents.create(content=content.encode(), file_name=name, external_id=name).wait()
    assert job is not None
    return job.chunks_total, job.tokens_charged


def _estimate(client: Carrel, name: str, content: str, **fields: str) -> Estimate:
    estimate = client.documents.create(
        content=content.encode(), file_name=name, dry_run=True, **{"external_id": name, **fields}
    )
    assert estimate.tokens == estimate.tokens_to_embed + estimate.cached_tokens + estimate.deduplicated_tokens
    return estimate


@pytest.mark.parametrize("name", CONTENTS)
def test_a_dry_run_says_exactly_what_is_then_charged(service: Service, name: str) -> None:
    (_, mine), (_, other) = service.tenant(), service.tenant()
    first = _estimate(mine, name, CONTENTS[name])
    assert _brought(mine, name, CONTENTS[name]) == (first.chunks, first.tokens_to_embed)
    assert first.tokens_to_embed > 0
    assert (first.cached_tokens, first.within_budget, first.remaining_tokens) == (0, True, None)
    again = _estimate(mine, name, CONTENTS[name])
    assert (again.tokens_to_embed, again.cached_tokens, again.chunks) == (0, first.tokens, first.chunks)
    elsewhere = _estimate(mine, name, CONTENTS[name], external_id="another name")
    assert (elsewhere.tokens_to_embed, elsewhere.deduplicated_tokens) == (0, first.deduplicated_tokens)
    foreign = _estimate(other, name, CONTENTS[name])
    assert (foreign.tokens_to_embed, foreign.cached_tokens) == (first.tokens_to_embed, 0)


def test_a_changed_document_is_estimated_by_what_changed(service: Service) -> None:
    _, mine = service.tenant()
    _brought(mine, "plain.txt", PLAIN)
    changed = PLAIN.replace("Room 3 of", "Cellar 3 of")
    estimate = _estimate(mine, "plain.txt", changed)
    assert 0 < estimate.tokens_to_embed < estimate.tokens / 10
    assert _brought(mine, "plain.txt", changed) == (estimate.chunks, estimate.tokens_to_embed)


def test_a_document_is_split_by_the_profile_of_its_collection(service: Service) -> None:
    _, mine = service.tenant()
    mine.collections.create(name="fine", profile="precise")
    coarse, fine = (_estimate(mine, "rules.md", MARKDOWN, collection=name) for name in ("default", "fine"))
    assert fine.chunks > coarse.chunks
    job = mine.documents.create(content=MARKDOWN.encode(), file_name="rules.md", collection="fine").wait()
    assert job is not None
    assert (job.chunks_total, job.tokens_charged) == (fine.chunks, fine.tokens_to_embed)


def test_a_pdf_and_text_as_json_are_estimated_like_files(service: Service, repository: Path) -> None:
    _, mine = service.tenant()
    path = repository / "examples" / "handbook" / "interlibrary.pdf"
    estimate = mine.documents.create(file=path, dry_run=True)
    job = mine.documents.create(file=path).wait()
    assert job is not None
    assert (estimate.media_type, estimate.pages) == ("application/pdf", 3)
    assert (estimate.chunks, estimate.tokens_to_embed) == (job.chunks_total, job.tokens_charged)
    as_json = mine.documents.create(text=MARKDOWN, format="markdown", title="Rules", dry_run=True)
    job = mine.documents.create(text=MARKDOWN, format="markdown", title="Rules").wait()
    assert job is not None
    assert (as_json.media_type, as_json.characters) == ("text/markdown", len(MARKDOWN))
    assert as_json.tokens_to_embed == job.tokens_charged


def test_nothing_is_kept_and_the_record_says_that_it_was_dry(service: Service) -> None:
    name, mine = service.tenant()
    blobs = {*(service.data_dir / "blobs").glob("??/*")}
    mine.documents.create(text="Secret words stay outside.", dry_run=True)
    assert {*(service.data_dir / "blobs").glob("??/*")} == blobs
    assert [*mine.documents.list(), *mine.collections.list(), *mine.jobs.list()] == []
    assert {event.type for event in mine.events.list()} == {"tenant.created", "key.created"}
    usage = mine.usage()
    assert (usage.used, usage.held, usage.days) == (0, 0, [])
    with service.admin as admin:
        tenant_id = admin.admin.tenants.get(name).id
    database = Database(f"sqlite:///{service.data_dir / 'carrel.db'}")
    try:
        entries = [entry for entry in AuditLog(database, system_clock).of(tenant_id) if entry.action == "POST /v1/documents"]
    finally:
        database.close()
    assert [(entry.status, entry.detail) for entry in entries] == [(200, {"dry_run": True})]
    assert mine.documents.create(text="Secret words stay outside.", dry_run=True).cached_tokens == 0


def test_what_would_be_refused_is_refused(service: Service) -> None:
    name, mine = service.tenant()
    bound = service.client(service.key(name, "ingest", labels=["board"]))
    reader = service.client(service.key(name, "query"))
    elsewhere = service.client(service.key(name, "ingest", collections=["other"]))
    for client, given, error, status in (
        (mine, {"text": "x", "collection": "missing"}, NotFoundError, 404),
        (elsewhere, {"text": "x"}, NotFoundError, 404),
        (bound, {"text": "x", "labels": ["staff"]}, PermissionDeniedError, 403),
        (reader, {"text": "x"}, PermissionDeniedError, 403),
        (mine, {"content": b"x" * (32 << 20) + b"x", "file_name": "x.txt"}, InvalidRequestError, 413),
        (mine, {"content": b"\0\1", "file_name": "x.bin"}, InvalidRequestError, 415),
        (mine, {"text": " "}, InvalidRequestError, 422),
        (mine, {"content": b"%PDF-1.4 broken", "file_name": "x.pdf"}, InvalidRequestError, 422),
    ):
        with pytest.raises(error) as refused:
            client.documents.create(**given, dry_run=True)
        assert refused.value.status == status
    assert refused.value.code == "unreadable_document"


def test_a_document_that_the_key_may_not_replace_is_not_estimated(service: Service) -> None:
    name, mine = service.tenant()
    mine.documents.create(text="For the board.", external_id="minutes", labels=["board"]).wait()
    staff = service.client(service.key(name, "ingest", labels=["staff"]))
    with pytest.raises(PermissionDeniedError):
        staff.documents.create(text="Other.", external_id="minutes", labels=["staff"], dry_run=True)


def test_a_budget_that_does_not_cover_it_is_said_and_not_refused(service: Service) -> None:
    _, mine = service.tenant(monthly_tokens=20)
    few, many = (mine.documents.create(text="Few words. " * times, dry_run=True) for times in (1, 30))
    assert (few.within_budget, few.remaining_tokens) == (True, 20)
    assert (many.within_budget, many.remaining_tokens) == (False, 20)


@pytest.mark.parametrize("yes", ["true", "1", "YES", "on"])
def test_a_key_of_a_dry_run_is_left_for_the_call_that_it_tries_out(service: Service, yes: str) -> None:
    name, _ = service.tenant()
    headers = {"authorization": f"Bearer {service.key(name)}", "idempotency-key": f"once-{yes}"}

    def post(query: str = "") -> httpx2.Response:
        return httpx2.post(f"{service.url}/v1/documents{query}", json={"text": "Loans."}, headers=headers)

    dry = [post(f"?dry_run={yes}")]
    real = [post("?dry_run=false"), post("?dry_run=false")]
    dry.append(post(f"?dry_run={yes}"))
    assert [answer.status_code for answer in (*dry, *real)] == [200, 200, 202, 202]
    assert real[0].content == real[1].content
    assert all("idempotent-replayed" not in answer.headers and "chunks" in answer.json() for answer in dry)


@pytest.mark.parametrize("value", ["maybe", "", "2"])
def test_a_dry_run_that_is_neither_true_nor_false_is_refused(service: Service, value: str) -> None:
    name, mine = service.tenant()
    headers = {"authorization": f"Bearer {service.key(name)}", "idempotency-key": "k"}
    answer = httpx2.post(f"{service.url}/v1/documents", params={"dry_run": value}, json={"text": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (422, "dry_run")
    assert list(mine.documents.list()) == []


def test_the_command_line_tells_the_cost_of_a_folder(service: Service, tmp_path: Path) -> None:
    name, mine = service.tenant()
    (tmp_path / "a.txt").write_text(ROOMS[0])
    (tmp_path / "b.md").write_text(MARKDOWN)
    (tmp_path / "c.pdf").write_bytes(b"%PDF-1.4 broken")
    told = carrel("ingest", str(tmp_path), "-t", name, "--dry-run", "--json", env=service.env)
    total = json.loads(told.stdout)
    assert (told.returncode, total["documents"], len(total["failed"])) == (1, 2, 1)
    assert list(mine.documents.list()) == []
    (tmp_path / "c.pdf").unlink()
    brought = carrel("ingest", str(tmp_path), "-t", name, "--json", env=service.env).stdout
    done = json.loads(brought.splitlines()[-1])
    assert (done["chunks"], done["tokens_charged"]) == (total["chunks"], total["tokens_to_embed"])
    shown = carrel("ingest", str(tmp_path), "-t", name, "--dry-run", env=service.env).stdout
    assert " 0 to embed for $0.000000" in shown


def test_the_command_line_shows_what_was_used(service: Service) -> None:
    name, mine = service.tenant()
    mine.documents.create(text="Loans.").wait()
    mine.documents.create(text="Loans.", external_id="again").wait()
    mine.query("Loans.")
    usage, other = mine.usage(), service.tenant()[1].usage()
    assert (usage.cache.vectors > 0, usage.cache.bytes > 0, other.cache.vectors, other.cache.bytes) == (True, True, 0, 0)
    assert (usage.total.charged, usage.total.hits > 0) == (usage.used, True)
    assert sum(day.cached for day in usage.days) == usage.total.cached > 0
    shown = carrel("usage", "-t", name, env=service.env).stdout
    assert f"{usage.used:,} tokens used ($0.000000)" in shown
    assert json.loads(carrel("usage", "-t", name, "--json", env=service.env).stdout)["total"]["charged"] == usage.used
