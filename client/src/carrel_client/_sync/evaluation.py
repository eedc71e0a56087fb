"""Question sets, feedback, and what collections are tuned to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from carrel_client._sync.transport import Transport, pages
from carrel_client.errors import CarrelClientError
from carrel_client.evaluation import Feedback, QuestionSet
from carrel_client.exchange import path_of


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
        """`questions`: each with its `text`, and `relevant`, a relevance (1 and more) for each external id.

        Example: `carrel.question_sets.create(name="first", questions=[{"text": "how long?", "relevant": {"rules": 1}}])`
        """
        body = {"name": name, "collection": collection, "questions": [dict(each) for each in questions]}
        answer = self._transport.call("POST", "/v1/question-sets", json=body, idempotency_key=idempotency_key)
        return QuestionSet.parse(answer)

    def list(self, *, collection: str | None = None, page_size: int = 100) -> Iterator[QuestionSet]:
        """Without their questions, oldest first.

        Example: `names = [each.name for each in carrel.question_sets.list()]`
        """
        for item in pages(self._transport, "/v1/question-sets", page_size, collection=collection):
            yield QuestionSet.parse(item)

    def get(self, name: str, *, collection: str = "default") -> QuestionSet:
        """By id, or by name in a collection, with its questions.

        Example: `questions = carrel.question_sets.get("first").questions`
        """
        path = path_of("/v1/question-sets", self._id(name, collection))
        return QuestionSet.parse(self._transport.call("GET", path))

    def delete(self, name: str, *, collection: str = "default") -> QuestionSet:
        """By id, or by name in a collection.

        Example: `carrel.question_sets.delete("first")`
        """
        path = path_of("/v1/question-sets", self._id(name, collection))
        return QuestionSet.parse(self._transport.call("DELETE", path))

    def _id(self, name: str, collection: str) -> str:
        found = [each.id for each in self.list(collection=collection) if name in (each.id, each.name)]
        if not found:
            raise CarrelClientError(f"There is no question set {name!r} in the collection {collection!r}.")
        return found[0]


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
        """Of a passage or of a document: whether it was `useful`, or a `rating` of 1 to 5, or both.

        Example: `carrel.feedback.give(query="how long?", passage_id=passage.id, useful=True)`
        """
        fields = {
            **{"query": query, "passage_id": passage_id, "document_id": document_id, "useful": useful},
            **{"rating": rating, "comment": comment, "subject": subject},
        }
        body = {name: value for name, value in fields.items() if value is not None}
        answer = self._transport.call("POST", "/v1/feedback", json=body, idempotency_key=idempotency_key)
        return Feedback.parse(answer)

    def list(self, *, collection: str | None = None, page_size: int = 100) -> Iterator[Feedback]:
        """All of it, oldest first. Needs the scope `manage` and a key without bounds.

        Example: `ratings = [given.rating for given in carrel.feedback.list()]`
        """
        for item in pages(self._transport, "/v1/feedback", page_size, collection=collection):
            yield Feedback.parse(item)
