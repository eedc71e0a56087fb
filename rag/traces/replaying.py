"""A question is asked again as it was, of the index as it is, and both answers are compared. A replay leaves no trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from typing import Any

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import Database
from config.errors import Conflict, NotFound, SpaceMismatch
from rag.collections import Collections
from rag.corpus import Document
from rag.packing.counting import counter
from rag.packing.packing import pack
from rag.ranking import Ranked
from rag.retrieval.hydration import Hydrator, with_parents
from rag.retrieval.question import Again, Answer, Passage, Question
from rag.retrieval.retriever import Retriever
from rag.traces.difference import Difference, Place, difference
from rag.traces.left import digest_of, named, read_body, shown_passage, unpacked_vectors
from rag.traces.tables import Trace
from rag.traces.wording import question_from_json
from rag.types import Meter, Reader

SNIPPET = 160  # characters of a passage that a report shows
MAX_DIFF = 400  # lines of a context's difference


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What is done otherwise than then; None: as it was, or as it is set today."""

    profile: str | None = None  #: whose fusion and reranking are used; chunks are what they were brought as
    collections: tuple[str, ...] | None = None
    as_of: int | None = None  #: Unix milliseconds
    tuned: bool | None = None
    fresh_vector: bool = False  #: embed the question anew, which costs its tokens


@dataclass(frozen=True, slots=True)
class ContextDifference:
    """Of two packed contexts. `lines`: a unified diff, empty if they are equal."""

    equal: bool
    tokens_then: int
    tokens_now: int
    of: str  #: text, or outline where the text of then cannot be put together any more
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    trace: Trace
    body: Mapping[str, Any]  #: of the trace
    question: Question
    answer: Answer
    difference: Difference
    vector: str  #: stored, fresh or none
    context: ContextDifference | None = None
    snippets: Mapping[str, str] = field(default_factory=dict)  #: beginnings of passages by id, of those that are there
    names: Mapping[str, str] = field(default_factory=dict)  #: of documents, by what traces call them
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        same = [*self.body["degraded"]] == [*self.answer.degraded]
        return self.difference.is_empty and same and (self.context is None or self.context.equal)


@dataclass(frozen=True, slots=True)
class _Confined:
    """Satisfies rag.types.Reader: who replays, with no more labels than whoever asked."""

    tenant_id: str
    cache_salt: bytes
    collections: frozenset[str] | None
    labels: frozenset[str] | None
    subject: str | None
    session: str | None = None  #: what is attached to one is not asked again: it may be gone with it

    def speaking_for(self, named: str | None) -> str | None:
        return self.subject or named


class Replayer:
    def __init__(self, database: Database, collections: Collections, retriever: Retriever) -> None:
        self.database, self.collections, self.retriever = database, collections, retriever

    def for_tenant(self, reader: Reader, meter: Meter) -> TenantReplayer:
        return TenantReplayer(self, reader, meter)


class TenantReplayer:
    def __init__(self, parts: Replayer, reader: Reader, meter: Meter) -> None:
        self._parts, self._reader, self._meter = parts, reader, meter

    def require(self, otherwise: Otherwise) -> None:
        """Raise InvalidInput or NotFound for what no replay could use."""
        if otherwise.profile is not None:
            self._parts.collections.profiles.get(otherwise.profile)
        if otherwise.collections is not None:
            with self._parts.database.read(self._reader) as session:
                self._parts.collections.for_tenant(self._reader).find_all(session, otherwise.collections)

    def replay(self, trace: Trace, otherwise: Otherwise, *, charge_id: str) -> Replayed:
        """Raise Conflict for a trace that does not hold its question."""
        body = read_body(trace.body)
        if not body.get("searched"):
            raise Conflict(_why_not(trace), field="trace_id")
        reader, question = self._confined(body), _question(body, otherwise)
        vectors = None if otherwise.fresh_vector else self._vectors(trace, question)
        again = Again(vectors, body["searched"]["at"], otherwise.profile)
        handle = self._parts.retriever.for_tenant(reader, self._meter)
        answer = handle.again(question, again, charge_id=f"{charge_id}:{trace.id}")
        then = [shown_passage(values) for values in body["passages"]]
        known = self._known(reader, body, question, then, answer)
        names = self._called(then, known)
        dense = answer.searched is not None and answer.searched.vectors is not None
        return Replayed(
            trace=trace,
            body=body,
            question=question,
            answer=answer,
            difference=difference(_places(then), _places([_shown(passage, reader) for passage in answer.passages])),
            vector="none" if not dense else "fresh" if vectors is None else "stored",
            context=self._context(body, then, names, known, answer) if trace.session_id is None else None,
            snippets={name: " ".join(passage.text.split())[:SNIPPET] for name, passage in known.items()},
            names=names,
            notes=tuple(_notes(trace, body)),
        )

    def _confined(self, body: Mapping[str, Any]) -> _Confined:
        reader, then = self._reader, None if body["labels"] is None else frozenset(body["labels"])
        held = [labels for labels in (reader.labels, then) if labels is not None]
        labels = frozenset.intersection(*held) if held else None
        return _Confined(reader.tenant_id, reader.cache_salt, reader.collections, labels, reader.subject)

    def _vectors(self, trace: Trace, question: Question) -> Any:
        """None: of another embedding space than today's, or never there."""
        space = self._parts.retriever.embedding.space
        if trace.vectors is None or trace.space != space.id:
            return None
        return unpacked_vectors(trace.vectors, len(question.phrasings), space.dimensions)

    def _known(
        self, reader: Reader, body: Mapping[str, Any], question: Question, then: Sequence[Mapping[str, Any]], answer: Answer
    ) -> dict[str, Passage]:
        """Today's passages, and those of then that are still there, by id."""
        known = {passage.id: passage for passage in answer.passages}
        gone = [Ranked(each["id"], each["score"], {}) for each in then if each["id"] not in known]
        if gone:
            with self._parts.database.read(reader) as session:
                names = self._names(session, reader, {*question.collections, *body["question"]["collections"]})
                found = Hydrator(reader, names).passages(session, gone, Counter())
                known |= {passage.id: passage for passage in with_parents(session, found)}
        return known

    def _names(self, session: Session, reader: Reader, wanted: Iterable[str]) -> dict[str, str]:
        """Of the collections that are still there, by id."""
        handle, names = self._parts.collections.for_tenant(reader), {}
        for name in wanted:
            with suppress(NotFound, SpaceMismatch):
                names[handle.find(session, name).id] = name
        return names

    def _called(self, then: Sequence[Mapping[str, Any]], known: Mapping[str, Passage]) -> dict[str, str]:
        """What documents are called where people read it, by what traces call them: a deleted one has its id alone."""
        salt, ids = self._reader.cache_salt, {each["document_id"]: each["named"] for each in then}
        there = col(Document.id).in_(ids), col(Document.deleted_at).is_(None)
        living = select(col(Document.id), col(Document.external_id)).where(*there)
        with self._parts.database.read(self._reader) as session:
            names = {ids[document_id]: external_id for document_id, external_id in session.execute(living)}
        names |= {named(passage.external_id, salt): passage.external_id for passage in known.values()}
        return {name: document_id for document_id, name in ids.items()} | names

    def _context(
        self,
        body: Mapping[str, Any],
        then: Sequence[Mapping[str, Any]],
        names: Mapping[str, str],
        known: Mapping[str, Passage],
        answer: Answer,
    ) -> ContextDifference | None:
        if (packed := body.get("context")) is None:
            return None
        count = counter(packed["tokenizer"], self._parts.retriever.embedding.model)
        now = pack(answer.passages, packed["max_tokens"], count)
        tokens = packed["tokens"], now.tokens
        if digest_of(now.text) == packed["sha256"]:
            return ContextDifference(True, *tokens, of="text")
        former = [known[each["id"]] for each in then if each["id"] in known]
        before = pack(former, packed["max_tokens"], count).text if len(former) == len(then) else ""
        if digest_of(before) == packed["sha256"]:
            return ContextDifference(False, *tokens, of="text", lines=_diff(before.splitlines(), now.text.splitlines()))
        documents = {each["id"]: names[each["named"]] for each in then}
        was = [_piece(number, documents[name], start, end) for number, name, start, end in packed["pieces"]]
        pieces = [_piece(cited.number, cited.passage.external_id, cited.start, cited.end) for cited in now.citations]
        return ContextDifference(False, *tokens, of="outline", lines=_diff(was, pieces))


def _why_not(trace: Trace) -> str:
    if trace.contents == "full":
        return f"A trace of kind `{trace.kind}` without a question to documents is not replayed."
    return f"The tenant's plan kept `{trace.contents}` of it, without its question: it cannot be asked again."


def _question(body: Mapping[str, Any], otherwise: Otherwise) -> Question:
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


def _notes(trace: Trace, body: Mapping[str, Any]) -> list[str]:
    notes = []
    if body["similarity"] is not None:
        notes.append("It was answered as another question had been, by the semantic cache.")
    if trace.session_id is not None:
        notes.append("Of a session's context only what came from documents is asked again.")
    return notes


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


def _piece(number: int, document: str, start: int, end: int) -> str:
    return f"[{number}] {document} {start}–{end}"


def _diff(before: Sequence[str], after: Sequence[str]) -> tuple[str, ...]:
    return tuple(unified_diff(before, after, "then", "now", lineterm="", n=2))[:MAX_DIFF]
