"""Question sets, feedback, and what collections are tuned to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carrel_client.errors import CarrelClientError
from carrel_client.models import Model
from carrel_client.transport import Transport, pages, path_of


@dataclass(frozen=True)
class QuestionSet(Model):
    id: str
    name: str
    collection: str
    count: int
    created_at: str
    questions: list[dict[str, Any]] | None = None  #: each with `text` and `relevant`; None in lists


class QuestionSets:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        name: str,
        questions: Sequence[Mapping[str, Any]],
        collection: str = "default",
        idempotency_key: str | None = None,
    ) -> QuestionSet:
        """`questions`: each with its `text`, and `relevant`, a relevance (1 and more) for each external id."""
        body = {"name": name, "collection": collection, "questions": [dict(each) for each in questions]}
        answer = self._transport.call("POST", "/v1/question-sets", json=body, idempotency_key=idempotency_key)
        return QuestionSet.parse(answer.json())

    def list(self, *, collection: str | None = None, page_size: int = 100) -> Iterator[QuestionSet]:
        """Without their questions, oldest first."""
        for item in pages(self._transport, "/v1/question-sets", page_size, collection=collection):
            yield QuestionSet.parse(item)

    def get(self, name: str, *, collection: str = "default") -> QuestionSet:
        """By id, or by name in a collection, with its questions."""
        path = path_of("/v1/question-sets", self._id(name, collection))
        return QuestionSet.parse(self._transport.call("GET", path).json())

    def delete(self, name: str, *, collection: str = "default") -> QuestionSet:
        """By id, or by name in a collection."""
        path = path_of("/v1/question-sets", self._id(name, collection))
        return QuestionSet.parse(self._transport.call("DELETE", path).json())

    def _id(self, name: str, collection: str) -> str:
        found = [each.id for each in self.list(collection=collection) if name in (each.id, each.name)]
        if not found:
            raise CarrelClientError(f"There is no question set {name!r} in the collection {collection!r}.")
        return found[0]


@dataclass(frozen=True)
class Feedback(Model):
    """What somebody said of a document, or of a passage of it, as an answer to a question."""

    id: str
    query: str
    collection: str
    document_id: str
    external_id: str
    passage_id: str | None
    useful: bool | None
    rating: int | None  #: 1 to 5
    comment: str | None
    subject: str | None
    created_at: str


class FeedbackOf:
    """`carrel.feedback`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def give(
        self,
        *,
        query: str,
        passage_id: str | None = None,
        document_id: str | None = None,
        useful: bool | None = None,
        rating: int | None = None,
        comment: str | None = None,
        subject: str | None = None,
        idempotency_key: str | None = None,
    ) -> Feedback:
        """Of a passage or of a document: whether it was `useful`, or a `rating` of 1 to 5, or both."""
        fields = {
            **{"query": query, "passage_id": passage_id, "document_id": document_id, "useful": useful},
            **{"rating": rating, "comment": comment, "subject": subject},
        }
        body = {name: value for name, value in fields.items() if value is not None}
        answer = self._transport.call("POST", "/v1/feedback", json=body, idempotency_key=idempotency_key)
        return Feedback.parse(answer.json())

    def list(self, *, collection: str | None = None, page_size: int = 100) -> Iterator[Feedback]:
        """All of it, oldest first. Needs the scope `manage` and a key without bounds."""
        for item in pages(self._transport, "/v1/feedback", page_size, collection=collection):
            yield Feedback.parse(item)


@dataclass(frozen=True)
class TuningVersion(Model):
    version: int
    replaces: int  #: what was active before; 0: nothing
    parameters: dict[str, Any]  #: `boosts` and `recency`, as a query takes them
    figures: dict[str, Any]  #: what was measured on questions that it was not fitted to
    applied_at: str
    rolled_back_at: str | None


@dataclass(frozen=True)
class Tunings(Model):
    """What a collection was tuned to, newest first."""

    active: int  #: version; 0: none
    versions: list[TuningVersion]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Tunings:
        return cls(data["active"], [TuningVersion.parse(each) for each in data["versions"]])

    @property
    def parameters(self) -> dict[str, Any] | None:
        """Of the active version."""
        return next((each.parameters for each in self.versions if each.version == self.active), None)
