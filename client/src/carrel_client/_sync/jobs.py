"""Jobs: looking at them, following them to their end, cancelling and retrying; and the events that they leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from carrel_client._sync import world
from carrel_client._sync.transport import Transport, pages
from carrel_client.errors import APIError, TransportError
from carrel_client.exchange import path_of
from carrel_client.models import Event, Job
from carrel_client.waiting import MAX_POLL_S, WITHOUT_STREAM_S, Waiting, Watched


class Jobs:
    """`carrel.jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, job_id: str) -> Job:
        """The job as it is now.

        Example: `print(carrel.jobs.get(job_id).progress.fraction)`
        """
        return Job.parse(self._transport.call("GET", path_of("/v1/jobs", job_id)))

    def list(
        self,
        *,
        collection: str | None = None,
        state: str | None = None,
        error: str | None = None,
        dead: bool = False,
        page_size: int = 100,
    ) -> Iterator[Job]:
        """Newest first, fetched page by page. `dead`: only failed ones that were not retried and nothing newer replaces.

        Example: `dead = list(carrel.jobs.list(dead=True))`
        """
        chosen = {"collection": collection, "state": state, "error": error, "dead": "true" if dead else None}
        for item in pages(self._transport, "/v1/jobs", page_size, **chosen):
            yield Job.parse(item)

    def cancel(self, job_id: str) -> Job:
        """End an ingest job; one that has ended stays as it is. A version whose job is cancelled never becomes live.

        Example: `carrel.jobs.cancel(job_id)`
        """
        return self._post(job_id, "cancel")

    def retry(self, job_id: str) -> Job:
        """The new job for a failed or cancelled one; asked again, the same new job.

        Example: `again = carrel.jobs.retry(job_id)`
        """
        return self._post(job_id, "retry")

    def retry_all(self, *, collection: str | None = None, error: str | None = None) -> Iterator[Job]:
        """Retry every dead job, oldest first; yields the new ones. What fails again meanwhile is not retried once more.

        Example: `again = list(carrel.jobs.retry_all(error="engine_unavailable"))`
        """
        newest = next(self.list(collection=collection, error=error, dead=True, page_size=1), None)
        more = newest is not None
        while newest is not None and more:
            body = {"collection": collection, "error": error, "through": newest.id}
            answer = self._transport.call("POST", "/v1/jobs/retry", json=body, repeatable=True)
            for item in answer["data"]:
                yield Job.parse(item)
            more = answer["more"] and bool(answer["data"])

    def _post(self, job_id: str, verb: str) -> Job:
        return Job.parse(self._transport.call("POST", path_of("/v1/jobs", job_id, verb), repeatable=True))

    def wait(self, job_id: str, *, timeout_s: float = 600.0, on_progress: Callable[[Job], None] | None = None) -> Job:
        """Return the job once it succeeded; raise JobFailedError if it did not, TimeoutError if it goes on.

        Polls a job that ends soon, and follows the stream of one that does not, or polls it where there is none.

        Example: `carrel.jobs.wait(job_id, on_progress=lambda job: print(job.stage))`
        """
        waiting = Waiting(job_id, timeout_s=timeout_s, now=time.monotonic(), on_progress=on_progress)
        while True:
            job = self.get(job_id)
            if waiting.ended(job):
                return job
            if waiting.streams(time.monotonic()):
                with closing(self._streamed(job_id)) as states:
                    for state in states:
                        if state is not None and waiting.ended(state):
                            return state
                        if not waiting.streams(time.monotonic()):
                            break
                waiting.stream_ended(time.monotonic())
            world.sleep(waiting.pause(time.monotonic()))

    def wait_all(self, job_ids: Iterable[str], *, timeout_s: float = 600.0, parallel: int = 8) -> Generator[Job, None, None]:
        """`wait` for several jobs, `parallel` at a time; yields each as it ends. What one raises ends all of it.

        Example: `done = list(carrel.jobs.wait_all(job_ids))`
        """
        deadline = time.monotonic() + timeout_s

        def one(job_id: str) -> Job:
            return self.wait(job_id, timeout_s=max(0.0, deadline - time.monotonic()))

        with closing(world.side_by_side(one, job_ids, parallel)) as course:
            yield from course

    def watch(self, job_id: str) -> Iterator[Job]:
        """The job as it is, then again at each change, and last as it ended, however it did.

        Follows a stream, which is begun again when it is cut off; while there is none, the job is polled.

        Example: `for job in carrel.jobs.watch(job_id): print(job.progress.fraction)`
        """
        watched = Watched()
        while True:
            with closing(self._states(job_id)) as states:
                for job in states:
                    if watched.is_new(job):
                        yield job
                    if job.finished:
                        return

    def _states(self, job_id: str) -> Generator[Job, None, None]:
        """What a stream tells until it ends, and then what polling tells until another stream should be tried."""
        streamed = False
        with closing(self._streamed(job_id)) as states:
            for job in states:
                streamed = True
                if job is not None:
                    yield job
        until = time.monotonic() + (0.0 if streamed else WITHOUT_STREAM_S)
        while True:
            yield self.get(job_id)
            world.sleep(MAX_POLL_S)
            if time.monotonic() >= until:
                return

    def _streamed(self, job_id: str) -> Generator[Job | None, None, None]:
        """What the stream tells, until it ends or breaks; None of a heartbeat."""
        try:
            with closing(self._transport.events(path_of("/v1/jobs", job_id, "events"))) as events:
                for _, data in events:
                    yield None if data is None else Job.parse(data)
        except (APIError, TransportError):
            return  # whatever is wrong with more than the stream, `get` raises


class Events:
    """`carrel.events`. Needs the scope `manage`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, type: str | None = None, since: str | None = None, page_size: int = 100) -> Iterator[Event]:
        """In the order they happened, behind the event of id `since`; `type` is a type or its beginning, as "document.".

        Example: `ids = [event.id for event in carrel.events.list(type="document.")]`
        """
        for item in pages(self._transport, "/v1/events", page_size, type=type, since=since):
            yield Event.parse(item)
