"""Documents by URL, from the request to what can be found: fetched once, kept once, fenced like every step."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from config.clock import system_clock
from config.database import Database
from config.errors import FetchFailed, LeaseLost, NotFound, UrlRefused
from ingestion.fetch.addresses import UrlPolicy
from ingestion.fetch.fetcher import Fetcher
from ingestion.intake.submission import Submission, check
from ingestion.jobs.jobs import Jobs, TenantJobs
from ingestion.jobs.leases import DocumentGone, JobCancelled
from ingestion.jobs.tables import DOCUMENTS, FETCHES, Job
from ingestion.queue.workflow import MAX_SITE_PAUSE_S, MAX_SITE_TRIES
from rag.corpus import Document, DocumentVersion
from rag.store.memory import MemoryStore
from tests.sites import Site, page, redirect, says, site
from tests.world import World, text_of

POSTGRESQL_DAILY = False
ASH, ELM = "ash", "elm"


@pytest.fixture
def pages() -> Iterator[Site]:
    with site(says(page(text_of("site", 1, 3).encode()))) as running:
        yield running


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    fetcher = Fetcher(UrlPolicy.of(range(1, 65536), ["127.0.0.1"]), max_bytes=10**6, seconds=10)
    world = World(database, MemoryStore(), tmp_path, keep_failed_days=1, fetcher=fetcher)
    world.fill()
    yield world
    world.close()


def bring(world: World, url: str, name: str = ASH, **fields: Any) -> str:
    """Submit; return the job's id."""
    submitted = world.of(name).submit(Submission(url=url, **fields))
    assert submitted.job is not None
    return submitted.job.id


def of(world: World, job_id: str, name: str = ASH) -> tuple[Job, DocumentVersion, Document]:
    with world.database.read(world.contexts[name]) as session:
        job = session.get_one(Job, job_id)
        version = session.get_one(DocumentVersion, job.version_id)
        return job, version, session.get_one(Document, job.document_id)


def jobs(world: World, name: str = ASH) -> TenantJobs:
    return Jobs(world.database, system_clock, world.queue).for_tenant(world.contexts[name])


def test_what_is_fetched_is_a_document_like_any_other(world: World, pages: Site) -> None:
    pages.answer = says(redirect("/final"), page(b"# Loans\n\nFour weeks.", "text/markdown"), page(b"Elm's own."))
    url = pages.url("/start#part")
    mine = bring(world, url, labels=["red"], attributes={"year": 2026})
    waiting, version, _ = of(world, mine)
    assert (waiting.queue, waiting.stage, version.media_type, version.bytes, version.content_blob) == (
        FETCHES,
        "waiting",
        "",
        0,
        "",
    )
    world.run_jobs()
    other = bring(world, url, ELM)
    world.run_jobs()
    job, version, document = of(world, mine)
    assert (job.state, job.stage, version.state, job.tokens_charged > 0) == ("succeeded", "done", "live", True)
    assert (version.source, version.media_type, version.title) == (pages.url("/final"), "text/markdown", "final")
    assert (document.external_id, version.bytes, version.labels) == (pages.url("/start"), 20, ["red"])
    assert world.of(ASH).text(document.id)[1].rstrip() == "# Loans\n\nFour weeks."
    assert world.of(ELM).text(of(world, other, ELM)[2].id)[1].rstrip() == "Elm's own."
    world.check_invariants()


def test_a_given_source_and_title_stand(world: World, pages: Site) -> None:
    job_id = bring(world, pages.url("/x?token=secret"), source="the wiki", title="Rules", external_id="rules")
    world.run_jobs()
    _, version, document = of(world, job_id)
    assert (version.source, version.title, document.external_id) == ("the wiki", "Rules", "rules")


def test_a_long_url_is_named_by_its_hash(world: World, pages: Site) -> None:
    job_id = bring(world, pages.url("/" + "a" * 600))
    assert of(world, job_id)[2].external_id.startswith("sha256:")


def test_unchanged_content_costs_a_fetch_and_nothing_else(world: World, pages: Site) -> None:
    first = bring(world, pages.url())
    world.run_jobs()
    files, points = world.files(), world.vectors(ASH).ids()
    again = bring(world, pages.url())
    world.run_jobs()
    job, version, document = of(world, again)
    assert pages.connections == 2
    assert (job.state, job.stage, job.chunks_total, job.tokens_charged, job.tokens_cached) == ("succeeded", "done", 0, 0, 0)
    assert (version.state, version.text_blob) == ("superseded", None)
    assert document.live_version_id == of(world, first)[1].id
    assert (world.files(), world.vectors(ASH).ids()) == (files, points)
    world.check_invariants()


def test_changed_content_or_description_makes_a_new_version(world: World, pages: Site) -> None:
    bring(world, pages.url())
    world.run_jobs()
    relabelled = bring(world, pages.url(), labels=["red"])
    world.run_jobs()
    assert of(world, relabelled)[1].state == "live"
    pages.answer = says(page(text_of("site", 2, 3).encode()))
    changed = bring(world, pages.url(), labels=["red"])
    world.run_jobs()
    assert of(world, changed)[1].state == "live"
    world.check_invariants()


def test_the_same_url_twice_at_once_is_one_job(world: World, pages: Site) -> None:
    assert bring(world, pages.url("/a#x")) == bring(world, pages.url("/a#y"))
    assert bring(world, pages.url("/b")) != bring(world, pages.url("/b"), labels=["red"])


def test_the_live_content_comes_back_after_another_that_still_waits(world: World, pages: Site) -> None:
    """What waits in between would replace the live version, so that does not answer for the one that was brought last."""
    bring(world, pages.url(), external_id="doc")
    world.run_jobs()
    between = world.of(ASH).submit(Submission(b"something else", external_id="doc", media_type="text/plain"))
    last = bring(world, pages.url(), external_id="doc")
    world.queue.waiting.rotate(1)  # the last goes first
    world.run_jobs()
    assert of(world, last)[1].state == "live"
    assert between.job is not None
    assert of(world, between.job.id)[1].state == "superseded"
    world.check_invariants()


def test_a_step_that_was_killed_fetches_again_until_the_content_is_kept(world: World, pages: Site) -> None:
    job_id = bring(world, pages.url())
    world.queue.waiting.clear()
    lease = world.pipeline.take_up(world.contexts[ASH], job_id)
    assert lease is not None
    assert lease.fetches
    version = of(world, job_id)[1]
    world.blobs.put(version.id, text_of("site", 1, 3).encode())  # of a run that died before it could name it
    world.pipeline.fetch(lease)
    world.pipeline.fetch(lease)
    assert pages.connections == 1
    job, version, _ = of(world, job_id)
    assert job.stage == "reading", "a reader that takes the worker down with it is counted"
    world.blobs.delete(version.content_blob)
    world.pipeline.fetch(lease)
    assert pages.connections == 2, "what is lost is fetched again"
    world.queue.waiting.append((world.contexts[ASH].tenant_id, job_id))
    world.run_jobs()
    assert (of(world, job_id)[0].state, pages.connections) == ("succeeded", 2)
    world.check_invariants()


def meanwhile(pages: Site, do: Callable[[], object]) -> None:
    """Do something while the site is being asked, once."""
    answer = pages.answer

    def and_then(line: str, connection: socket.socket) -> None:
        pages.answer = answer
        do()
        answer(line, connection)

    pages.answer = and_then


def test_an_owner_who_is_overtaken_while_it_fetches_deletes_nothing(world: World, pages: Site) -> None:
    job_id = bring(world, pages.url())
    late = world.pipeline.take_up(world.contexts[ASH], job_id)
    assert late is not None
    version, content = of(world, job_id)[1], text_of("site", 1, 3).encode()

    def overtaken() -> None:  # by somebody who has the same content, and has yet to name it
        assert world.pipeline.take_up(world.contexts[ASH], job_id)
        world.blobs.put(version.id, content)

    meanwhile(pages, overtaken)
    with pytest.raises(LeaseLost):
        world.pipeline.fetch(late)
    with pytest.raises(LeaseLost):
        world.pipeline.fetch(late)
    assert of(world, job_id)[1].content_blob == ""
    assert world.blobs.put(version.id, content) in world.files()
    world.run_jobs()
    assert of(world, job_id)[0].state == "succeeded"
    world.check_invariants()


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_what_ends_while_it_is_fetched_leaves_nothing(world: World, pages: Site, how: str) -> None:
    files, other = world.files(), world.rows(ELM)
    job_id = bring(world, pages.url())
    document_id = of(world, job_id)[2].id
    end = (lambda: jobs(world).cancel(job_id)) if how == "cancelled" else (lambda: world.of(ASH).delete(document_id))
    meanwhile(pages, end)
    lease = world.pipeline.take_up(world.contexts[ASH], job_id)
    assert lease is not None
    with pytest.raises(JobCancelled if how == "cancelled" else DocumentGone):
        world.pipeline.fetch(lease)
    assert world.files() == files
    world.run_jobs()
    assert jobs(world).get(job_id).state == "cancelled"
    assert world.files() == files
    assert world.rows(ELM) == other


def test_a_failed_fetch_says_why_and_can_be_retried(world: World, pages: Site) -> None:
    content, pages.answer = pages.answer, says(page(b"", status="404 Not Found"))
    job_id = bring(world, pages.url())
    world.run_jobs()
    job, version, _ = of(world, job_id)
    assert (job.state, job.error_code, job.error_detail) == ("failed", "fetch_failed", "The site answered 404.")
    assert version.state == "failed"
    with pytest.raises(NotFound):
        jobs(world, ELM).retry(job_id)
    pages.answer = content
    again = jobs(world).retry(job_id)
    assert again.queue == FETCHES
    world.run_jobs()
    assert of(world, again.id)[0].state == "succeeded"
    world.check_invariants()


def test_busy_sites_are_asked_again_when_they_like_but_not_for_ever(world: World, pages: Site) -> None:
    pauses: list[float] = []
    content = pages.answer
    pages.answer = says(
        page(b"", "text/plain", "Retry-After: 7", status="429 X"), page(b"", "text/plain", "Retry-After: 9999", status="503 X")
    )
    job_id = bring(world, pages.url())
    world.run_jobs(pauses.append)
    job = of(world, job_id)[0]
    assert (job.state, job.error_code) == ("failed", "site_unavailable")
    assert (pages.connections, pauses) == (MAX_SITE_TRIES + 1, [7.0, MAX_SITE_PAUSE_S, MAX_SITE_PAUSE_S])
    pages.answer = says(page(b"", status="503 X"))
    pauses.clear()

    def recovers(seconds: float) -> None:
        pauses.append(seconds)
        pages.answer = content

    jobs(world).retry(job_id)
    world.run_jobs(recovers)
    assert pauses == [0.2]
    world.check_invariants()


def test_uploads_do_not_wait_in_the_queue_of_urls(world: World) -> None:
    world.bring(ASH, "uploaded", "words")
    assert {job.queue for job in world.all(ASH, Job)} == {DOCUMENTS}


def test_a_version_that_lost_its_job_gets_one_in_the_right_queue(world: World, pages: Site) -> None:
    job_id = bring(world, pages.url())
    world.queue.waiting.clear()
    world.change(ASH, sa.delete(Job).where(col(Job.id) == job_id))
    assert "version_without_job" in {finding.kind for finding in world.reconciler.check(repair=True).findings}
    world.run_jobs()
    assert FETCHES in {job.queue for job in world.all(ASH, Job)}
    assert pages.connections == 1
    world.check_invariants()


def test_urls_can_be_switched_off(world: World, pages: Site) -> None:
    with pytest.raises(UrlRefused, match="does not fetch"):
        check(Submission(url="https://example.org/"), max_bytes=9)
    job_id = bring(world, pages.url())
    world.pipeline._fetching._fetcher = None
    world.run_jobs()
    assert of(world, job_id)[0].error_code == FetchFailed.code
    assert pages.connections == 0


def test_a_bad_url_keeps_nothing(world: World) -> None:
    before = world.snapshot(ASH)
    for url in ("http://10.0.0.1/", "file:///etc/passwd", "https://example.org:0/", ""):
        with pytest.raises(UrlRefused):
            world.of(ASH).submit(Submission(url=url))
    assert world.snapshot(ASH) == before
