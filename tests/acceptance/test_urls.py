"""Documents by URL through a real service, whose operator allows 127.0.0.1; and one that allows nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from carrel_client import Carrel, CarrelClientError, InvalidRequestError, Job, JobFailedError
from tests.hostile_urls import HOSTILE
from tests.sites import Site, page, redirect, site
from tests.support import Service, carrel, running_service

RULES = b"<!doctype html><title>Rules</title><h1>Loans</h1><p>Books may be kept for four weeks.</p>"
PAGES = {
    "/rules": redirect("/rules.html"),
    "/rules.html": page(RULES, "text/html; charset=utf-8"),
    "/picture": page(b"\x89PNG\0", "image/png"),
    "/inward": redirect("http://127.0.0.2/latest/meta-data/"),
}


@pytest.fixture(scope="module")
def pages() -> Iterator[Site]:
    def answer(line: str, connection: socket.socket) -> None:
        connection.sendall(PAGES.get(line.split()[1].partition("?")[0], page(b"", status="404 Not Found")))

    with site(answer) as running:
        yield running


@pytest.fixture(scope="module")
def fetching(pages: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    allowed = {"url_fetch_allow": "127.0.0.1", "url_fetch_ports": f"80,{pages.port}", "url_fetch_seconds": 20}
    with running_service(tmp_path_factory.mktemp("urls"), embedding_runtime="hash", **allowed) as running:
        yield running


def brought(client: Carrel, url: str, **fields: str) -> Job:
    job = client.documents.create(url=url, **fields).wait()  # type: ignore[arg-type]
    assert job is not None
    return job


def failed(client: Carrel, url: str) -> tuple[str | None, str | None]:
    with pytest.raises(JobFailedError) as failure:
        brought(client, url)
    return failure.value.code, failure.value.detail


def test_a_url_becomes_a_document_of_its_tenant(fetching: Service, pages: Site) -> None:
    (_, mine), (_, other) = fetching.tenant(), fetching.tenant()
    submitted = mine.documents.create(url=pages.url("/rules?v=1#loans"))
    assert (submitted.document.state, submitted.document.external_id) == ("queued", pages.url("/rules?v=1"))
    job = submitted.wait()
    assert job is not None
    assert (job.state, job.chunks_total) == ("succeeded", 1)
    [passage] = mine.query("how long may books be kept").passages
    assert (passage.title, passage.source) == ("Rules", pages.url("/rules.html"))
    text = mine.documents.text(passage.document_id)
    assert text[passage.start : passage.end] == passage.text
    assert "four weeks" in passage.text
    document = mine.documents.get(passage.document_id)
    assert (document.media_type, document.bytes, document.version) == ("text/html", len(RULES), 1)
    assert other.query("how long may books be kept").passages == []
    assert [*other.documents.list()] == []
    again = brought(mine, pages.url("/rules?v=1"))
    assert (again.state, again.chunks_total, again.tokens_charged) == ("succeeded", 0, 0)
    assert mine.documents.get(passage.document_id).version == 1
    assert brought(other, pages.url("/rules")).tokens_charged > 0, "what another tenant fetched is no cache of mine"


def test_what_cannot_be_fetched_says_why(fetching: Service, pages: Site) -> None:
    _, mine = fetching.tenant()
    assert failed(mine, pages.url("/gone")) == ("fetch_failed", "The site answered 404.")
    assert failed(mine, pages.url("/picture"))[0] == "unsupported_media_type"
    code, detail = failed(mine, pages.url("/inward"))
    assert code == "url_refused"
    assert detail is not None
    assert "does not lead to a public address" in detail
    assert mine.query("books").passages == []


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.2/", "http://2130706433/", "file:///etc/passwd", "http://u:p@example.org/", "http://example.org:22/"],
)
def test_the_form_is_refused_at_once(fetching: Service, url: str) -> None:
    _, mine = fetching.tenant()
    with pytest.raises(InvalidRequestError) as refused:
        mine.documents.create(url=url)
    assert (refused.value.code, refused.value.field) == ("url_refused", "url")
    assert [*mine.documents.list()] == []


def test_a_body_has_one_of_text_and_url(fetching: Service) -> None:
    headers = {"Authorization": f"Bearer {fetching.key(fetching.tenant()[0])}"}
    for body in ({}, {"text": "words", "url": "https://example.org/"}):
        answer = httpx2.post(f"{fetching.url}/v1/documents", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
        assert "Give either `text` or `url`." in answer.text
    _, mine = fetching.tenant()
    with pytest.raises(CarrelClientError, match="exactly one"):
        mine.documents.create(text="words", url="https://example.org/")
    with pytest.raises(InvalidRequestError, match="dry run"):
        mine.documents.create(url="https://example.org/", dry_run=True)


def test_the_command_takes_urls_beside_files(fetching: Service, pages: Site, tmp_path: Path) -> None:
    name, mine = fetching.tenant()
    (tmp_path / "pens.txt").write_text("Pens stay outside.")
    sources = [str(tmp_path / "pens.txt"), pages.url("/rules"), pages.url("/gone")]
    done = carrel("ingest", *sources, "--tenant", name, "--json", env=fetching.env)
    assert done.returncode == 1
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["documents"] == 2
    assert summary["failed"] == [{"path": pages.url("/gone"), "reason": "The site answered 404."}]
    assert {document.external_id for document in mine.documents.list() if document.state == "live"} == {
        "pens.txt",
        pages.url("/rules"),
    }
    for wrong in ([pages.url(), "--dry-run"], [str(tmp_path / "missing")]):
        assert carrel("ingest", *wrong, "--tenant", name, env=fetching.env).returncode == 2


def test_a_worker_that_is_killed_while_it_fetches_fetches_again(fetching: Service, pages: Site) -> None:
    _, mine = fetching.tenant()
    answer, asked = pages.answer, len(pages.requests)

    def kills(line: str, connection: socket.socket) -> None:
        pages.answer = answer
        fetching.kill("worker")
        answer(line, connection)

    pages.answer = kills
    assert brought(mine, pages.url("/rules.html")).state == "succeeded"
    assert len(pages.requests) == asked + 2


def test_a_service_whose_operator_allows_nothing_reaches_nothing_inside(tmp_path: Path) -> None:
    with site(lambda _line, _connection: None) as listener:
        with running_service(tmp_path, embedding_runtime="hash", url_fetch_ports=listener.port) as service:
            (name, mine), (_, other) = service.tenant(), service.tenant()
            with httpx2.Client(headers={"Authorization": f"Bearer {service.key(name)}"}, timeout=30) as http:
                for url in HOSTILE:
                    sent = http.post(f"{service.url}/v1/documents", json={"url": url.replace("{port}", str(listener.port))})
                    assert (sent.status_code, sent.json()["field"]) == (422, "url"), url
            assert failed(mine, f"http://localhost:{listener.port}/") == (
                "url_refused",
                "The URL does not lead to a public address.",
            )
            assert len([*mine.documents.list()]) == 1, "the one that a job refused"
            assert [*other.documents.list()] == []
        assert listener.connections == 0


@pytest.mark.full
def test_nothing_is_fetched_where_it_is_switched_off(tmp_path: Path, pages: Site) -> None:
    with running_service(tmp_path, embedding_runtime="hash", url_fetch="off") as service:
        _, mine = service.tenant()
        with pytest.raises(InvalidRequestError, match="does not fetch URLs"):
            mine.documents.create(url="https://example.org/")
        assert brought_text(mine) == "succeeded"


def brought_text(client: Carrel) -> str | None:
    job = client.documents.create(text="Some words.").wait()
    return None if job is None else job.state
