"""Jobs: looking at them, following them to their end, cancelling and retrying; and the events that they leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from carrel_client.errors import APIError, JobFailedError, TransportError
from carrel_client.models import Event, Job
from carrel_client.transport import Transport, pages, path_of

POLL_S, MAX_POLL_S = 0.05, 1.0  # a short job is noticed soon, and a long one asked about rarely
WITHOUT_STREAM_S = 5.0  # how long a job is polled before a stream that could not begin is tried again


class Jobs:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, job_id: str) -> Job:
        return Job.parse(self._transport.call("GET", path_of("/v1/jobs", job_id)).json())

    def list(
        self,
        *,
        collection: str | None = None,
        state: str | None = None,
        error: str | None = None,
        dead: bool = False,
        page_size: int = 100,
    ) -> Iterator[Job]:
        """Newest first, fetched page by page. `dead`: only failed ones that were not retried and nothing newer replaces."""
        chosen = {"collection": collection, "state": state, "error": error, "dead": "true" if dead else None}
        for item in pages(self._transport, "/v1/jobs", page_size, **chosen):
            yield Job.parse(item)

    def cancel(self, job_id: str) -> Job:
        """End an ingest job; one that has ended stays as it is. A version whose job is cancelled never becomes live."""
        return self._post(job_id, "cancel")

    def retry(self, job_id: str) -> Job:
        """The new job for a failed or cancelled one; asked again, the same new job."""
        return self._post(job_id, "retry")

    def retry_all(self, *, collection: str | None = None, error: str | None = None) -> Iterator[Job]:
        """Retry every dead job, oldest first; yields the new ones. What fails again meanwhile is not retried once more."""
        newest = next(self.list(collection=collection, error=error, dead=True, page_size=1), None)
        more = newest is not None
        while newest is not None and more:
            body = {"collection": collection, "error": error, "through": newest.id}
            answer = self._transport.call("POST", "/v1/jobs/retry", json=body, repeatable=True).json()
            yield from map(Job.parse, answer["data"])
            more = answer["more"] and bool(answer["data"])

    def _post(self, job_id: str, verb: str) -> Job:
        return Job.parse(self._transport.call("POST", path_of("/v1/jobs", job_id, verb), repeatable=True).json())

    def wait(self, job_id: str, *, timeout_s: float = 600.0, on_progress: Callable[[Job], None] | None = None) -> Job:
        """Return the job once it succeeded; raise JobFailedError if it did not, TimeoutError if it goes on."""
        deadline, pause = time.monotonic() + timeout_s, POLL_S
        while True:
            job = self.get(job_id)
            if on_progress is not None:
                on_progress(job)
            if job.state == "succeeded":
                return job
            if job.finished:
                raise JobFailedError(job.id, job.state, job.error_code, job.error_detail)
            if time.monotonic() >= deadline:
                raise TimeoutError(f"job {job_id} is still {job.state} ({job.stage}) after {timeout_s:g} s")
            time.sleep(pause)
            pause = min(1.5 * pause, MAX_POLL_S)

    def watch(self, job_id: str) -> Iterator[Job]:
        """The job as it is, then again at each change, and last as it ended, however it did.

        Follows a stream, which is begun again when it is cut off; while there is none, the job is polled.
        """
        last: Job | None = None
        while True:
            for job in self._states(job_id):
                if last is None or not job.same_as(last):
                    last = job
                    yield job
                if job.finished:
                    return

    def _states(self, job_id: str) -> Iterator[Job]:
        """What a stream tells until it ends, and then what polling tells until another stream should be tried."""
        streamed = False
        try:
            for _, data in self._transport.events(path_of("/v1/jobs", job_id, "events")):
                streamed = True
                yield Job.parse(data)
        except (APIError, TransportError):
            pass  # whatever is wrong with more than the stream, `get` raises
        until = time.monotonic() + (0.0 if streamed else WITHOUT_STREAM_S)
        while True:
            yield self.get(job_id)
            time.sleep(MAX_POLL_S)
            if time.monotonic() >= until:
                return


class Events:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, type: str | None = None, since: str | None = None, page_size: int = 100) -> Iterator[Event]:
        """In the order they happened, behind the event of id `since`; `type` is a type or its beginning, as "document."."""
        for item in pages(self._transport, "/v1/events", page_size, type=type, since=since):
            yield Event.parse(item)
