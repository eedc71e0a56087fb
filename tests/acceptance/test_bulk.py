"""Streams of documents against a real service: what is answered, what is kept, and what breaks on the way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlmodel import select

from carrel_client import AsyncCarrel, BulkResult, BulkStoppedError, Carrel
from carrel_client import bulk as client_bulk
from config.database import Database
from tenants.audit.tables import AuditEntry
from tests.bulk import line, posted, raw_stream
from tests.support import Service, wait_for


@pytest.fixture
def two(quick: Service) -> tuple[str, Carrel, Carrel]:
    """The key and the client of one tenant, and another tenant's client."""
    name, carrel = quick.tenant()
    return quick.key(name), carrel, quick.tenant()[1]


def http(service: Service, key: str) -> httpx2.Client:
    return httpx2.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def test_each_line_is_answered_in_its_place(quick: Service, two: tuple[str, Carrel, Carrel]) -> None:
    key, carrel, other = two
    lines = [line(1), b"\n", b"{broken\n", line(4, collection="nowhere"), line(5, colour="red"), line(6), line(1), b"[]\n"]
    with http(quick, key) as client:
        *answers, last = posted(client, [*lines, line(9).rstrip()])
        assert [answer["line"] for answer in answers] == [1, 3, 4, 5, 6, 7, 8, 9]
        assert [answer["status"] for answer in answers] == [202, 422, 404, 422, 202, 202, 422, 202]
        assert answers[0]["document_id"] == answers[5]["document_id"]
        assert [answer["problem"]["field"] for answer in answers if "problem" in answer][:3] == ["line", "collection", "colour"]
        counts = {"lines": 8, "accepted": 4, "unchanged": 0, "refused": 4, "stopped": None}
        assert last == {"summary": counts}
        for answer in answers:
            if answer["status"] == 202:
                carrel.jobs.wait(answer["job_id"])
        again = posted(client, [line(1), line(6), line(9, text="Board 9 is made of pine.")])
    assert [answer.get("status") for answer in again] == [200, 200, 202, None]
    assert {document.external_id for document in carrel.documents.list()} == {"b1", "b6", "b9"}
    assert list(other.documents.list()) == []
    assert other.query("board of oak").passages == []
    assert carrel.query("board of oak").passages != []


def test_it_stops_where_too_many_were_refused(quick: Service, two: tuple[str, Carrel, Carrel]) -> None:
    key, carrel, _ = two
    lines = [line(1), b"{broken\n", line(3), line(4, collection="nowhere"), line(5), line(6)]
    with http(quick, key) as client:
        *answers, last = posted(client, lines, max_errors=2)
        assert [answer["line"] for answer in answers] == [1, 2, 3, 4]
        assert last["summary"]["stopped"]["next_line"] == 5
        assert last["summary"]["stopped"]["problem"]["field"] == "max_errors"
        assert client.post("/v1/bulk?max_errors=0", content=b"").status_code == 422
        assert client.post("/v1/bulk", json={"text": "no stream"}).status_code == 415
    assert {document.external_id for document in carrel.documents.list()} == {"b1", "b3"}


def test_the_record_tells_what_was_brought(quick: Service, two: tuple[str, Carrel, Carrel]) -> None:
    key, _, _ = two
    with http(quick, key) as client:
        *answers, _ = posted(client, [line(1), b"{broken\n", line(3)])
        tenant = client.get("/v1/documents").json()
    assert len(tenant["data"]) == 2
    database = Database(f"sqlite:///{quick.data_dir / 'carrel.db'}")
    try:
        entries = _entries(database, answers[0]["document_id"])
    finally:
        database.close()
    ended, batch, begun = entries
    assert (begun["bulk"], ended["bulk"]) == ("begun", "ended")
    assert (ended["accepted"], ended["refused"], ended["stopped"]) == (2, 1, None)
    assert [document for document, _ in batch["documents"]] == [answers[0]["document_id"], answers[2]["document_id"]]


def _entries(database: Database, document: str) -> list[dict[str, Any]]:
    """Of the request that brought the document, newest first."""
    with database.system_read() as session:
        every = [entry for entry in session.scalars(select(AuditEntry)) if entry.action == "POST /v1/bulk"]
    [request] = {entry.request_id for entry in every if document in json.dumps(entry.detail)}
    mine = sorted((entry for entry in every if entry.request_id == request), key=lambda entry: entry.id, reverse=True)
    return [entry.detail for entry in mine]


def test_the_client_goes_through_long_streams(
    quick: Service, two: tuple[str, Carrel, Carrel], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, carrel, other = two
    monkeypatch.setattr(client_bulk, "REQUEST_LINES", 40)
    documents = [{"text": f"Board {number}.", "external_id": f"b{number}"} for number in range(100)]
    results = list(carrel.documents.bulk(documents))
    assert [result.line for result in results] == [*range(1, 101)]
    assert {result.status for result in results} == {202}
    lines = [json.dumps(document) for document in documents]

    async def again() -> list[BulkResult]:
        async with AsyncCarrel(api_key=key, base_url=quick.url) as looped:
            return [result async for result in looped.documents.bulk([*lines, "", b"{broken"])]

    repeated = asyncio.run(again())
    assert [result.document_id for result in repeated[:-1]] == [result.document_id for result in results]
    assert repeated[-1].line == 102
    assert repeated[-1].problem is not None
    with pytest.raises(BulkStoppedError) as stopped:
        list(carrel.documents.bulk(["{", *lines[:50], "{", *lines[50:]], max_errors=2))
    assert stopped.value.next_line == 53
    assert len([*carrel.documents.list()]) == 100
    assert [*other.documents.list()] == []


def test_curl_reads_while_it_sends(quick: Service, two: tuple[str, Carrel, Carrel], tmp_path: Path) -> None:
    key, _, _ = two
    (tmp_path / "lines").write_bytes(b"".join(map(line, range(40))))
    options = ["-sS", "--fail", "-T", "-", "-X", "POST", "-H", "Content-Type: application/x-ndjson"]
    with (tmp_path / "lines").open("rb") as lines:
        done = subprocess.run(
            ["curl", *options, "-H", f"Authorization: Bearer {key}", f"{quick.url}/v1/bulk"],
            stdin=lines,
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert len(done.stdout.splitlines()) == 41


def test_what_is_answered_is_read_before_the_stream_ends(quick: Service, two: tuple[str, Carrel, Carrel]) -> None:
    key, carrel, _ = two
    with raw_stream(quick.url, key) as stream:
        stream.send(line(1))
        assert stream.status() == 200
        answers = stream.answers()
        first = next(answers)
        assert carrel.documents.get(first["document_id"]).external_id == "b1"
        stream.send(line(2))
        assert next(answers)["line"] == 2
        stream.send(line(3)[:20])  # a line that never ends
    wait_for(lambda: _stopped(quick, first["document_id"]) == "client_disconnected", what="the end of the stream")
    assert len([*carrel.documents.list()]) == 2


def _stopped(service: Service, document: str) -> object:
    database = Database(f"sqlite:///{service.data_dir / 'carrel.db'}")
    try:
        return _entries(database, document)[0].get("stopped")
    finally:
        database.close()


def test_a_tenant_has_so_many_streams_at_a_time(quick: Service, two: tuple[str, Carrel, Carrel]) -> None:
    key, _, _ = two
    with ExitStack() as stack:
        for _ in range(4):
            stream = stack.enter_context(raw_stream(quick.url, key))
            stream.send(b"\n")
            assert stream.status() == 200
        with http(quick, key) as client:
            headers = {"Content-Type": "application/x-ndjson"}
            refused = client.post("/v1/bulk", content=line(1), headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["retry-after"]
    with http(quick, key) as client:
        wait_for(lambda: client.post("/v1/bulk", content=line(1), headers=headers).status_code == 200, what="a free place")


@pytest.mark.parametrize("count", [120, pytest.param(5_000, marks=pytest.mark.full)])
def test_what_was_answered_outlives_a_kill(quick: Service, two: tuple[str, Carrel, Carrel], count: int) -> None:
    key, carrel, other = two
    answers: list[dict[str, Any]] = []
    with raw_stream(quick.url, key) as stream:
        sender = threading.Thread(target=_send, args=(stream, count))
        sender.start()
        try:
            assert stream.status() == 200
            for answer in stream.answers():
                answers.append(answer)
                if len(answers) == count // 3:
                    quick.kill("api")
        except (OSError, ValueError):
            pass
        sender.join()
    assert count // 3 <= len(answers) < count
    for answer in answers:
        assert carrel.documents.get(answer["document_id"]).external_id == f"b{answer['line'] - 1}"
        assert answer["status"] == 202
    before = {document.external_id: document.id for document in carrel.documents.list()}
    results = list(carrel.documents.bulk(map(line, range(count))))
    assert {result.problem is None for result in results} == {True}
    after = {document.external_id: document.id for document in carrel.documents.list()}
    assert len(after) == count
    assert before.items() <= after.items()
    assert all(result.version == 1 for result in results)
    assert [*other.documents.list()] == []


def _send(stream: Any, count: int) -> None:
    try:
        for number in range(count):
            stream.send(line(number))
        stream.end()
    except OSError:
        return
