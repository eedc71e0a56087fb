"""Documents: bringing them one by one, by the folder and by the thousand, showing and deleting them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from carrel_client._async import world
from carrel_client._async.jobs import AsyncJobs
from carrel_client._async.transport import AsyncTransport, pages
from carrel_client.bulk import MEDIA_TYPE, Course, Item
from carrel_client.documents import Brought, Upload, Uploaded, UploadProgress, fatal, file_of, files_in, pieces, request_of
from carrel_client.errors import APIError, CarrelClientError, TransportError
from carrel_client.exchange import given, path_of, pause_s
from carrel_client.models import BulkResult, Document, Estimate, Job

_PATH = "/v1/documents"


@dataclass(frozen=True)
class AsyncSubmitted:
    """An accepted document. `job` is None when this content was live already."""

    document: Document
    job: Job | None
    _jobs: AsyncJobs

    async def wait(self, *, timeout_s: float = 600.0, on_progress: Callable[[Job], None] | None = None) -> Job | None:
        """Return the finished job; raise JobFailedError, or TimeoutError after `timeout_s`.

        Example: `job = await submitted.wait(timeout_s=60)`
        """
        if self.job is None:
            return None
        return await self._jobs.wait(self.job.id, timeout_s=timeout_s, on_progress=on_progress)


class AsyncDocuments:
    """`carrel.documents`."""

    def __init__(self, transport: AsyncTransport, path: str = _PATH) -> None:
        """`path`: where they are brought to, which may be a session."""
        self._transport, self._jobs, self._path = transport, AsyncJobs(transport), path

    @overload
    async def create(self, *, dry_run: Literal[False] = False, **document: Unpack[Brought]) -> AsyncSubmitted: ...

    @overload
    async def create(self, *, dry_run: Literal[True], **document: Unpack[Brought]) -> Estimate: ...

    async def create(self, *, dry_run: bool = False, **document: Unpack[Brought]) -> AsyncSubmitted | Estimate:
        """Bring a document: `text` (format "text" or "markdown"), a `file` by path, `content` with a `file_name`, or a `url`,
        which the service fetches.

        Bring it again under the same `external_id` to replace it. Without one its content is its identity, or its URL. With
        `dry_run` nothing is brought, and the answer is what it would cost; of a URL it is not known. `if_match`: only if this
        is the document's `etag`; `create_only`: only if there is none: else VersionConflictError. `after`: ids of jobs that
        must end first, and all succeed unless `after_policy` is "any_end".

        Example: `await (await carrel.documents.create(text="Loans last four weeks.", title="Rules")).wait()`
        """
        path = file_of(document)
        content = None if path is None else await world.run(path.read_bytes)
        answer = await self._transport.call("POST", self._path, **request_of(document, content, dry_run=dry_run))
        return self._answer(answer)

    def _answer(self, answer: dict[str, Any]) -> AsyncSubmitted | Estimate:
        if "document" not in answer:
            return Estimate.parse(answer)
        return self.submitted(answer)

    def submitted(self, answer: Mapping[str, Any]) -> AsyncSubmitted:
        """What the service says of an accepted document, as something that can wait.

        Example: `submitted = carrel.documents.submitted(answer)`
        """
        job = None if answer["job"] is None else Job.parse(answer["job"])
        return AsyncSubmitted(Document.parse(answer["document"]), job, self._jobs)

    async def upload(
        self,
        files: Sequence[str | Path],
        *,
        collection: str = "default",
        labels: Sequence[str] | None = None,
        parallel: int = 4,
        timeout_s: float = 3600.0,
        on_progress: Callable[[UploadProgress], None] | None = None,
    ) -> AsyncIterator[Uploaded]:
        """Bring files, `parallel` at a time, and wait for the job of each. Yields what became of each, as it ends.

        A file's name is its external id, so that it replaces its former version when it is brought again. What is wrong with
        one file is told in its `error`; what every file would meet (401, 402, 403) is raised.

        Example: `async for file in carrel.documents.upload(["rules.pdf", "rooms.txt"]): print(file.path, file.error)`
        """
        upload = Upload([Path(file) for file in files], None, on_progress)
        async with aclosing(self._bring(upload, collection, labels, parallel, timeout_s)) as course:
            async for uploaded in course:
                yield uploaded

    async def upload_folder(
        self,
        folder: str | Path,
        *,
        collection: str = "default",
        labels: Sequence[str] | None = None,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        hidden: bool = False,
        parallel: int = 4,
        timeout_s: float = 3600.0,
        on_progress: Callable[[UploadProgress], None] | None = None,
    ) -> AsyncIterator[Uploaded]:
        """`upload` of the files of a folder, to its bottom. A file's path inside it is its external id.

        `include` and `exclude` are patterns of names, as "*.md"; an excluded folder is not looked into.

        Example: `failed = [file async for file in carrel.documents.upload_folder("handbook") if file.error]`
        """
        root = Path(folder)
        files = await world.run(lambda: [*files_in(root, include=include, exclude=exclude, hidden=hidden)])
        upload = Upload(files, root, on_progress)
        async with aclosing(self._bring(upload, collection, labels, parallel, timeout_s)) as course:
            async for uploaded in course:
                yield uploaded

    async def _bring(
        self, upload: Upload, collection: str, labels: Sequence[str] | None, parallel: int, timeout_s: float
    ) -> AsyncGenerator[Uploaded, None]:
        async def one(file: Path) -> Uploaded:
            name = upload.name_of(file)
            try:
                submitted = await self.create(file=file, external_id=name, source=name, collection=collection, labels=labels)
                job = await submitted.wait(timeout_s=timeout_s, on_progress=lambda job: upload.is_at(file, job))
            except (CarrelClientError, TimeoutError, OSError) as error:
                return Uploaded(file, name, error=error)
            return Uploaded(file, name, submitted.document, job)

        async with aclosing(world.side_by_side(one, upload.files, parallel)) as course:
            try:
                async for uploaded in course:
                    upload.ended(uploaded)
                    if uploaded.error is not None and fatal(uploaded.error):
                        raise uploaded.error
                    yield uploaded
            finally:
                upload.stopped = True

    async def bulk(
        self, documents: Iterable[Item], *, max_errors: int = 100, new_documents: int = 0, new_bytes: int = 0
    ) -> AsyncIterator[BulkResult]:
        """Bring many documents, each a mapping as of the JSON of one, or a line of that JSON. Yields what became of each.

        Constant memory: they are taken from the iterable, and answered, in pieces. A break or a busy service is waited for,
        and what was not answered sent again. Raise BulkStoppedError when `max_errors` were refused. With `new_documents` and
        `new_bytes`, what all of it brings, nothing is taken if the plan has no room for all.

        Example: `refused = [one async for one in carrel.documents.bulk([{"text": "Pens stay outside."}]) if one.problem]`
        """
        course = Course(
            documents,
            max_errors=max_errors,
            max_retries=self._transport.max_retries,
            pause=pause_s,
            announced=given({"new_documents": new_documents or None, "new_bytes": new_bytes or None}),
        )
        headers = {"Content-Type": MEDIA_TYPE}
        while (body := course.body()) is not None:
            answer = self._transport.lines("POST", "/v1/bulk", content=body, headers=headers, params=course.params)
            try:
                async with aclosing(answer) as lines:
                    async for line in lines:
                        if result := course.answered(line):
                            yield result
                pause = course.ended()
            except (APIError, TransportError) as error:
                pause = course.failed(error)
            await world.sleep(pause)

    async def get(self, document_id: str) -> Document:
        """What is known of a document.

        Example: `print((await carrel.documents.get(document_id)).state)`
        """
        return Document.parse(await self._transport.call("GET", path_of(_PATH, document_id)))

    async def text(self, document_id: str) -> str:
        """The text that passages cite: `text[p.start:p.end] == p.text`.

        Example: `text = await carrel.documents.text(passage.document_id)`
        """
        answer = await self._transport.call("GET", path_of(_PATH, document_id, "text"))
        return str(answer["text"])

    async def list(
        self, *, collection: str | None = None, external_ids: Sequence[str] | None = None, page_size: int = 100
    ) -> AsyncIterator[Document]:
        """All documents, oldest first, fetched page by page; of a collection, those with `external_ids` only.

        Example: `titles = [document.title async for document in carrel.documents.list()]`
        """
        for chosen in pieces(external_ids):
            async for item in pages(self._transport, _PATH, page_size, collection=collection, external_id=chosen):
                yield Document.parse(item)

    async def delete(
        self,
        document_id: str,
        *,
        if_match: str | None = None,
        after: Sequence[str] = (),
        after_policy: str = "all_succeeded",
    ) -> Job:
        """Gone from every answer at once, or when the jobs `after` have ended; the returned job removes what is left.

        `if_match`: only if this is the document's `etag`, else VersionConflictError.

        Example: `await carrel.documents.delete(document.id)`
        """
        waits = {"after_job": [*after], "after_policy": after_policy} if after else {}
        path, headers = path_of(_PATH, document_id), {"If-Match": if_match}
        answer = await self._transport.call("DELETE", path, params=waits, headers=headers)
        return Job.parse(answer["job"])
