"""Documents are asked again as they were, of the index as it is, and both answers are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import NotFound, SpaceMismatch
from rag.attached import attached_to
from rag.collections import Collections
from rag.corpus import Document
from rag.embedding.runtime import Matrix
from rag.ranking import Ranked
from rag.retrieval.hydration import Hydrator, with_parents
from rag.retrieval.question import Again, Answer, Passage, Question
from rag.retrieval.retriever import Retriever
from rag.traces.difference import Difference, Place, difference
from rag.traces.left import named, shown_passage
from rag.traces.replayed import SNIPPET, Otherwise
from rag.traces.tables import Trace
from rag.traces.wording import question_from_json
from rag.types import Meter, Reader

NOTHING = Answer((), 0, 0, {})


@dataclass(frozen=True, slots=True)
class DocumentsTold:
    """Both answers side by side."""

    then: Sequence[Mapping[str, Any]]  #: passages as the trace has them
    difference: Difference
    known: Mapping[str, Passage]  #: today's, and those of then that are still there, by id
    names: Mapping[str, str]  #: of documents, by what traces call them

    @property
    def documents(self) -> dict[str, str]:
        """What the documents of the passages of then are called, by the passages' ids."""
        return {each["id"]: self.names[each["named"]] for each in self.then}

    @property
    def snippets(self) -> dict[str, str]:
        return {name: " ".join(passage.text.split())[:SNIPPET] for name, passage in self.known.items()}


@dataclass(frozen=True, slots=True)
class DocumentsAgain:
    database: Database
    clock: Clock
    collections: Collections
    retriever: Retriever
    reader: Reader
    meter: Meter

    def answer(
        self, body: Mapping[str, Any], otherwise: Otherwise, vectors: Matrix | None, *, session_id: str | None, charge_id: str
    ) -> Answer:
        again = Again(vectors, body["searched"]["at"], otherwise.profile)
        question = replace(asked_again(body, otherwise), session=session_id)
        return self.retriever.for_tenant(self.reader, self.meter).again(question, again, charge_id=charge_id)

    def told(self, trace: Trace, body: Mapping[str, Any], otherwise: Otherwise, answer: Answer) -> DocumentsTold:
        then = [shown_passage(values) for values in body.get("passages", ())]
        wanted = {*body["question"]["collections"], *(otherwise.collections or ())} if "question" in body else ()
        known = self._known(trace, wanted, then, answer)
        now = [_shown(passage, self.reader) for passage in answer.passages]
        return DocumentsTold(then, difference(_places(then), _places(now)), known, self._called(then, known))

    def _known(
        self, trace: Trace, wanted: Iterable[str], then: Sequence[Mapping[str, Any]], answer: Answer
    ) -> dict[str, Passage]:
        known = {passage.id: passage for passage in answer.passages}
        gone = [Ranked(each["id"], each["score"], {}) for each in then if each["id"] not in known]
        if gone:
            with self.database.read(self.reader) as session:
                names = self._names(session, wanted, trace.session_id)
                found = Hydrator(self.reader, names).passages(session, gone, Counter())
                known |= {passage.id: passage for passage in with_parents(session, found)}
        return known

    def _names(self, session: Session, wanted: Iterable[str], session_id: str | None) -> dict[str, str]:
        """Of the collections that are still there, by id, with that of what is attached to the session."""
        handle, names = self.collections.for_tenant(self.reader), {}
        for name in wanted:
            with suppress(NotFound, SpaceMismatch):
                names[handle.find(session, name).id] = name
        if session_id is not None:
            with suppress(NotFound, SpaceMismatch):
                space, now = self.retriever.embedding.space, self.clock()
                names |= {row.id: row.name for row in attached_to(session, self.reader, session_id, space=space, now=now)}
        return names

    def _called(self, then: Sequence[Mapping[str, Any]], known: Mapping[str, Passage]) -> dict[str, str]:
        """What documents are called where people read it, by what traces call them: a deleted one has its id alone."""
        salt, ids = self.reader.cache_salt, {each["document_id"]: each["named"] for each in then}
        there = col(Document.id).in_(ids), col(Document.deleted_at).is_(None)
        living = select(col(Document.id), col(Document.external_id)).where(*there)
        with self.database.read(self.reader) as session:
            names = {ids[document_id]: external_id for document_id, external_id in session.execute(living)}
        names |= {named(passage.external_id, salt): passage.external_id for passage in known.values()}
        return {name: document_id for document_id, name in ids.items()} | names


def asked_again(body: Mapping[str, Any], otherwise: Otherwise) -> Question:
    """With the phrasings that it was searched by. Where the model did not answer then, by its words alone."""
    question, searched = question_from_json(body["question"]), body["searched"]
    first, *others = searched["phrasings"]
    words_only = question.mode == "lexical" or (not searched["dense"] and not otherwise.fresh_vector)
    return replace(
        question,
        text=first,
        others=tuple(others),
        rewrite="none",
        mode="lexical" if words_only else question.mode,
        collections=otherwise.collections or question.collections,
        as_of=question.as_of if otherwise.as_of is None else otherwise.as_of,
        tuned=question.tuned if otherwise.tuned is None else otherwise.tuned,
    )


def _places(passages: Sequence[Mapping[str, Any]]) -> list[Place]:
    return [
        Place(each["id"], each["named"], each["start"], each["end"], each["rank"], rank)
        for rank, each in enumerate(map(_with_rank, passages), 1)
    ]


def _with_rank(each: Mapping[str, Any]) -> dict[str, Any]:
    """By which passages are ordered, as `Passage.rank` has it."""
    score = each["score"] if each["rerank_score"] is None else each["rerank_score"]
    return {**each, "rank": score + each["boost"]}


def _shown(passage: Passage, reader: Reader) -> dict[str, Any]:
    places = {name: getattr(passage, name) for name in ("id", "start", "end", "score", "boost", "rerank_score")}
    return {**places, "named": named(passage.external_id, reader.cache_salt)}
