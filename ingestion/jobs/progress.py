"""How far a job is and when it will be done: reckoned from the job's row and the clock, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from ingestion.jobs.tables import Job

ENDED = ("succeeded", "failed", "cancelled")
#: What share of an ingest job has passed when a stage begins. Embedding takes nearly all of the time, reading hardly any.
_BEFORE = {"waiting": 0.0, "fetching": 0.01, "reading": 0.01, "embedding": 0.05, "collecting": 0.97, "done": 1.0}


@dataclass(frozen=True, slots=True)
class Progress:
    documents_done: int  #: 1 when the document is live, or gone if it was to be deleted
    documents_total: int
    pages: int  #: of a paged format, as far as it is read
    chunks_done: int
    chunks_total: int  #: 0 until the document is split
    tokens_done: int
    tokens_total: int
    fraction: float  #: 0 to 1; an ended job is at 1, however it ended
    eta_seconds: float | None  #: None while it is unknown, 0 when the job has ended


def progress_of(job: Job, now: int) -> Progress:
    """`now` in Unix milliseconds."""
    return Progress(
        documents_done=int(job.state == "succeeded"),
        documents_total=1,
        pages=job.pages,
        chunks_done=min(job.chunks_done, job.chunks_total),
        chunks_total=job.chunks_total,
        tokens_done=_tokens_done(job),
        tokens_total=job.tokens_total,
        fraction=_fraction(job),
        eta_seconds=_eta_s(job, now),
    )


def _fraction(job: Job) -> float:
    if job.state in ENDED:
        return 1.0
    if job.kind != "ingest":
        return 0.0  # a delete is one step, and nothing counts what it removes
    begun = _BEFORE.get(job.stage, 0.0)  # a worker of a newer version can be at a stage that this one does not know
    if job.stage != "embedding":
        return begun
    done, total = (_tokens_done(job), job.tokens_total) if job.tokens_total else (job.chunks_done, job.chunks_total)
    return begun + (_BEFORE["collecting"] - begun) * (min(done / total, 1.0) if total else 0.0)


def _eta_s(job: Job, now: int) -> float | None:
    """At the pace since embedding began. Waiting for a worker and reading are not foretold."""
    if job.state in ENDED:
        return 0.0
    done = _tokens_done(job)
    if job.embedding_at is None or done <= 0 or now <= job.embedding_at:
        return None
    return round((now - job.embedding_at) / 1000 * (job.tokens_total - done) / done, 1)


def _tokens_done(job: Job) -> int:
    """With what is embedded of the batch under way."""
    return min(job.tokens_done + job.tokens_ahead, job.tokens_total)
