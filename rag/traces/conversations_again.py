"""A conversation is looked at again as it was, or as it stands: recalled from, and packed into a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from config.errors import InvalidInput
from rag.context.contexts import Again, Contexts, Request, SessionContext, Sources
from rag.context.found import Recalled, Remembered, recalled_of, remembered_of
from rag.context.moments import Moment
from rag.memories.memories import Memories
from rag.memories.values import Wanted
from rag.packing.conversation import Plan
from rag.packing.packing import Count
from rag.packing.shares import shares_of
from rag.recall import again as recalling
from rag.recall.loading import Indexed
from rag.recall.recall import Recall, RecallQuestion
from rag.recall.recall import Recalled as FoundTurns
from rag.recall.resident import Residents
from rag.retrieval.question import Answer
from rag.store.base import Vector
from rag.traces.conversation_difference import AsOf
from rag.traces.replayed import Otherwise
from rag.traces.tables import Trace
from rag.traces.wording import recall_from_json
from rag.types import Meter, Rememberer

MAX_BYTES = 64 << 20  #: of indexes of former moments, in one request
MAX_MEMORIES = 20  #: that are tried for a context, best first


@dataclass(frozen=True, slots=True)
class Conversing:
    """What answers of conversations."""

    contexts: Contexts
    recall: Recall
    memories: Memories


@dataclass(frozen=True, slots=True)
class ConversationsAgain:
    """For the replays of one request: what is indexed for one of them serves those of the same session that follow."""

    parts: Conversing
    reader: Rememberer
    meter: Meter
    residents: Residents = field(init=False)

    def __post_init__(self) -> None:
        dimensions = self.parts.recall.embedding.space.dimensions
        object.__setattr__(self, "residents", Residents(dimensions, MAX_BYTES))

    def of(
        self, trace: Trace, body: Mapping[str, Any], otherwise: Otherwise, vector: Vector | None, charge_id: str
    ) -> OneAgain:
        """`vector`: what it was asked by, if that is there. Raise InvalidInput for a time that has not come."""
        if otherwise.as_of is not None and otherwise.as_of > self.parts.contexts.clock():
            raise InvalidInput("`as_of` is in the future.", field="as_of")
        return OneAgain(self, trace, body, otherwise, vector, charge_id)


@dataclass(frozen=True, slots=True)
class OneAgain:
    of: ConversationsAgain
    trace: Trace
    body: Mapping[str, Any]
    otherwise: Otherwise
    vector: Vector | None
    charge_id: str

    @property
    def as_of(self) -> AsOf:
        return "now" if self.otherwise.now else "then" if self.otherwise.as_of is None else self.otherwise.as_of

    @property
    def by(self) -> Vector | Literal["words", "anew"]:
        """Where the model did not answer then, by words alone."""
        if self.vector is not None:
            return self.vector
        return "anew" if self.body["asked"]["dense"] or self.otherwise.fresh_vector else "words"

    def recall(self) -> FoundTurns:
        """Of the session, or of the subject's."""
        question = recall_from_json(self.body["words"]["recall"], self.body["asked"]["text"], self._asked_at)
        handle, charge_id = self._recalling(), f"{self.charge_id}:recall"
        if self.trace.session_id is not None:
            return handle.in_session(self.trace.session_id, question, charge_id=charge_id)
        return handle.of_subject(self.trace.subject, question, charge_id=charge_id)

    def context(self, documents: Callable[[str], Answer] | None, count: Count) -> SessionContext:
        """Raise InvalidInput if what stands in it in any case does not fit any more."""
        asked, words = self.body["details"], self.body["words"]
        shares = shares_of(asked["strategy"], memories=asked["memories"], given=asked["shares"])
        budget = self.body["context"]["max_tokens"]
        plan = Plan(budget, shares, asked["newest_turns"], asked["knowledge"], words["message"])
        request = Request(self.trace.session_id or "", plan, words["pins"], self.body["asked"]["text"])
        sources = Sources(documents, self._recalled, self._remembered if asked["memories"] else None)
        handle = self.of.parts.contexts.for_tenant(self.of.reader)
        return handle.pack(request, sources, count, charge_id=self.charge_id, again=self._again())

    @property
    def _then(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.body["conversation"]
        return found

    @property
    def _asked_at(self) -> datetime | None:
        asked_at = self._then["asked_at"]
        return None if asked_at is None else datetime.fromisoformat(asked_at)

    def _again(self) -> Again:
        if self.as_of == "now":
            return Again()
        if self.as_of != "then":
            return Again(self.as_of)
        turns, archived = self._then["moment"]
        without, damaged = ("summary" in self.body["degraded"]), "pins" in self.body["degraded"]
        return Again(Moment(turns, archived, tuple(self._then["pins"]), damaged), self.trace.at if without else None)

    def _recalling(self) -> recalling.RecallAgain:
        when: recalling.When
        if self.as_of == "then":
            when = [Indexed(*each) for each in self._then["indexed"]]
        else:
            when = None if self.as_of == "now" else self.as_of
        parts = self.of.parts.recall, self.of.reader, self.of.meter, self.of.residents
        return recalling.RecallAgain(*parts, self.by, when)

    def _recalled(self, text: str) -> Recalled:
        asked = RecallQuestion(text, top_k=self.body["details"]["recall_top_k"], asked_at=self._asked_at)
        handle = self._recalling()
        return recalled_of(handle.in_session(self.trace.session_id or "", asked, charge_id=f"{self.charge_id}:recall"))

    def _remembered(self, text: str, subject: str) -> Remembered:
        as_of: int | None = None if self.as_of == "now" else self._then["memories_at"]
        if isinstance(self.as_of, int):
            as_of = self.as_of
        handle = self.of.parts.memories.for_tenant(self.of.reader, self.of.meter)
        wanted, charge_id = Wanted(subject=subject, as_of=as_of), f"{self.charge_id}:memories"
        return remembered_of(handle.search(text, charge_id=charge_id, wanted=wanted, limit=MAX_MEMORIES, by=self.by))
