"""Jobs and events of a real service: lists, streams over real connections, cancelling, retrying, and who may see what."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from carrel_client import (
    AuthenticationError,
    Carrel,
    InvalidRequestError,
    Job,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
)
from tests.support import PATIENCE, Service, hold_still, running_service, wait_for

BROKEN = b"%PDF-1.7 nothing here"


@contextmanager
def _stream(service: Service, key: str, job_id: str, **headers: str) -> Iterator[httpx2.Response]:
    url = f"{service.url}/v1/jobs/{job_id}/events"
    given = {"Authorization": f"Bearer {key}", **headers}
    with httpx2.Client(timeout=30) as http, http.stream("GET", url, headers=given) as response:
        yield response


def _tenant(service: Service) -> tuple[str, str, Carrel]:
    name, carrel = service.tenant()
    return name, service.key(name), carrel


def _failed(carrel: Carrel, **options: Any) -> str:
    """A job that has failed; its id."""
    submitted = carrel.documents.create(content=BROKEN, file_name="broken.pdf", **options)
    with pytest.raises(JobFailedError):
        submitted.wait()
    assert submitted.job is not None
    return submitted.job.id


@contextmanager
def _worker_stopped(service: Service) -> Iterator[None]:
    """Jobs stay queued meanwhile."""
    worker = service.child("worker")
    assert worker is not None

    hold_still(worker, service.data_dir)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


@pytest.fixture
def held(service: Service) -> Iterator[None]:
    with _worker_stopped(service):
        yield


def _submit(carrel: Carrel, text: str, **options: Any) -> Job:
    job = carrel.documents.create(text=text, **options).job
    assert job is not None
    return job


def test_a_job_shows_its_progress_to_the_end(service: Service) -> None:
    _, carrel = service.tenant()
    seen = list(carrel.jobs.watch(_submit(carrel, "A text. " * 2000).id))
    assert [job.finished for job in seen] == [False] * (len(seen) - 1) + [True]
    last = seen[-1]
    assert (last.state, last.progress.fraction, last.progress.eta_seconds) == ("succeeded", 1.0, 0.0)
    assert last.progress.documents_done == 1
    assert last.progress.chunks_done == last.progress.chunks_total > 1
    assert last.retry_of is None
    assert [job.progress.fraction for job in seen] == sorted(job.progress.fraction for job in seen)


def test_jobs_are_listed_newest_first_by_collection_and_state(service: Service) -> None:
    _, carrel = service.tenant()
    _, other = service.tenant()
    carrel.collections.create(name="minutes")
    jobs = [_submit(carrel, f"Text {number}.").id for number in range(3)]
    minutes = _submit(carrel, "Minutes.", collection="minutes").id
    broken = _failed(carrel)
    for job_id in (*jobs, minutes):
        carrel.jobs.wait(job_id)
    assert {job.id for job in carrel.jobs.list(page_size=2)} == {*jobs, minutes, broken}
    assert next(carrel.jobs.list()).id == broken
    assert [job.id for job in carrel.jobs.list(collection="minutes")] == [minutes]
    assert [job.id for job in carrel.jobs.list(state="failed")] == [broken]
    assert list(other.jobs.list()) == []
    with pytest.raises(NotFoundError):
        next(other.jobs.list(collection="minutes"))
    with pytest.raises(InvalidRequestError):
        next(carrel.jobs.list(state="lost"))


def test_a_stream_starts_with_the_state_and_ends_with_the_job(service: Service) -> None:
    _, key, carrel = _tenant(service)
    job = _submit(carrel, "Some words. " * 500)
    with _stream(service, key, job.id, **{"Last-Event-ID": "1"}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        events = [event for event in httpx2.EventSource(response) if event.data]
    assert [event.event for event in events] == ["progress"] * (len(events) - 1) + ["done"]
    assert all(event.id for event in events)
    last: Any = events[-1].json()
    assert last == events[-2].json()
    assert last == httpx2.get(f"{service.url}/v1/jobs/{job.id}", headers={"Authorization": f"Bearer {key}"}).json()


def test_a_foreign_or_unseen_job_has_no_stream(service: Service) -> None:
    name, _, carrel = _tenant(service)
    _, foreign, _ = _tenant(service)
    job = _submit(carrel, "For the board.", labels=["board"])
    staff = service.key(name, "query", labels=["staff"])
    answers = []
    for key, job_id in ((foreign, job.id), (staff, job.id), (foreign, f"{job.id[:-4]}zzzz")):
        with _stream(service, key, job_id) as response:
            response.read()
            body = response.json()
            answers.append((response.status_code, body["code"], body["detail"]))
    assert answers == [(404, "not_found", "There is no such job.")] * 3
    with _stream(service, service.key(name, "ingest"), job.id) as response:
        assert response.status_code == 403
    for handle in (service.client(staff), service.client(foreign)):
        assert job.id not in [seen.id for seen in handle.jobs.list()]


def test_streams_are_limited_and_given_back_when_their_clients_go(service: Service, held: None) -> None:
    _, key, carrel = _tenant(service)
    _, other_key, other = _tenant(service)
    job, others = _submit(carrel, "Held."), _submit(other, "Held.")
    with ExitStack() as stack:
        for _ in range(8):
            response = stack.enter_context(_stream(service, key, job.id))
            assert response.status_code == 200
        with _stream(service, key, job.id) as refused:
            refused.read()
            assert (refused.status_code, refused.json()["limit"]) == (429, 8)
            assert refused.headers["retry-after"] == "5"
        with _stream(service, other_key, others.id) as allowed:
            assert allowed.status_code == 200
        assert next(service.client(key).jobs.watch(job.id)).state == "queued", "a watch goes on without a stream"

    def given_back() -> bool:
        with _stream(service, key, job.id) as response:
            return response.status_code == 200

    wait_for(given_back, what="the streams of clients that went away")


def test_a_stream_ends_soon_after_its_key_is_revoked(service: Service, held: None) -> None:
    name, _, carrel = _tenant(service)
    job = _submit(carrel, "Held.")
    with service.admin as admin:
        key = admin.admin.keys.create(tenant=name, name="short", scopes=["query"])
        with _stream(service, key.secret, job.id) as response:
            events = iter(httpx2.EventSource(response))
            while not next(events).data:
                continue
            admin.admin.keys.revoke(key.id)
            began = time.monotonic()
            assert [event for event in events if event.data] == []
            assert time.monotonic() - began < 8 * PATIENCE
    with pytest.raises(AuthenticationError):
        service.client(key.secret).jobs.get(job.id)


def test_a_service_that_stops_ends_its_streams_at_once(tmp_path: Path) -> None:
    with running_service(tmp_path, embedding_runtime="hash") as service:
        _, key, carrel = _tenant(service)
        with _worker_stopped(service):
            job = _submit(carrel, "Held.")
            with _stream(service, key, job.id) as response:
                events = iter(httpx2.EventSource(response))
                while not next(events).data:
                    continue
                api = service.child("api")
                assert api is not None
                began = time.monotonic()
                os.kill(api, signal.SIGTERM)
                assert [event for event in events if event.data] == []
                assert time.monotonic() - began < 3 * PATIENCE
        assert list(carrel.jobs.watch(job.id))[-1].state == "succeeded"


def test_a_cancelled_job_is_cancelled_at_once_and_only_once(service: Service, held: None) -> None:
    name, _, carrel = _tenant(service)
    _, other = service.tenant()
    job = _submit(carrel, "Never to be found.", external_id="cancelled")
    with pytest.raises(NotFoundError):
        other.jobs.cancel(job.id)
    with pytest.raises(PermissionDeniedError):
        service.client(service.key(name, "query")).jobs.cancel(job.id)
    cancelled = carrel.jobs.cancel(job.id)
    assert (cancelled.state, cancelled.progress.eta_seconds) == ("cancelled", 0.0)
    assert carrel.jobs.cancel(job.id) == cancelled
    assert carrel.documents.get(job.document_id).state == "cancelled"
    assert [seen.state for seen in carrel.jobs.watch(job.id)] == ["cancelled"]
    with pytest.raises(JobFailedError, match="cancelled"):
        carrel.jobs.wait(job.id)


def test_what_was_cancelled_in_time_is_never_found(service: Service) -> None:
    _, carrel = service.tenant()
    kept = carrel.documents.create(text="An older cormorant.", external_id="bird")
    kept.wait()
    job = _submit(carrel, "A newer cormorant. " * 3000, external_id="bird")
    carrel.jobs.cancel(job.id)
    version = carrel.documents.get(job.document_id)
    carrel.documents.create(text="Done after it.").wait()
    wait_for(lambda: carrel.jobs.get(job.id).stage == "done", what="the cancelled job's remains to be removed")
    assert {passage.text for passage in carrel.query("cormorant", top_k=50).passages if "cormorant" in passage.text} == {
        "An older cormorant."
    }
    assert (version.version, version.state) == (1, "live")


def test_an_ended_job_is_not_cancelled_and_a_delete_cannot_be(service: Service) -> None:
    _, carrel = service.tenant()
    job = carrel.documents.create(text="Done.").wait()
    assert job is not None
    assert carrel.jobs.cancel(job.id).state == "succeeded"
    delete = carrel.documents.delete(job.document_id)
    for call in (carrel.jobs.cancel, carrel.jobs.retry):
        with pytest.raises(InvalidRequestError, match="delete"):
            call(delete.id)


def test_a_retry_that_is_not_possible_says_why(service: Service) -> None:
    name, _, carrel = _tenant(service)
    _, other = service.tenant()
    broken = _failed(carrel, external_id="broken")
    with pytest.raises(NotFoundError):
        other.jobs.retry(broken)
    with pytest.raises(PermissionDeniedError):
        service.client(service.key(name, "query")).jobs.retry(broken)
    done = carrel.documents.create(text="Mended.", external_id="broken").wait()
    assert done is not None
    with pytest.raises(InvalidRequestError, match="newer version"):
        carrel.jobs.retry(broken)
    with pytest.raises(InvalidRequestError, match="succeeded"):
        carrel.jobs.retry(done.id)


def test_events_tell_what_happened_in_order(service: Service) -> None:
    name, _, carrel = _tenant(service)
    _, other = service.tenant()
    job = carrel.documents.create(text="Words of an event.").wait()
    assert job is not None
    carrel.jobs.wait(carrel.documents.delete(job.document_id).id)
    events = list(carrel.events.list(page_size=2))
    types = [event.type for event in events]
    assert types[0] == "tenant.created"
    assert "key.created" in types
    told = [event.type for event in events if event.subject == job.document_id]
    assert [kind for kind in told if kind in ("document.queued", "document.deleted")] == ["document.queued", "document.deleted"]
    assert "Words of" not in json.dumps([event.data for event in events])
    assert {event.type for event in carrel.events.list(type="key.")} == {"key.created"}
    assert [event.id for event in carrel.events.list(since=events[1].id)] == [event.id for event in events[2:]]
    assert job.document_id not in [event.subject for event in other.events.list()]
    for cursor in (events[0].id, "evt_unknown"):
        with pytest.raises(InvalidRequestError, match="begin again"):
            next(other.events.list(since=cursor))
    for bounds in ({"collections": ["default"]}, {"labels": ["staff"]}):
        confined = service.client(service.key(name, "manage", **bounds))
        with pytest.raises(PermissionDeniedError, match="confined"):
            next(confined.events.list())
    with pytest.raises(PermissionDeniedError):
        next(service.client(service.key(name, "query", "ingest")).events.list())
