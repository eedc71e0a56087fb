"""The client against a server that misbehaves: what it tries again, what it never does, and what it raises."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import carrel_client._async.jobs
import carrel_client._sync.jobs
from carrel_client import (
    AuthenticationError,
    BudgetExhaustedError,
    Carrel,
    CarrelClientError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    TransportError,
    exchange,
)
from tests.looped import client_of

Answer = tuple[int, dict[str, str], bytes] | None  #: None: the connection is cut


@dataclass
class Server:
    """Gives the answers in turn, the last one for ever, and remembers what was asked."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            state.asked.append((self.command, self.path, body))
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = state.answer()
            if answer is None:
                self.connection.close()
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = handle_any

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited, without waiting."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(carrel_client._sync.world, "sleep", waited.append)
    monkeypatch.setattr(carrel_client._async.world, "sleep", sleep)
    return waited


@pytest.fixture(params=["threads", "loop"])
def carrel(request: pytest.FixtureRequest, server: Server, pauses: list[float]) -> Iterator[Carrel]:
    """The client of each world."""
    with client_of(request.param, server.url) as carrel:
        yield carrel


def _json(status: int, data: Any, **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **given}, json.dumps(data).encode()


def _problem(status: int, *, retryable: bool = False, **fields: Any) -> dict[str, Any]:
    return {"status": status, "code": "some_code", "detail": "Because.", "retryable": retryable} | fields


OK = _json(200, {"month": "2026-03", "limit": None, "used": 1, "held": 0, "remaining": None, "days": [], "newer": "field"})
BUSY = _json(503, _problem(503, retryable=True), Retry_After="7")


def _create(carrel: Carrel) -> object:
    return carrel.collections.create(name="x")


def test_a_refusal_that_passes_is_waited_out(server: Server, carrel: Carrel, pauses: list[float]) -> None:
    server.answers = [BUSY, BUSY, OK]
    assert carrel.usage().used == 1
    assert pauses == [7, 7]
    assert server.headers[0]["authorization"] == "Bearer carrel_key_x"


def test_waiting_ends_after_the_agreed_number_of_tries(server: Server, carrel: Carrel, pauses: list[float]) -> None:
    server.answers = [BUSY]
    with pytest.raises(ServiceUnavailableError) as refused:
        carrel.usage()
    assert refused.value.retryable
    assert len(server.asked) == 4
    assert len(pauses) == 3


def test_no_wait_is_longer_than_the_cap(server: Server, carrel: Carrel, pauses: list[float]) -> None:
    server.answers = [_json(429, _problem(429, retryable=True), Retry_After="86400"), OK]
    carrel.usage()
    assert pauses == [exchange.MAX_PAUSE_S]


@pytest.mark.parametrize("header", [{}, {"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {"Retry_After": "-1"}])
def test_without_a_usable_hint_waits_grow_and_stay_small(
    server: Server, carrel: Carrel, pauses: list[float], header: dict[str, str]
) -> None:
    server.answers = [_json(503, _problem(503, retryable=True), **header)]
    with pytest.raises(ServiceUnavailableError):
        carrel.usage()
    assert all(0 <= pause <= exchange.FIRST_PAUSE_S * 2**attempt for attempt, pause in enumerate(pauses))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (402, BudgetExhaustedError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, InvalidRequestError),
        (415, InvalidRequestError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (500, ServiceUnavailableError),
    ],
)
def test_a_problem_becomes_its_own_error_with_all_it_says(
    server: Server, carrel: Carrel, status: int, kind: type[Exception]
) -> None:
    server.answers = [_json(status, _problem(status, field="name", limit=3), X_Request_Id="req_1")]
    with pytest.raises(kind) as refused:
        _create(carrel)
    error: Any = refused.value
    assert (error.status, error.code, error.field, error.limit) == (status, "some_code", "name", 3)
    assert (error.detail, error.request_id) == ("Because.", "req_1")
    assert len(server.asked) == 1


@pytest.mark.parametrize("content", [b"<html>Bad Gateway</html>", b"", b"\xff\xfe", b"[]", b'"text"', b"null", b"7"])
def test_an_error_that_is_no_problem_document_is_still_an_error(server: Server, carrel: Carrel, content: bytes) -> None:
    server.answers = [(502, {"Content-Type": "text/html"}, content)]
    with pytest.raises(ServiceUnavailableError) as refused:
        carrel.usage()
    assert refused.value.status == 502
    assert len(server.asked) == 4  # as a proxy says it while the service is away
    with pytest.raises(ServiceUnavailableError):
        carrel.documents.delete("doc_1")
    assert len(server.asked) == 5


SILENCES: list[Answer] = [None, (200, {"Content-Length": "100"}, b"{")]


@pytest.mark.parametrize("silence", SILENCES, ids=["cut before the answer", "cut inside the answer"])
def test_silence_is_tried_again_where_repeating_is_safe(server: Server, carrel: Carrel, silence: Answer) -> None:
    server.answers = [silence, OK]
    assert carrel.usage().used == 1
    server.answers = [silence, _json(200, {"passages": [], "usage": {}, "timings_ms": {}})]
    assert carrel.query("x").passages == []
    assert [method for method, _, _ in server.asked] == ["GET", "GET", "POST", "POST"]


COLLECTION = {"id": "col_1", "name": "x", "documents": 0, "space": "s", "placement": "shared", "created_at": ""}
TENANT = {"id": "ten_1", "name": "x", "monthly_tokens": None, "created_at": ""}
KEY = {"id": "key_1", "tenant_id": "ten_1", "name": "x", "scopes": [], "collections": None, "labels": None, "secret": "s"}
KEY |= {"created_at": "", "revoked_at": None}
DOCUMENT = {"id": "doc_1", "external_id": "x", "collection": "default", "state": "live", "version": 1, "title": "", "bytes": 1}
DOCUMENT |= {"source": None, "media_type": "", "attributes": {}, "labels": [], "chars": 1, "pages": 0, "created_at": ""}
SUBMITTED = {"document": DOCUMENT, "job": None}
TOKEN = {"token": "t", "expires_at": "", "scopes": []}

CREATING: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (lambda carrel, **more: carrel.collections.create(name="x", **more), COLLECTION),
    (lambda carrel, **more: carrel.documents.create(text="x", **more), SUBMITTED),
    (lambda carrel, **more: carrel.documents.create(content=b"x", **more), SUBMITTED),
    (lambda carrel, **more: carrel.admin.tenants.create(name="x", **more), TENANT),
    (lambda carrel, **more: carrel.admin.keys.create(tenant="x", name="x", scopes=["query"], **more), KEY),
    (lambda carrel, **more: carrel.admin.tenants.token("x", scopes=["query"], **more), TOKEN),
]


@pytest.mark.parametrize("silence", SILENCES, ids=["cut before the answer", "cut inside the answer"])
@pytest.mark.parametrize(("create", "answer"), CREATING)
def test_a_creation_is_tried_again_under_the_key_of_its_first_try(
    server: Server, carrel: Carrel, create: Callable[..., object], answer: dict[str, Any], silence: Answer
) -> None:
    server.answers = [silence, BUSY, _json(201, answer)]
    create(carrel)
    create(carrel)
    create(carrel, idempotency_key="mine")
    first, *rest = [headers["idempotency-key"] for headers in server.headers]
    assert len(first) >= 32
    assert rest[:2] == [first, first]
    assert len({first, rest[2]}) == 2
    assert rest[3] == "mine"


def test_what_changes_nothing_or_is_no_post_carries_no_key(server: Server, carrel: Carrel) -> None:
    server.answers = [_json(200, {"passages": [], "usage": {}, "timings_ms": {}}), _json(404, _problem(404))]
    carrel.query("x")
    with pytest.raises(NotFoundError):
        carrel.documents.delete("doc_1")
    assert [headers.get("idempotency-key") for headers in server.headers] == [None, None]


@pytest.mark.parametrize("silence", SILENCES, ids=["cut before the answer", "cut inside the answer"])
@pytest.mark.parametrize(
    "call",
    [lambda carrel: carrel.documents.delete("doc_1"), lambda carrel: carrel.admin.tenants.update("x", monthly_tokens=1)],
)
def test_silence_on_what_must_not_be_repeated_is_raised(
    server: Server, carrel: Carrel, call: Callable[[Carrel], object], silence: Answer
) -> None:
    server.answers = [silence]
    with pytest.raises(TransportError):
        call(carrel)
    assert len(server.asked) == 1


def test_lasting_silence_is_raised(server: Server, carrel: Carrel) -> None:
    server.answers = [None]
    with pytest.raises(TransportError, match="/v1/usage"):
        carrel.usage()
    assert len(server.asked) == 4


def test_a_file_is_sent_whole_each_time(server: Server, carrel: Carrel) -> None:
    server.answers = [BUSY, None, _json(404, _problem(404))]
    with pytest.raises(NotFoundError):
        carrel.documents.create(content=b"bytes of the file" * 1000, file_name="x.txt", attributes={"year": 2026})
    assert [body.count(b"bytes of the file") for _, _, body in server.asked] == [1000, 1000, 1000]


def test_lists_are_fetched_page_by_page(server: Server, carrel: Carrel) -> None:
    pages = [{"data": [COLLECTION, COLLECTION], "next": "col_1"}, {"data": [COLLECTION], "next": None}]
    server.answers = [_json(200, page) for page in pages]
    assert len(list(carrel.collections.list(page_size=2))) == 3
    assert [path for _, path, _ in server.asked] == ["/v1/collections?limit=2", "/v1/collections?after=col_1&limit=2"]


CHUNKING = {"chunk_tokens": 96, "context_tokens": 40, "overlap_tokens": 24, "splitter": "auto"}
PROFILE = {"name": "precise", "chunking": CHUNKING, "priority": "normal", "rerank": True, "rewrite": True}


def test_a_collections_profile_is_sent_and_read(server: Server, carrel: Carrel) -> None:
    server.answers = [
        _json(201, {**COLLECTION, "profile": "precise"}),
        _json(200, {**COLLECTION, "profile": "economy"}),
        _json(200, {"data": [PROFILE]}),
        _json(200, {"data": [COLLECTION], "next": None}),
    ]
    made = carrel.collections.create(name="x", profile="precise")
    changed = carrel.collections.update("a/b", profile="economy")
    assert (made.profile, changed.profile) == ("precise", "economy")
    [profile] = carrel.collections.profiles()
    assert (profile.name, profile.chunking, profile.priority) == ("precise", CHUNKING, "normal")
    assert [collection.profile for collection in carrel.collections.list()] == ["standard"]  # of a service without them
    assert [(method, path) for method, path, _ in server.asked[:3]] == [
        ("POST", "/v1/collections"),
        ("PATCH", "/v1/collections/a%2Fb"),
        ("GET", "/v1/profiles"),
    ]
    assert json.loads(server.asked[0][2]) == {"name": "x", "profile": "precise"}
    assert json.loads(server.asked[1][2]) == {"profile": "economy"}


def test_without_a_key_or_with_two_contents_nothing_is_sent(
    server: Server, carrel: Carrel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARREL_API_KEY", raising=False)
    with pytest.raises(CarrelClientError, match="key"):
        Carrel(base_url=server.url)
    for given in ({}, {"text": "x", "content": b"x"}):
        with pytest.raises(CarrelClientError, match="exactly one"):
            carrel.documents.create(**given)  # type: ignore[arg-type]
    assert server.asked == []


@pytest.mark.parametrize("key", ["", " \n", "carrel_key_é", "carrel_key_x\nX-Evil: 1"])
def test_what_is_no_key_is_told_without_repeating_it(server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARREL_API_KEY", key)
    with pytest.raises(CarrelClientError) as refused:
        Carrel(base_url=server.url)
    assert "carrel_key" not in str(refused.value)


def test_a_key_as_a_file_has_it_is_one(server: Server) -> None:
    server.answers = [OK]
    with Carrel(api_key="carrel_key_x\n", base_url=server.url) as carrel:
        carrel.usage()
    assert server.headers[0]["authorization"] == "Bearer carrel_key_x"


@pytest.mark.parametrize("dots", [".", ".."])
def test_an_id_of_dots_leads_to_no_other_path(server: Server, carrel: Carrel, dots: str) -> None:
    """`session_documents.delete("..", id)` would delete a document of the library."""
    server.answers = [_json(404, _problem(404))]
    for ask in (lambda: carrel.session_documents.delete(dots, "doc_1"), lambda: carrel.collections.tuning(dots)):
        with pytest.raises(NotFoundError):
            ask()
    quoted = dots.replace(".", "%2E")
    assert [path for _, path, _ in server.asked] == [
        f"/v1/sessions/{quoted}/documents/doc_1",
        f"/v1/collections/{quoted}/tuning",
    ]


def test_an_address_that_is_none_is_an_error_of_the_client(pauses: list[float]) -> None:
    with Carrel(api_key="k", base_url="http://[::1") as carrel:
        for ask in (carrel.usage, lambda: list(carrel.audit.export())):
            with pytest.raises(TransportError):
                ask()
    assert pauses == []


def _job(state: str = "running", **progress: Any) -> dict[str, Any]:
    job = dict.fromkeys(("error_code", "error_detail", "version_id", "retry_of", "finished_at"))
    counts = dict.fromkeys(("chunks_total", "chunks_done", "tokens_charged", "tokens_cached"), 0)
    times = {"created_at": "t", "updated_at": "t"}
    known = {"id": "job_1", "kind": "ingest", "state": state, "stage": "embedding", "document_id": "doc_1"}
    return {**job, **counts, **times, **known, "progress": {"fraction": 0.5, "newer": "field", **progress}}


def _events(*events: tuple[str, dict[str, Any]], **headers: str) -> Answer:
    text = "retry: 1000\n\n: still there\n\n"
    text += "".join(f"id: 1\nevent: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return 200, {"Content-Type": "text/event-stream", **given}, text.encode()


def test_a_watched_job_is_told_at_each_change_and_to_its_end(server: Server, carrel: Carrel) -> None:
    done = _job("succeeded", fraction=1.0)
    server.answers = [
        _events(
            ("progress", _job()),
            ("progress", _job(eta_seconds=3.0)),
            ("progress", _job(tokens_done=5)),
            ("progress", done),
            ("done", done),
        )
    ]
    told = [(job.state, job.progress.tokens_done) for job in carrel.jobs.watch("job_1")]
    assert told == [("running", 0), ("running", 5), ("succeeded", 0)]
    assert [path for _, path, _ in server.asked] == ["/v1/jobs/job_1/events"]
    assert server.headers[0]["accept"] == "text/event-stream"


def test_a_stream_that_is_cut_off_is_begun_again(server: Server, carrel: Carrel, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = _events(("progress", _job()), Content_Length="9999")
    polled = [_json(200, _job(tokens_done=count)) for count in (1, 2)]
    server.answers = [cut, polled[0], None, polled[1], _events(("done", _job("failed")))]
    for world in (carrel_client._sync, carrel_client._async):
        monkeypatch.setattr(world.jobs, "WITHOUT_STREAM_S", 0.0)
    told = [(job.state, job.progress.tokens_done) for job in carrel.jobs.watch("job_1")]
    assert told == [("running", 0), ("running", 1), ("running", 2), ("failed", 0)]


REFUSED_STREAMS: list[Answer] = [
    _json(429, _problem(429, retryable=True), Retry_After="5"),
    _json(404, _problem(404)),
    (200, {"Content-Type": "text/html"}, b"<html>a proxy</html>"),
    (200, {"Content-Type": "text/event-stream"}, b"event: progress\ndata: {broken\n\n"),
]


@pytest.mark.parametrize("refused", REFUSED_STREAMS, ids=["limit", "older service", "proxy", "broken"])
def test_without_a_stream_a_watched_job_is_polled(server: Server, carrel: Carrel, refused: Answer) -> None:
    server.answers = [refused, _json(200, _job()), _json(200, _job(tokens_done=1)), _json(200, _job("succeeded"))]
    assert [job.state for job in carrel.jobs.watch("job_1")] == ["running", "running", "succeeded"]
    assert [path for _, path, _ in server.asked] == ["/v1/jobs/job_1/events"] + ["/v1/jobs/job_1"] * 3


def test_a_job_that_is_missing_is_not_watched(server: Server, carrel: Carrel) -> None:
    server.answers = [_json(404, _problem(404))]
    with pytest.raises(NotFoundError):
        next(carrel.jobs.watch("job_1"))


def test_a_job_of_an_older_service_is_still_a_job(server: Server, carrel: Carrel) -> None:
    older = {name: value for name, value in _job().items() if name not in ("progress", "version_id", "retry_of", "finished_at")}
    server.answers = [_json(200, older)]
    job = carrel.jobs.get("job_1")
    assert (job.retry_of, job.progress.fraction, job.progress.eta_seconds) == (None, 0.0, None)


def test_events_are_fetched_behind_the_one_given(server: Server, carrel: Carrel) -> None:
    event = {"id": "evt_2", "type": "key.created", "subject": "key_1", "at": "t", "data": {"scopes": []}}
    server.answers = [_json(200, {"data": [event], "next": "cursor"}), _json(200, {"data": [], "next": None})]
    assert [found.id for found in carrel.events.list(since="evt_1", type="key.", page_size=1)] == ["evt_2"]
    assert [path for _, path, _ in server.asked] == [
        "/v1/events?type=key.&since=evt_1&limit=1",
        "/v1/events?type=key.&since=evt_1&after=cursor&limit=1",
    ]
