"""Progress is reckoned from a job's row alone: within its bounds for every row, and never backwards as work is done."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given

from ingestion.jobs.progress import ENDED, Progress, progress_of
from ingestion.jobs.tables import Job

STAGES = ("waiting", "fetching", "reading", "embedding", "collecting", "done")
STATES = ("queued", "running", *ENDED)
counts = st.integers(0, 10**9)
times = st.integers(0, 4 * 10**12)


def _job(**values: object) -> Job:
    given = {"kind": "ingest", "state": "running", "stage": "embedding", "created_at": 0, "updated_at": 0} | values
    return Job(id="job_x", tenant_id="a", collection_id="c", document_id="d", **given)


jobs = st.builds(
    _job,
    kind=st.sampled_from(("ingest", "delete")),
    state=st.sampled_from(STATES),
    stage=st.sampled_from(STAGES),
    pages=counts,
    chunks_total=counts,
    chunks_done=counts,
    tokens_total=counts,
    tokens_done=counts,
    tokens_ahead=counts,
    embedding_at=st.none() | times,
)


@given(job=jobs, now=times)
def test_every_row_has_a_progress_within_its_bounds(job: Job, now: int) -> None:
    progress = progress_of(job, now)
    assert 0.0 <= progress.fraction <= 1.0
    assert 0 <= progress.chunks_done <= progress.chunks_total
    assert 0 <= progress.tokens_done <= progress.tokens_total
    assert 0 <= progress.documents_done <= progress.documents_total == 1
    assert progress.eta_seconds is None or progress.eta_seconds >= 0
    assert progress == progress_of(job, now)


@given(job=jobs, now=times)
def test_an_ended_job_is_at_its_end_and_no_other_is(job: Job, now: int) -> None:
    progress = progress_of(job, now)
    ended = job.state in ENDED
    assert (progress.fraction == 1.0) == (ended or (job.kind == "ingest" and job.stage == "done"))
    assert (progress.documents_done == 1) == (job.state == "succeeded")
    if ended:
        assert progress.eta_seconds == 0


@given(job=jobs, more=st.integers(0, 10**6), ahead=st.booleans(), now=times)
def test_more_tokens_are_never_less_progress_nor_a_longer_wait(job: Job, more: int, ahead: bool, now: int) -> None:
    job.tokens_total = max(job.tokens_total, job.tokens_done + job.tokens_ahead + more)
    before = progress_of(job, now)
    if ahead:
        job.tokens_ahead += more
    else:  # the batch is counted: at least what was told of it
        job.tokens_done, job.tokens_ahead = job.tokens_done + job.tokens_ahead + more, 0
    after = progress_of(job, now)
    assert after.fraction >= before.fraction
    if before.eta_seconds is not None:
        assert after.eta_seconds is not None
        assert after.eta_seconds <= before.eta_seconds


@given(job=jobs)
def test_each_stage_begins_where_the_one_before_it_can_end(job: Job) -> None:
    job.kind, job.state = "ingest", "running"
    fractions = []
    for stage in STAGES:
        job.stage = stage
        fractions.append(progress_of(job, 0).fraction)
    assert fractions == sorted(fractions)


@given(job=jobs, now=times, later=times)
def test_time_alone_moves_nothing_but_the_estimate(job: Job, now: int, later: int) -> None:
    assert replace(progress_of(job, now), eta_seconds=None) == replace(progress_of(job, later), eta_seconds=None)


@given(done=st.integers(1, 10**6), missing=st.integers(0, 10**6), elapsed_ms=st.integers(1, 10**8))
def test_the_estimate_is_the_pace_so_far(done: int, missing: int, elapsed_ms: int) -> None:
    job = _job(tokens_done=done, tokens_total=done + missing, embedding_at=1_000)
    eta = progress_of(job, 1_000 + elapsed_ms).eta_seconds
    assert eta == pytest.approx(elapsed_ms / 1000 * missing / done, abs=0.06)


@given(job=jobs, now=times)
def test_without_a_pace_there_is_no_estimate(job: Job, now: int) -> None:
    assume(job.state not in ENDED)
    unknown = (("embedding_at", None), ("embedding_at", now), ("embedding_at", now + 1), ("tokens_done", 0))
    job.tokens_ahead = 0
    for name, value in unknown:
        given = Job(**{**job.model_dump(), name: value})
        assert progress_of(given, now).eta_seconds is None


def test_halfway_is_halfway() -> None:
    job = _job(chunks_total=4, chunks_done=1, tokens_total=200, tokens_done=100, embedding_at=10_000)
    assert progress_of(job, 40_000) == Progress(0, 1, 0, 1, 4, 100, 200, pytest.approx(0.51), 30.0)
    assert progress_of(_job(chunks_total=4, chunks_done=2), 0).fraction == pytest.approx(0.51)
