"""Documents and questions over HTTP, as a user's program brings and asks them. Two tenants share every service here."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx2
import pytest

from carrel_client import (
    AuthenticationError,
    BudgetExhaustedError,
    ConflictError,
    InvalidRequestError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
)
from ingestion.media import DOCX, PPTX, XLSX
from tests.documents import GOOD
from tests.support import Service

LOANS = "A borrowed book may be kept for four weeks.\n\nMaps do not leave the house. Ünïcödé 漢字 😀 stays."


def test_text_becomes_a_cited_passage(service: Service) -> None:
    _, carrel = service.tenant()
    submitted = carrel.documents.create(text=LOANS, title="Loans", source="https://library.example/loans")
    job = submitted.wait()
    assert job is not None
    assert (job.state, job.chunks_done) == ("succeeded", job.chunks_total)
    passage = carrel.query("how long may I keep a book?").passages[0]
    text = carrel.documents.text(passage.document_id)
    assert text == LOANS
    assert text[passage.start : passage.end] == passage.text
    assert (passage.title, passage.source) == ("Loans", "https://library.example/loans")
    assert passage.tokens > 0


def test_every_format_keeps_offsets_headings_and_pages(service: Service, repository: Path) -> None:
    _, carrel = service.tenant()
    folder = repository / "examples" / "handbook"
    for path in sorted(folder.iterdir()):
        carrel.documents.create(file=path, external_id=path.name).wait()
    found = {}
    for question in ("what does a lost book cost?", "magazines as gifts", "scans of articles by e-mail", "map room"):
        for passage in carrel.query(question, top_k=20).passages:
            text = carrel.documents.text(passage.document_id)
            assert text[passage.start : passage.end] == passage.text
            found[passage.external_id] = passage
    assert set(found) == {"loans.md", "rooms.txt", "gifts.html", "interlibrary.pdf"}
    assert found["loans.md"].headings[0] == "Borrowing"
    assert found["gifts.html"].title == "Gifts and bequests"
    assert "Home" not in found["gifts.html"].text
    assert (found["interlibrary.pdf"].first_page, found["interlibrary.pdf"].last_page) == (1, 3)


def test_files_of_every_kind_are_found_and_cited(service: Service, tmp_path: Path) -> None:
    _, carrel = service.tenant()
    jobs = []
    for kind, (suffix, make) in GOOD.items():
        path = tmp_path / f"rules{suffix}"
        path.write_bytes(make())
        submitted = carrel.documents.create(file=path, external_id=kind)
        assert submitted.document.media_type == kind
        jobs.append(submitted)
    for submitted in jobs:
        submitted.wait()
    found = {}
    for passage in carrel.query("for how many weeks may a book be kept?", top_k=50).passages:
        text = carrel.documents.text(passage.document_id)
        assert text[passage.start : passage.end] == passage.text
        found.setdefault(passage.external_id, passage)
    assert found.keys() == GOOD.keys()
    assert (found[DOCX].title, found[DOCX].headings[0]) == ("House rules", "Loans")
    assert [passage.first_page for passage in (found[PPTX], found[XLSX], found[DOCX])] == [1, 1, None]
    _, other = service.tenant()
    assert other.query("for how many weeks may a book be kept?").passages == []


def test_the_same_content_twice_is_one_document_and_free(service: Service) -> None:
    _, carrel = service.tenant()
    first = carrel.documents.create(text=LOANS)
    first.wait()
    charged = carrel.usage().used
    second = carrel.documents.create(text=LOANS)
    assert second.job is None
    assert second.document.id == first.document.id
    assert carrel.usage().used == charged > 0


def test_the_same_content_under_another_name_costs_its_tenant_nothing(service: Service) -> None:
    charged = []
    for _, carrel in (service.tenant(), service.tenant()):
        for name in ("first.txt", "second.txt"):
            brought = carrel.documents.create(content=LOANS.encode(), file_name=name, external_id=name)
            job = brought.wait()
            assert job is not None
            charged.append((job.chunks_total, job.tokens_charged))
        assert carrel.usage().used == charged[-2][1]
        assert len([*carrel.documents.list()]) == 2
    assert charged[0] == charged[2] > (0, 0)  # the other tenant pays for itself
    assert charged[1] == charged[3] == (charged[0][0], 0)


def test_a_new_version_replaces_the_old_and_pays_for_what_changed(service: Service) -> None:
    _, carrel = service.tenant()
    kept = "\n\n".join(f"Room {number} is open until eight in the evening. " * 15 for number in range(5))
    first = carrel.documents.create(text=f"{kept}\n\nOld rule: ten books.", external_id="rules").wait()
    second = carrel.documents.create(text=f"{kept}\n\nNew rule: fifteen books.", external_id="rules").wait()
    passages = carrel.query("rule about books", top_k=50).passages
    assert any("fifteen" in passage.text for passage in passages)
    assert not any("ten books" in passage.text for passage in passages)
    assert {passage.version for passage in passages} == {2}
    assert first is not None
    assert second is not None
    assert 0 < second.tokens_charged < first.tokens_charged / 2


def test_a_deleted_document_is_gone_at_once_and_leaves_nothing(service: Service) -> None:
    _, carrel = service.tenant()
    submitted = carrel.documents.create(text=LOANS)
    submitted.wait()
    job = carrel.documents.delete(submitted.document.id)
    assert carrel.query("book").passages == []
    for call in (carrel.documents.get, carrel.documents.text, carrel.documents.delete):
        with pytest.raises(NotFoundError):
            call(submitted.document.id)
    assert carrel.jobs.wait(job.id).state == "succeeded"
    assert list(carrel.documents.list()) == []


def test_tenants_do_not_see_each_other(service: Service) -> None:
    _, alice = service.tenant()
    _, bob = service.tenant()
    mine = alice.documents.create(text="The secret of the alder is kept by Alice.")
    mine.wait()
    bob.documents.create(text="Bob keeps bees.").wait()
    assert {p.text for p in bob.query("secret of the alder", top_k=100).passages} == {"Bob keeps bees."}
    assert mine.job is not None
    for call, argument in (
        (bob.documents.get, mine.document.id),
        (bob.documents.text, mine.document.id),
        (bob.documents.delete, mine.document.id),
        (bob.jobs.get, mine.job.id),
    ):
        with pytest.raises(NotFoundError) as foreign:
            call(argument)
        with pytest.raises(NotFoundError) as missing:
            call(argument[:-4] + "zzzz")
        assert (foreign.value.code, foreign.value.detail) == (missing.value.code, missing.value.detail)
    assert len(list(alice.documents.list())) == 1


def test_equal_text_of_two_tenants_is_paid_twice(service: Service) -> None:
    """A shared cache would tell one tenant what another has embedded."""
    charged = []
    for _ in range(2):
        _, carrel = service.tenant()
        job = carrel.documents.create(text="Equal words in two rooms.").wait()
        assert job is not None
        charged.append(job.tokens_charged)
    assert charged[0] == charged[1] > 0


def test_labels_and_collections_bound_what_a_key_sees(service: Service) -> None:
    name, carrel = service.tenant()
    carrel.collections.create(name="minutes")
    carrel.documents.create(text="Open to all.", external_id="open").wait()
    carrel.documents.create(text="For the board only.", external_id="board", labels=["board"]).wait()
    carrel.documents.create(text="Minutes of May.", external_id="may", collection="minutes").wait()
    staff = service.client(service.key(name, "query", "ingest", labels=["staff"]))
    clerk = service.client(service.key(name, "query", collections=["minutes"]))
    assert {p.external_id for p in staff.query("board", top_k=50).passages} == {"open"}
    assert {d.external_id for d in staff.documents.list()} == {"open", "may"}
    with pytest.raises(PermissionDeniedError):
        staff.documents.create(text="x", labels=["board"])
    with pytest.raises(PermissionDeniedError):
        staff.documents.create(text="overwritten", external_id="board")
    assert {p.external_id for p in clerk.query("minutes", collections=["minutes"]).passages} == {"may"}
    with pytest.raises(NotFoundError):
        clerk.query("open", collections=["default"])
    assert [c.name for c in clerk.collections.list()] == ["minutes"]


def test_a_version_that_failed_does_not_open_a_labelled_document(service: Service) -> None:
    name, carrel = service.tenant()
    live = carrel.documents.create(text="For the board only.", external_id="board", labels=["board"])
    live.wait()
    broken = carrel.documents.create(content=b"%PDF-1.4 broken", file_name="b.pdf", external_id="board")
    with pytest.raises(JobFailedError):
        broken.wait()
    outsider = service.client(service.key(name, "query", "ingest", labels=["staff"]))
    with pytest.raises(PermissionDeniedError):
        outsider.documents.create(text="overwritten", external_id="board")
    assert live.job is not None
    with pytest.raises(NotFoundError):
        outsider.jobs.get(live.job.id)
    assert carrel.documents.text(live.document.id) == "For the board only."


def test_filters_narrow_by_attributes(service: Service) -> None:
    _, carrel = service.tenant()
    for year in (2019, 2022, 2026):
        carrel.documents.create(text=f"Report of {year}.", attributes={"year": year, "kind": "report"}).wait()
    carrel.documents.create(text="A letter.", attributes={"kind": "letter"}).wait()

    def years(filter_: dict[str, object]) -> set[object]:
        return {p.attributes.get("year") for p in carrel.query("report", top_k=50, filter=filter_).passages}

    assert years({"key": "year", "op": "gte", "value": 2022}) == {2022, 2026}
    assert years({"op": "not", "filter": {"key": "kind", "op": "eq", "value": "report"}}) == {None}
    recent = {"key": "year", "op": "lt", "value": 2026}
    assert years({"op": "and", "filters": [recent, {"key": "year", "op": "ne", "value": 2019}]}) == {2022}
    with pytest.raises(InvalidRequestError) as refused:
        carrel.query("x", filter={"key": "year", "op": "like", "value": 1})
    assert refused.value.field == "filter.op"


def test_an_exhausted_budget_refuses_before_anything_is_kept(service: Service) -> None:
    _, carrel = service.tenant(monthly_tokens=30)
    with pytest.raises(JobFailedError) as failed:
        carrel.documents.create(text="More words than thirty tokens can pay for. " * 20).wait()
    assert failed.value.code == "budget_exhausted"
    assert carrel.query("words").passages == []
    usage = carrel.usage()
    assert usage.used <= 30
    assert usage.held == 0
    carrel.documents.create(text="Few words.").wait()
    for question in map(str, range(30)):
        with contextlib.suppress(BudgetExhaustedError):
            carrel.query(question)
    with pytest.raises(BudgetExhaustedError):
        carrel.query("one question more")
    assert carrel.usage().used <= 30


def test_an_empty_budget_still_lets_labels_be_tightened_and_content_be_repeated(service: Service) -> None:
    name, carrel = service.tenant()
    carrel.documents.create(text="Words that are known.", external_id="known").wait()
    with service.admin as admin:
        admin.admin.tenants.update(name, monthly_tokens=carrel.usage().used)
    assert carrel.documents.create(text="Words that are known.", external_id="known").job is None
    carrel.documents.create(text="Words that are known.", external_id="known", labels=["board"]).wait()
    assert next(carrel.documents.list()).labels == ["board"]
    with pytest.raises(BudgetExhaustedError):
        carrel.documents.create(text="Words that are new.")


def test_nothing_of_a_deleted_document_stays_on_disk(service: Service) -> None:
    _, carrel = service.tenant()
    blobs = service.data_dir / "blobs"
    before = {path.name for path in blobs.glob("??/*")}
    page = b"<html><h1>Traces</h1><p>This text is extracted into a file of its own.</p></html>"
    submitted = carrel.documents.create(content=page, file_name="traces.html")
    submitted.wait()
    assert len({path.name for path in blobs.glob("??/*")} - before) == 2
    carrel.jobs.wait(carrel.documents.delete(submitted.document.id).id)
    assert {path.name for path in blobs.glob("??/*")} - before == set()


def test_an_unreadable_file_fails_with_a_reason_and_can_be_deleted(service: Service) -> None:
    _, carrel = service.tenant()
    submitted = carrel.documents.create(content=b"%PDF-1.7 nothing here", file_name="broken.pdf")
    with pytest.raises(JobFailedError, match="damaged"):
        submitted.wait()
    assert carrel.documents.get(submitted.document.id).state == "failed"
    carrel.jobs.wait(carrel.documents.delete(submitted.document.id).id)
    assert list(carrel.documents.list()) == []


def test_lists_are_paged(service: Service) -> None:
    _, carrel = service.tenant()
    for number in range(5):
        carrel.documents.create(text=f"Document number {number}.", external_id=str(number))
    assert [d.external_id for d in carrel.documents.list(page_size=2)] == list("01234")
    with pytest.raises(ConflictError):
        carrel.collections.create(name="default")


def test_a_revoked_key_is_refused_at_once(service: Service) -> None:
    name, _ = service.tenant()
    with service.admin as admin:
        key = admin.admin.keys.create(tenant=name, name="short", scopes=["query"])
        carrel = service.client(key.secret)
        assert carrel.query("anything").passages == []
        admin.admin.keys.revoke(key.id)
    with pytest.raises(AuthenticationError):
        carrel.query("anything")


BAD_JSON: list[tuple[dict[str, object], int, str]] = [
    ({}, 422, "text"),
    ({"text": ""}, 422, "content"),
    ({"text": " \n\t"}, 422, "content"),
    ({"text": 5}, 422, "text"),
    ({"text": None}, 422, "text"),
    ({"text": "a\0b"}, 422, "text"),
    ({"text": "x", "surprise": 1}, 422, "surprise"),
    ({"text": "x", "format": "docx"}, 422, "format"),
    ({"text": "x", "collection": "nowhere"}, 404, "collection"),
    ({"text": "x", "title": "t" * 501}, 422, "title"),
    ({"text": "x", "external_id": ""}, 422, "external_id"),
    ({"text": "x", "external_id": "e" * 513}, 422, "external_id"),
    ({"text": "x", "labels": ["l"] * 17}, 422, "labels"),
    ({"text": "x", "attributes": {f"k{n}": n for n in range(17)}}, 422, "attributes"),
    ({"text": "x", "attributes": {"k": "v" * 513}}, 422, "attributes.k"),
    ({"text": "x", "attributes": {"k": [1]}}, 422, "attributes.k"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD_JSON)
def test_bad_input_is_a_4xx_that_names_the_field_and_keeps_nothing(
    service: Service, body: dict[str, object], status: int, field: str
) -> None:
    name, carrel = service.tenant()
    response = httpx2.post(f"{service.url}/v1/documents", json=body, headers=_bearer(service.key(name)))
    problem = response.json()
    assert response.status_code == status, problem
    assert problem["field"].startswith(field)
    assert problem["code"]
    assert response.headers["content-type"] == "application/problem+json"
    assert list(carrel.documents.list()) == []


RAW: list[tuple[bytes, str, int]] = [
    (b"{", "application/json", 422),
    (b'{"text": "\\ud800"}', "application/json", 422),
    (b'{"text": "x", "title": "\\udfff"}', "application/json", 422),
    (b"[" * 100_000, "application/json", 422),
    (b'{"text": "x", "attributes": {"n": NaN}}', "application/json", 422),
    (b'{"text": "x", "attributes": {"n": 1e999}}', "application/json", 422),
    (b"text=x", "application/x-www-form-urlencoded", 415),
    (b"x", "", 415),
    (
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
        "multipart/form-data; boundary=b; charset=undefined",
        422,
    ),
    (b"garbage", "multipart/form-data; boundary=x", 422),
]


@pytest.mark.parametrize(("body", "kind", "status"), RAW)
def test_a_body_that_cannot_be_read_is_refused(service: Service, body: bytes, kind: str, status: int) -> None:
    name, carrel = service.tenant()
    headers = {**_bearer(service.key(name)), "Content-Type": kind}
    response = httpx2.post(f"{service.url}/v1/documents", content=body, headers=headers)
    assert response.status_code == status, response.text
    assert list(carrel.documents.list()) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": "   "}, "query"),
        ({"query": "x" * 8001}, "query"),
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "top_k": 10**9}, "top_k"),
        ({"query": "x", "top_k": "NaN"}, "top_k"),
        ({"query": "x", "collections": []}, "collections"),
        ({"query": "x", "collections": ["nowhere"]}, "collection"),
        ({"query": "x", "filter": {"op": "and", "filters": []}}, "filter.filters"),
        ({"query": "x", "extra": 1}, "extra"),
        ({"query": "x", "filter": {"key": "a\0", "op": "eq", "value": 1}}, "filter.key"),
        ({"query": "x", "filter": {"key": "a", "op": "eq", "value": "\0"}}, "filter.value"),
    ],
)
def test_a_bad_question_names_the_field(service: Service, body: dict[str, object], field: str) -> None:
    name, _ = service.tenant()
    response = httpx2.post(f"{service.url}/v1/query", json=body, headers=_bearer(service.key(name)))
    assert response.status_code in (404, 422)
    assert response.json()["field"] == field


def test_a_field_name_that_no_text_can_hold_is_still_a_problem(service: Service) -> None:
    name, _ = service.tenant()
    headers = {**_bearer(service.key(name)), "Content-Type": "application/json"}
    body = b'{"query": "x", "filter": {"\\ud800": 1, "op": "eq"}}'
    response = httpx2.post(f"{service.url}/v1/query", content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


def test_a_budget_has_a_bound(service: Service) -> None:
    with service.admin as admin, pytest.raises(InvalidRequestError) as refused:
        admin.admin.tenants.create(name="too-rich", monthly_tokens=2**63)
    assert refused.value.field == "monthly_tokens"


def test_a_body_over_the_limit_is_refused_by_its_declared_and_by_its_real_size(service: Service) -> None:
    name, _ = service.tenant()
    headers = {**_bearer(service.key(name)), "Content-Type": "application/json"}

    def endless() -> object:
        for _ in range(40):
            yield b" " * 1024 * 1024

    for content in (b" " * (34 * 1024 * 1024), endless()):
        response = httpx2.post(f"{service.url}/v1/documents", content=content, headers=headers, timeout=60)  # type: ignore[arg-type]
        assert response.status_code == 413, response.text
        assert response.json()["code"] == "too_large"


def test_scopes_hold_before_the_body_is_read(service: Service) -> None:
    name, _ = service.tenant()
    reader = _bearer(service.key(name, "query"))
    broken = {"content": b"{", "headers": {**reader, "Content-Type": "application/json"}}
    assert httpx2.post(f"{service.url}/v1/documents", **broken).status_code == 403  # type: ignore[arg-type]
    assert httpx2.get(f"{service.url}/v1/usage", headers=reader).status_code == 403
    assert httpx2.get(f"{service.url}/v1/admin/tenants", headers=reader).status_code == 403
    everything = _bearer(service.key(name))
    assert httpx2.get(f"{service.url}/v1/admin/tenants", headers=everything).status_code == 403


def test_an_operator_key_opens_no_tenants_data(service: Service) -> None:
    with service.admin as admin, pytest.raises(PermissionDeniedError):
        admin.query("anything")


@pytest.mark.parametrize("credential", [None, "Bearer", "Bearer carrel_key_x_y", "Basic abc", "Bearer a.b.c"])
def test_without_a_valid_key_nothing_is_reached(service: Service, credential: str | None) -> None:
    headers = {} if credential is None else {"Authorization": credential}
    response = httpx2.post(f"{service.url}/v1/query", content=b"{", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["code"] == "unauthenticated"


def test_requests_carry_an_id_that_cannot_forge_a_log_line(service: Service) -> None:
    given = httpx2.get(f"{service.url}/healthz", headers={"X-Request-Id": "trace-1"})
    assert given.headers["x-request-id"] == "trace-1"
    forged = httpx2.get(f"{service.url}/healthz", headers={"X-Request-Id": "a b{}" * 40})
    assert forged.headers["x-request-id"].startswith("req_")


def test_unknown_paths_and_methods_are_problems(service: Service) -> None:
    name, _ = service.tenant()
    headers = _bearer(service.key(name))
    assert httpx2.get(f"{service.url}/v1/nothing", headers=headers).json()["code"] == "not_found"
    assert httpx2.put(f"{service.url}/v1/query", headers=headers).status_code == 405
    assert httpx2.get(f"{service.url}/v1/nothing").status_code == 401


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
