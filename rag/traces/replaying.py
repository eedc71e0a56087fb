"""A question is asked again as it was, and both answers are compared: of documents, of a conversation, or of both in a context.
A replay leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from config.database import Database
from config.errors import Conflict
from rag.collections import Collections
from rag.context.contexts import SessionContext
from rag.embedding.runtime import Matrix
from rag.packing.counting import counter
from rag.packing.packing import pack
from rag.retrieval.question import Answer
from rag.retrieval.retriever import Retriever
from rag.store.base import Vector
from rag.traces.conversation_difference import ConversationDifference, compared
from rag.traces.conversations_again import ConversationsAgain, Conversing, OneAgain
from rag.traces.conversed import Conversed, of_context, of_recall
from rag.traces.documents_again import NOTHING, DocumentsAgain, DocumentsTold
from rag.traces.left import asked_text, digest_of, named, read_body, unpacked_vectors
from rag.traces.outlines import outline, pieces, pieces_of
from rag.traces.replayed import ContextDifference, Otherwise, Replayed, diff
from rag.traces.tables import Trace
from rag.traces.telling import Telling
from rag.types import Meter, Reader


@dataclass(frozen=True, slots=True)
class _Confined:
    """Satisfies rag.types.Reader: who replays, with no more labels than whoever asked."""

    tenant_id: str
    cache_salt: bytes
    collections: frozenset[str] | None
    labels: frozenset[str] | None
    subject: str | None
    session: str | None = None  #: what is attached to one is asked by the question's own

    def speaking_for(self, named: str | None) -> str | None:
        return self.subject or named


class _Stored(NamedTuple):
    """Vectors of a trace; None: of another embedding space than today's, not wanted, or never there."""

    documents: Matrix | None
    conversation: Vector | None


class Replayer:
    def __init__(self, database: Database, collections: Collections, retriever: Retriever, conversing: Conversing) -> None:
        self.database, self.collections, self.retriever = database, collections, retriever
        self.conversing = conversing

    def for_tenant(self, reader: Reader, meter: Meter) -> TenantReplayer:
        return TenantReplayer(self, reader, meter)


class TenantReplayer:
    def __init__(self, parts: Replayer, reader: Reader, meter: Meter) -> None:
        self._parts, self._reader, self._meter = parts, reader, meter
        self._conversations = ConversationsAgain(parts.conversing, reader, meter)

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
        if not body.get("searched") and not body.get("asked"):
            raise Conflict(_why_not(trace), field="trace_id")
        stored = self._stored(trace, body, otherwise)
        once = _Once(self._parts, self._confined(body), self._meter, trace, body, otherwise, stored, f"{charge_id}:{trace.id}")
        if not body.get("asked"):
            return once.of_documents()
        again = self._conversations.of(trace, body, otherwise, stored.conversation, once.charge_id)
        return once.of_recall(again) if trace.kind == "recall" else once.of_context(again)

    def _confined(self, body: Mapping[str, Any]) -> _Confined:
        reader, then = self._reader, None if body["labels"] is None else frozenset(body["labels"])
        held = [labels for labels in (reader.labels, then) if labels is not None]
        labels = frozenset.intersection(*held) if held else None
        return _Confined(reader.tenant_id, reader.cache_salt, reader.collections, labels, reader.subject)

    def _stored(self, trace: Trace, body: Mapping[str, Any], otherwise: Otherwise) -> _Stored:
        space = self._parts.retriever.embedding.space
        if trace.vectors is None or trace.space != space.id or otherwise.fresh_vector:
            return _Stored(None, None)
        searched, asked = body.get("searched"), body.get("asked")
        of_documents = len(searched["phrasings"]) if searched and searched["dense"] else 0
        of_conversation = int(asked is not None and asked["dense"])
        found = unpacked_vectors(trace.vectors, of_documents + of_conversation, space.dimensions)
        if found is None:
            return _Stored(None, None)
        return _Stored(found[:of_documents] if of_documents else None, found[-1] if of_conversation else None)


@dataclass(frozen=True, slots=True)
class _Once:
    """The replay of one trace."""

    parts: Replayer
    reader: Reader
    meter: Meter
    trace: Trace
    body: Mapping[str, Any]
    otherwise: Otherwise
    stored: _Stored
    charge_id: str

    def of_documents(self) -> Replayed:
        answer = self._asked()
        told = self._documents.told(self.trace, self.body, self.otherwise, answer)
        context = None if self.trace.session_id is not None else self._context(told, answer)
        notes = *_notes(self.body), *((_NOT_WHOLE,) if self._is_partial else ())
        return self._replayed(answer, told, answer.degraded, 0, context=context, notes=notes)

    def of_recall(self, again: OneAgain) -> Replayed:
        found = again.recall()
        now = of_recall(self.body["asked"]["text"], found)
        told = self._documents.told(self.trace, self.body, self.otherwise, NOTHING)
        conversation = self._compared(again, now, None)
        return self._replayed(NOTHING, told, found.degraded, found.charged, conversation=conversation, now=now)

    def of_context(self, again: OneAgain) -> Replayed:
        count = counter(self.body["context"]["tokenizer"], self.parts.retriever.embedding.model)
        packed = again.context(self._asked_for if self.body.get("searched") else None, count)
        answer, now = packed.answer or NOTHING, of_context(packed, self._name)
        told = self._documents.told(self.trace, self.body, self.otherwise, answer)
        return self._replayed(
            answer,
            told,
            packed.degraded,
            packed.charged,
            context=self._of_session(told, packed, now),
            conversation=self._compared(again, now, packed),
            now=now,
            notes=_notes(self.body),
        )

    @property
    def _documents(self) -> DocumentsAgain:
        parts = self.parts
        clock = parts.conversing.contexts.clock
        return DocumentsAgain(parts.database, clock, parts.collections, parts.retriever, self.reader, self.meter)

    @property
    def _is_partial(self) -> bool:
        return self.trace.kind == "context" and self.trace.session_id is not None

    def _name(self, text: str) -> str:
        return named(text, self.reader.cache_salt)

    def _asked_for(self, _text: str) -> Answer:
        return self._asked()

    def _asked(self) -> Answer:
        vectors, session_id = self.stored.documents, self.trace.session_id
        return self._documents.answer(self.body, self.otherwise, vectors, session_id=session_id, charge_id=self.charge_id)

    def _replayed(
        self,
        answer: Answer,
        told: DocumentsTold,
        degraded: Sequence[str],
        charged: int,
        now: Conversed | None = None,
        **more: Any,
    ) -> Replayed:
        searched = answer.searched is not None and answer.searched.vectors is not None
        dense = searched or (now is not None and now.vector is not None)
        stored = self.stored.documents is not None or self.stored.conversation is not None
        return Replayed(
            trace=self.trace,
            body=self.body,
            query=asked_text(self.body) or "",
            answer=answer,
            difference=told.difference,
            vector="none" if not dense else "stored" if stored else "fresh",
            degraded=tuple(degraded),
            charged=charged + answer.charged + answer.rerank_tokens,
            snippets=told.snippets,
            names=told.names,
            **more,
        )

    def _compared(self, again: OneAgain, now: Conversed, packed: SessionContext | None) -> ConversationDifference:
        then = self.body["conversation"]
        found = compared(then, self.body["recalled"], now.ids, now.recalled)
        archived = 0 if packed is None else packed.moment.archived
        contexts = self.parts.conversing.contexts
        telling = Telling(contexts.database, contexts.clock, self.reader, self.trace.session_id, archived)
        last_then, last_now = (ids["moment"][0] if "moment" in ids else None for ids in (then, now.ids))
        items = tuple(telling.told(found.items))
        return ConversationDifference(again.as_of, last_then, last_now, items, found.rankings, found.spent)

    def _of_session(self, told: DocumentsTold, packed: SessionContext, now: Conversed) -> ContextDifference:
        """The texts are not compared: those of then are not kept, and of what was said much may be gone."""
        then, conversation = self.body["context"], packed.conversation
        if digest_of(conversation.composed.text) == then["sha256"]:
            return ContextDifference(True, then["tokens"], conversation.tokens, of="text")
        before = outline(self.body["conversation"], pieces(then["pieces"], told.documents))
        lines = diff(before, outline(now.ids, pieces_of(conversation.composed.citations)))
        return ContextDifference(False, then["tokens"], conversation.tokens, of="outline", lines=lines)

    def _context(self, told: DocumentsTold, answer: Answer) -> ContextDifference | None:
        if (packed := self.body.get("context")) is None:
            return None
        count = counter(packed["tokenizer"], self.parts.retriever.embedding.model)
        now = pack(answer.passages, packed["max_tokens"], count)
        tokens = packed["tokens"], now.tokens
        if digest_of(now.text) == packed["sha256"]:
            return ContextDifference(True, *tokens, of="text")
        former = [told.known[each["id"]] for each in told.then if each["id"] in told.known]
        before = pack(former, packed["max_tokens"], count).text if len(former) == len(told.then) else ""
        if digest_of(before) == packed["sha256"]:
            return ContextDifference(False, *tokens, of="text", lines=diff(before.splitlines(), now.text.splitlines()))
        lines = diff(pieces(packed["pieces"], told.documents), pieces_of(now.citations))
        return ContextDifference(False, *tokens, of="outline", lines=lines)


_NOT_WHOLE = "This trace does not say how the session stood: only what came from documents is asked again."


def _why_not(trace: Trace) -> str:
    if trace.contents == "full":
        return f"A trace of kind `{trace.kind}` without a question to documents is not replayed."
    return f"The tenant's plan kept `{trace.contents}` of it, without its question: it cannot be asked again."


def _notes(body: Mapping[str, Any]) -> Iterator[str]:
    if body.get("similarity") is not None:
        yield "It was answered as another question had been, by the semantic cache."
