"""What is attached to sessions, and what becomes of sessions and subjects: promoted, exported, erased."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from carrel_client.documents import Brought, Documents, Submitted
from carrel_client.models import Document, Job, Model
from carrel_client.transport import Transport
from carrel_client.transport import pages as _pages
from carrel_client.transport import path_of as _path

POLL_S = 0.5


@dataclass(frozen=True)
class Promoted:
    """What was attached to a session as `session_document_id` is now another document as well, in a collection."""

    session_document_id: str
    submitted: Submitted


@dataclass(frozen=True)
class Promotion:
    documents: Sequence[Promoted]
    transcript: Submitted | None  #: of the session's turns, if they were asked for


@dataclass(frozen=True)
class Erasure(Model):
    id: str
    kind: str  #: session or subject
    session_id: str | None
    state: str  #: running or done
    before: Mapping[str, int]  #: rows by table, points, files and kept results, when it was asked for
    after: Mapping[str, int]  #: the same when it was done
    requested_at: str
    finished_at: str | None


class SessionDocuments:
    """Documents that are found with their session alone, and are gone with it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, session_id: str, **document: Unpack[Brought]) -> Submitted:
        """As `Documents.create`, without a collection."""
        return Documents(self._transport, _path("/v1/sessions", session_id, "documents")).create(**document)

    def get(self, session_id: str, document_id: str) -> Document:
        return Document.parse(self._transport.call("GET", _of(session_id, document_id)).json())

    def text(self, session_id: str, document_id: str) -> str:
        answer: str = self._transport.call("GET", f"{_of(session_id, document_id)}/text").json()["text"]
        return answer

    def list(self, session_id: str, *, page_size: int = 100) -> Iterator[Document]:
        for item in _pages(self._transport, _path("/v1/sessions", session_id, "documents"), page_size):
            yield Document.parse(item)

    def delete(self, session_id: str, document_id: str) -> Job:
        """Gone from every answer at once; the returned job removes what is left."""
        return Job.parse(self._transport.call("DELETE", _of(session_id, document_id)).json()["job"])

    def promote(
        self, session_id: str, *, collection: str, documents: Sequence[str] | None = None, turns: bool = False
    ) -> Promotion:
        """Keep these documents, or all, in a collection, with the vectors they have; with `turns` what was said too. The
        session's own stay until it goes."""
        given = None if documents is None else list(documents)
        body = {"collection": collection, "documents": given, "turns": turns}
        answer = self._transport.call("POST", _path("/v1/sessions", session_id, "promote"), json=body).json()
        brought = Documents(self._transport)
        kept = tuple(Promoted(one["session_document_id"], brought.submitted(one["promoted"])) for one in answer["data"])
        said = answer["transcript"]
        return Promotion(kept, None if said is None else brought.submitted(said))


class Exports:
    """Each yields JSON objects, as they are read; the last is `session_end` or `subject_end`, or the export was cut off."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def session(self, session_id: str) -> Iterator[dict[str, Any]]:
        return map(json.loads, self._transport.download(_path("/v1/sessions", session_id, "export"), {}))

    def subject(self, subject: str) -> Iterator[dict[str, Any]]:
        """Every session of the subject, one after the other."""
        return map(json.loads, self._transport.download(_path("/v1/subjects", subject, "export"), {}))


class Erasures:
    """What is erased is in no answer when the call returns; the receipt follows."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def session(self, session_id: str) -> Erasure:
        return Erasure.parse(self._transport.call("DELETE", _path("/v1/sessions", session_id)).json())

    def subject(self, subject: str) -> Erasure:
        """Sessions, memories, traces and feedback: whatever is of the subject."""
        return Erasure.parse(self._transport.call("POST", "/v1/erasures", json={"subject": subject}).json())

    def get(self, erasure_id: str) -> Erasure:
        return Erasure.parse(self._transport.call("GET", _path("/v1/erasures", erasure_id)).json())

    def wait(self, erasure_id: str, *, timeout_s: float = 600.0) -> Erasure:
        """The receipt; raise TimeoutError if it is not done by then."""
        deadline = time.monotonic() + timeout_s
        while (erasure := self.get(erasure_id)).state != "done":
            if time.monotonic() > deadline:
                raise TimeoutError(f"Erasure {erasure_id} is still running after {timeout_s:g} s.")
            time.sleep(POLL_S)
        return erasure


def _of(session_id: str, document_id: str) -> str:
    return _path("/v1/sessions", session_id, "documents", document_id)
