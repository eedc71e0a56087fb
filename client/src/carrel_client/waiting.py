"""Waiting for a job's end: when to look again, when a stream is worth following, and what an end means. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable

from carrel_client.errors import JobFailedError
from carrel_client.models import Job

POLL_S, MAX_POLL_S = 0.05, 1.0  # a short job is noticed soon, and a long one asked about rarely
STREAM_AFTER_S = 2.0  # most jobs end sooner, and need no connection of their own
STREAM_MARGIN_S = 20.0  # a heartbeat of the service and more: a stream that is silent must not outlast the waiting
WITHOUT_STREAM_S = 5.0  # how long a job is polled before a stream that could not begin is tried again


class Waiting:
    """`times` are of one monotonic clock. Give each state of the job to `ended`."""

    def __init__(self, job_id: str, *, timeout_s: float, now: float, on_progress: Callable[[Job], None] | None) -> None:
        self._job_id, self._timeout_s, self._on_progress = job_id, timeout_s, on_progress
        self._deadline, self._streams_from, self._pause = now + timeout_s, now + STREAM_AFTER_S, POLL_S

    def ended(self, job: Job) -> bool:
        """Whether it succeeded; raise JobFailedError if it ended otherwise."""
        self._last = job
        if self._on_progress is not None:
            self._on_progress(job)
        if job.finished and job.state != "succeeded":
            raise JobFailedError(job.id, job.state, job.error_code, job.error_detail)
        return job.finished

    def streams(self, now: float) -> bool:
        """Whether a stream is to be followed now."""
        return self._streams_from <= now < self._deadline - STREAM_MARGIN_S

    def stream_ended(self, now: float) -> None:
        self._streams_from = now + WITHOUT_STREAM_S

    def pause(self, now: float) -> float:
        """Seconds until the next look; raise TimeoutError if there is none."""
        if now >= self._deadline:
            state = f"{self._last.state} ({self._last.stage})"
            raise TimeoutError(f"job {self._job_id} is still {state} after {self._timeout_s:g} s")
        pause, self._pause = self._pause, min(1.5 * self._pause, MAX_POLL_S)
        return min(pause, self._deadline - now)


class Watched:
    """The states of a job that are worth telling: the first, and each that differs."""

    def __init__(self) -> None:
        self._last: Job | None = None

    def is_new(self, job: Job) -> bool:
        new = self._last is None or not job.same_as(self._last)
        self._last = job if new else self._last
        return new
