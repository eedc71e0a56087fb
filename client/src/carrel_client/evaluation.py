"""Question sets: stored questions with the documents that answer them."""

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
