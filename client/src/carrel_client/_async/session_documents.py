"""What is attached to sessions, and what becomes of sessions and subjects: promoted, exported, erased."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Unpack

from carrel_client._async import world
from carrel_client._async.documents import AsyncDocuments, AsyncSubmitted
from carrel_client._async.transport import AsyncTransport, pages
from carrel_client.documents import Brought
from carrel_client.exchange import path_of
from carrel_client.models import Document, Job
from carrel_client.session_documents import Erasure

POLL_S = 0.5


@dataclass(frozen=True)
class AsyncPromoted:
    """What was attached to a session as `session_document_id` is now another document as well, in a collection."""

    session_document_id: str
    submitted: AsyncSubmitted


@dataclass(frozen=True)
class AsyncPromotion:
    documents: Sequence[AsyncPromoted]
    transcript: AsyncSubmitted | None  #: of the session's turns, if they were asked for


class AsyncSessionDocuments:
    """Documents that are found with their session alone, and are gone with it."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, session_id: str, **document: Unpack[Brought]) -> AsyncSubmitted:
        """As `Documents.create`, without a collection.

        Example: `await (await carrel.session_documents.create(session.id, text="The map room is closed.")).wait()`
        """
        return await AsyncDocuments(self._transport, path_of("/v1/sessions", session_id, "documents")).create(**document)

    async def get(self, session_id: str, document_id: str) -> Document:
        """A document that is attached to the session.

        Example: `document = await carrel.session_documents.get(session.id, document.id)`
        """
        return Document.parse(await self._transport.call("GET", _of(session_id, document_id)))

    async def text(self, session_id: str, document_id: str) -> str:
        """The text that passages cite.

        Example: `text = await carrel.session_documents.text(session.id, document.id)`
        """
        answer: str = (await self._transport.call("GET", f"{_of(session_id, document_id)}/text"))["text"]
        return answer

    async def list(self, session_id: str, *, page_size: int = 100) -> AsyncIterator[Document]:
        """The oldest first, fetched page by page.

        Example: `titles = [document.title async for document in carrel.session_documents.list(session.id)]`
        """
        async for item in pages(self._transport, path_of("/v1/sessions", session_id, "documents"), page_size):
            yield Document.parse(item)

    async def delete(self, session_id: str, document_id: str) -> Job:
        """Gone from every answer at once; the returned job removes what is left.

        Example: `job = await carrel.session_documents.delete(session.id, document.id)`
        """
        return Job.parse((await self._transport.call("DELETE", _of(session_id, document_id)))["job"])

    async def promote(
        self, session_id: str, *, collection: str, documents: Sequence[str] | None = None, turns: bool = False
    ) -> AsyncPromotion:
        """Keep these documents, or all, in a collection, with the vectors they have; with `turns` what was said too. The
        session's own stay until it goes.

        Example: `kept = await carrel.session_documents.promote(session.id, collection="default", turns=True)`
        """
        given = None if documents is None else list(documents)
        body = {"collection": collection, "documents": given, "turns": turns}
        answer = await self._transport.call("POST", path_of("/v1/sessions", session_id, "promote"), json=body)
        brought = AsyncDocuments(self._transport)
        kept = tuple(AsyncPromoted(one["session_document_id"], brought.submitted(one["promoted"])) for one in answer["data"])
        said = answer["transcript"]
        return AsyncPromotion(kept, None if said is None else brought.submitted(said))


class AsyncExports:
    """Each yields JSON objects, as they are read; the last is `session_end` or `subject_end`, or the export was cut off."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def session(self, session_id: str) -> AsyncIterator[dict[str, Any]]:
        """The session, its turns and what is attached to it.

        Example: `types = [line["type"] async for line in carrel.exports.session(session.id)]`
        """
        async with aclosing(self._transport.lines("GET", path_of("/v1/sessions", session_id, "export"))) as lines:
            async for line in lines:
                yield json.loads(line)

    async def subject(self, subject: str) -> AsyncIterator[dict[str, Any]]:
        """Every session of the subject, one after the other.

        Example: `types = [line["type"] async for line in carrel.exports.subject("ann")]`
        """
        async with aclosing(self._transport.lines("GET", path_of("/v1/subjects", subject, "export"))) as lines:
            async for line in lines:
                yield json.loads(line)


class AsyncErasures:
    """What is erased is in no answer when the call returns; the receipt follows."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def session(self, session_id: str) -> Erasure:
        """The session with its turns, summaries, documents, and all else that is of it.

        Example: `erasure = await carrel.erasures.session(session.id)`
        """
        return Erasure.parse(await self._transport.call("DELETE", path_of("/v1/sessions", session_id)))

    async def subject(self, subject: str) -> Erasure:
        """Sessions, memories, traces and feedback: whatever is of the subject.

        Example: `erasure = await carrel.erasures.subject("ann")`
        """
        return Erasure.parse(await self._transport.call("POST", "/v1/erasures", json={"subject": subject}))

    async def get(self, erasure_id: str) -> Erasure:
        """How far it is; once done, the receipt.

        Example: `print((await carrel.erasures.get(erasure.id)).state)`
        """
        return Erasure.parse(await self._transport.call("GET", path_of("/v1/erasures", erasure_id)))

    async def wait(self, erasure_id: str, *, timeout_s: float = 600.0) -> Erasure:
        """The receipt; raise TimeoutError if it is not done by then.

        Example: `receipt = await carrel.erasures.wait(erasure.id, timeout_s=60)`
        """
        deadline = time.monotonic() + timeout_s
        while (erasure := await self.get(erasure_id)).state != "done":
            if time.monotonic() > deadline:
                raise TimeoutError(f"Erasure {erasure_id} is still running after {timeout_s:g} s.")
            await world.sleep(POLL_S)
        return erasure


def _of(session_id: str, document_id: str) -> str:
    return path_of("/v1/sessions", session_id, "documents", document_id)
