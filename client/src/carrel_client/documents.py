"""Documents: bringing them one by one and by the thousand, showing and deleting them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from carrel_client.bulk import MEDIA_TYPE, Course, Item
from carrel_client.errors import APIError, CarrelClientError, TransportError
from carrel_client.jobs import Jobs
from carrel_client.models import BulkResult, Document, Estimate, Job
from carrel_client.transport import Transport, pause_s
from carrel_client.transport import pages as _pages
from carrel_client.transport import path_of as _path


@dataclass(frozen=True)
class Submitted:
    """An accepted document. `job` is None when this content was live already."""

    document: Document
    job: Job | None
    _jobs: Jobs

    def wait(self, *, timeout_s: float = 600.0, on_progress: Callable[[Job], None] | None = None) -> Job | None:
        """Return the finished job; raise JobFailedError, or TimeoutError after `timeout_s`."""
        return None if self.job is None else self._jobs.wait(self.job.id, timeout_s=timeout_s, on_progress=on_progress)


class Brought(TypedDict, total=False):
    """What `Documents.create` takes of a document."""

    text: str | None
    file: str | Path | None
    content: bytes | None
    url: str | None
    file_name: str | None
    format: str
    collection: str
    external_id: str | None
    title: str | None
    source: str | None
    attributes: Mapping[str, Any] | None
    labels: Sequence[str] | None
    after: Sequence[str] | None
    after_policy: str
    if_match: str | None
    create_only: bool
    idempotency_key: str | None


class Documents:
    def __init__(self, transport: Transport, path: str = "/v1/documents") -> None:
        """`path`: where they are brought to, which may be a session."""
        self._transport, self._jobs, self._path = transport, Jobs(transport), path

    @overload
    def create(self, *, dry_run: Literal[False] = False, **document: Unpack[Brought]) -> Submitted: ...

    @overload
    def create(self, *, dry_run: Literal[True], **document: Unpack[Brought]) -> Estimate: ...

    def create(
        self,
        *,
        text: str | None = None,
        file: str | Path | None = None,
        content: bytes | None = None,
        url: str | None = None,
        file_name: str | None = None,
        format: str = "text",
        collection: str = "default",
        external_id: str | None = None,
        title: str | None = None,
        source: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        labels: Sequence[str] | None = None,
        after: Sequence[str] | None = None,
        after_policy: str = "all_succeeded",
        if_match: str | None = None,
        create_only: bool = False,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> Submitted | Estimate:
        """Bring a document: `text` (format "text" or "markdown"), a `file` by path, `content` with a `file_name`, or a `url`,
        which the service fetches.

        Bring it again under the same `external_id` to replace it. Without one its content is its identity, or its URL. With
        `dry_run` nothing is brought, and the answer is what it would cost; of a URL it is not known. `if_match`: only if this
        is the document's `etag`; `create_only`: only if there is none: else VersionConflictError. `after`: ids of jobs that
        must end first, and all succeed unless `after_policy` is "any_end".
        """
        if sum(given is not None for given in (text, file, content, url)) != 1:
            raise CarrelClientError("Give exactly one of text, file, content and url.")
        fields: dict[str, Any] = {
            "collection": collection,
            "external_id": external_id,
            "title": title,
            "source": source,
            "attributes": dict(attributes or {}),
            "labels": list(labels or []),
        }
        if after:
            fields |= {"after": list(after), "after_policy": after_policy}
        given: dict[str, Any] = {"text": text, "format": format} if url is None else {"url": url}
        sent: dict[str, Any] = {"json": {**fields, **given}}
        if text is None and url is None:
            sent = _upload(fields, None if file is None else Path(file), content, file_name)
        sent["headers"] = {"If-Match": if_match, "If-None-Match": "*" if create_only else None}
        sent["params"] = {"dry_run": "true" if dry_run else None}
        sent |= {"idempotency_key": idempotency_key, "repeatable": dry_run}
        return self._answer(self._transport.call("POST", self._path, **sent).json())

    def _answer(self, answer: dict[str, Any]) -> Submitted | Estimate:
        if "document" not in answer:
            return Estimate.parse(answer)
        return self.submitted(answer)

    def submitted(self, answer: Mapping[str, Any]) -> Submitted:
        """What the service says of an accepted document."""
        job = None if answer["job"] is None else Job.parse(answer["job"])
        return Submitted(Document.parse(answer["document"]), job, self._jobs)

    def bulk(self, documents: Iterable[Item], *, max_errors: int = 100) -> Iterator[BulkResult]:
        """Bring many documents, each a mapping as of the JSON of one, or a line of that JSON. Yields what became of each.

        Constant memory: they are taken from the iterable, and answered, in pieces. A break or a busy service is waited for,
        and what was not answered sent again. Raise BulkStoppedError when `max_errors` were refused.
        """
        course = self._course(documents, max_errors)
        while (body := course.body()) is not None:
            try:
                with closing(self._transport.lines("/v1/bulk", body, MEDIA_TYPE, course.params)) as lines:
                    for line in lines:
                        if result := course.answered(line):
                            yield result
                pause = course.ended()
            except (APIError, TransportError) as error:
                pause = course.failed(error)
            time.sleep(pause)

    async def bulk_async(self, documents: Iterable[Item], *, max_errors: int = 100) -> AsyncIterator[BulkResult]:
        """`bulk` for an event loop."""
        course = self._course(documents, max_errors)
        while (body := course.body()) is not None:
            try:
                async with aclosing(self._transport.lines_async("/v1/bulk", body, MEDIA_TYPE, course.params)) as lines:
                    async for line in lines:
                        if result := course.answered(line):
                            yield result
                pause = course.ended()
            except (APIError, TransportError) as error:
                pause = course.failed(error)
            await asyncio.sleep(pause)

    def _course(self, documents: Iterable[Item], max_errors: int) -> Course:
        return Course(documents, max_errors=max_errors, max_retries=self._transport.max_retries, pause=pause_s)

    def get(self, document_id: str) -> Document:
        return Document.parse(self._transport.call("GET", _path("/v1/documents", document_id)).json())

    def text(self, document_id: str) -> str:
        """The text that passages cite: `text[p.start:p.end] == p.text`."""
        answer: str = self._transport.call("GET", _path("/v1/documents", document_id, "text")).json()["text"]
        return answer

    def list(self, *, collection: str | None = None, page_size: int = 100) -> Iterator[Document]:
        """All documents, oldest first, fetched page by page."""
        for item in _pages(self._transport, "/v1/documents", page_size, collection=collection):
            yield Document.parse(item)

    def delete(
        self,
        document_id: str,
        *,
        if_match: str | None = None,
        after: Sequence[str] = (),
        after_policy: str = "all_succeeded",
    ) -> Job:
        """Gone from every answer at once, or when the jobs `after` have ended; the returned job removes what is left.

        `if_match`: only if this is the document's `etag`, else VersionConflictError.
        """
        waits = {"after_job": list(after), "after_policy": after_policy} if after else {}
        path, headers = _path("/v1/documents", document_id), {"If-Match": if_match}
        return Job.parse(self._transport.call("DELETE", path, params=waits, headers=headers).json()["job"])


def _upload(fields: dict[str, Any], path: Path | None, content: bytes | None, file_name: str | None) -> dict[str, Any]:
    raw = content if path is None else path.read_bytes()
    name = file_name or ("document" if path is None else path.name)
    form = {key: value for key, value in fields.items() if isinstance(value, str)}
    form |= {key: json.dumps(fields[key]) for key in ("attributes", "labels", "after") if key in fields}
    return {"files": {"file": (name, raw)}, "data": form}
