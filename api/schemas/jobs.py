"""The wire's shapes of jobs and events: what `carrel_client.models` reads, and what streams send."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from config.clock import isoformat
from ingestion.jobs.progress import progress_of
from ingestion.jobs.tables import Job
from tenants.tables import Event

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


AfterPolicy = Literal["all_succeeded", "any_end"]


class ProgressOut(BaseModel):
    documents_done: int
    documents_total: int
    pages: int
    chunks_done: int
    chunks_total: int = Field(description="0 until the document is split.")
    tokens_done: int
    tokens_total: int
    fraction: float = Field(description="0 to 1; an ended job is at 1, however it ended.")
    eta_seconds: float | None = Field(description="At the pace since embedding began; null while that is unknown.")


class JobOut(BaseModel):
    id: str
    kind: Literal["ingest", "delete"]
    state: JobState
    stage: str
    document_id: str
    version_id: str | None
    retry_of: str | None = Field(description="The job that this one repeats.")
    outcome: Literal["linked", "skipped"] | None = Field(
        description="What became of a near-duplicate instead of being embedded; see the document's `near_duplicate_of`."
    )
    waits_for: list[str] = Field(description="The jobs that this one runs after, while one of them has not ended.")
    after_policy: AfterPolicy
    chunks_total: int
    chunks_done: int
    tokens_charged: int
    tokens_cached: int
    progress: ProgressOut
    error_code: str | None
    error_detail: str | None
    created_at: str
    updated_at: str
    finished_at: str | None = Field(description="When all was done, and what it left was removed.")

    @classmethod
    def of(cls, job: Job, now: int) -> JobOut:
        times = {name: None if (at := getattr(job, name)) is None else isoformat(at) for name in _TIMES}
        waits_for = job.after if job.held else []
        return cls.model_validate(
            {**job.model_dump(), **times, "waits_for": waits_for, "progress": asdict(progress_of(job, now))}
        )


class RetriedOut(BaseModel):
    data: list[JobOut] = Field(description="The new jobs.")
    more: bool = Field(description="Whether there are dead jobs beyond `limit`.")


_TIMES = ("created_at", "updated_at", "finished_at")


class EventOut(BaseModel):
    """A change of state. `subject` is the id of what changed; `data` holds ids and counts, never content."""

    id: str
    type: str = Field(examples=["document.live"])
    subject: str
    at: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> EventOut:
        return cls.model_validate({**event.model_dump(), "at": isoformat(event.at)})
