"""Memories on the wire."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from api.schemas.documents import Input, Text
from api.schemas.times import Moment, unix_ms
from config.clock import isoformat
from config.errors import InvalidInput, storable
from rag.memories.extraction import MAX_MESSAGE_CHARS, MAX_MESSAGES, Message
from rag.memories.tables import MemoryVersion
from rag.memories.values import (
    MAX_FACTS,
    MAX_HITS,
    MAX_KEY_CHARS,
    MAX_REASON_CHARS,
    MAX_SOURCES,
    MAX_TAG_CHARS,
    MAX_TAGS,
    MAX_TEXT_CHARS,
    Added,
    Change,
    Fact,
    Found,
    Memory,
    Placed,
    Source,
    Wanted,
)
from rag.types import MAX_QUESTION_CHARS

MAX_METADATA_BYTES, MAX_NAME_CHARS, MAX_ID_CHARS = 4_096, 200, 100


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("it needs a letter")
    return text


def _small(value: dict[str, Any]) -> dict[str, Any]:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not storable(written) or len(written.encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"it is at most {MAX_METADATA_BYTES} bytes of JSON, without lone surrogates")
    return value


Said = Annotated[Text, Field(min_length=1, max_length=MAX_TEXT_CHARS), AfterValidator(_said)]
Key = Annotated[Text, Field(min_length=1, max_length=MAX_KEY_CHARS), AfterValidator(_said)]
Tag = Annotated[Text, Field(min_length=1, max_length=MAX_TAG_CHARS)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Metadata = Annotated[dict[Text, Any], AfterValidator(_small)]
Name = Annotated[Text, Field(min_length=1, max_length=MAX_NAME_CHARS)]
Id = Annotated[Text, Field(min_length=1, max_length=MAX_ID_CHARS)]
Reason = Annotated[Text, Field(max_length=MAX_REASON_CHARS)]

SUBJECT = "Your name for the end user whose memories they are; left out, the token's own."
AGENT = "Whose knowledge they are, where agents keep theirs apart."
KEY = "What of the subject it tells: of one key one value is true at a time, so another value supersedes."
AS_OF = "As was believed then; left out, as is believed now."
VALID_AT = "What was true then; left out, at `as_of`, or now."
EVERYTHING = "Also what is not true any more, or not yet."


class SourceIn(Input):
    """Where it comes from: a turn of a session of the subject's, a whole session, or a document."""

    session_id: Id | None = None
    seq: int | None = Field(None, ge=1, description="Of the turn.")
    document_id: Id | None = None

    def source(self) -> Source:
        if (self.session_id is None) == (self.document_id is None) or (self.seq is not None and self.session_id is None):
            raise InvalidInput("A source is a `session_id`, with or without a `seq`, or a `document_id`.", field="sources")
        return Source(self.session_id, self.seq, self.document_id)


class FactIn(Input):
    text: Said = Field(examples=["Ann lives in Berlin."])
    key: Key | None = Field(None, description=KEY, examples=["home_city"])
    tags: Tags = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict, description="Your own; it is kept and shown.")
    valid_from: Moment | None = Field(None, description="Since when it is true; left out, from now on.")
    valid_to: Moment | None = Field(None, description="From when on it is not true any more.")
    expires_at: Moment | None = Field(None, description="When it is forgotten, with all of its history.")
    sources: list[SourceIn] = Field(default_factory=list, max_length=MAX_SOURCES)
    reason: Reason | None = Field(None, description="Why it is kept, for its history.")

    def fact(self) -> Fact:
        return Fact(
            self.text,
            self.key,
            tuple(self.tags),
            self.metadata,
            unix_ms(self.valid_from),
            unix_ms(self.valid_to),
            unix_ms(self.expires_at),
            tuple(each.source() for each in self.sources),
            self.reason,
        )


class MessageIn(Input):
    role: Literal["user", "assistant", "system", "tool"]
    content: Text = Field(max_length=MAX_MESSAGE_CHARS)
    session_id: Id | None = Field(None, description="Where it was said: what is kept of it names that as its source.")
    seq: int | None = Field(None, ge=1)

    def message(self) -> Message:
        given = SourceIn(session_id=self.session_id, seq=self.seq)
        return Message(self.role, self.content, None if self.session_id is None and self.seq is None else given.source())


class MemoriesIn(Input):
    """Facts as they are to be kept, in `memories`; or `messages`, in which facts are found. All are kept, or none."""

    subject: Name | None = Field(None, description=SUBJECT, examples=["ann"])
    agent: Name | None = Field(None, description=AGENT)
    session_id: Id | None = Field(None, description="A session that they go with; left out, they outlive all sessions.")
    memories: list[FactIn] = Field(default_factory=list, max_length=MAX_FACTS)
    messages: list[MessageIn] = Field(default_factory=list, max_length=MAX_MESSAGES)
    extract: Literal["llm", "verbatim"] = Field(
        "llm", description="Of `messages`: the configured language model finds the facts; or what users said is kept as it is."
    )

    def facts(self) -> list[Fact]:
        if bool(self.memories) == bool(self.messages):
            raise InvalidInput("Give either `memories` or `messages`.", field="memories")
        return [each.fact() for each in self.memories]


class MemoryPatch(Input):
    """What is given changes; null takes `key`, `valid_to` or `expires_at` away."""

    text: Said | None = None
    key: Key | None = Field(None, description=KEY)
    tags: Tags | None = None
    metadata: Metadata | None = None
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    expires_at: Moment | None = None
    sources: list[SourceIn] = Field(default_factory=list, max_length=MAX_SOURCES, description="Further ones.")
    reason: Reason | None = Field(None, description="Why, for its history.")

    def change(self) -> Change:
        taken_away: dict[str, Any] = {name: None for name in ("key", "valid_to", "expires_at") if name in self.model_fields_set}
        times = {name: unix_ms(getattr(self, name)) for name in ("valid_from", "valid_to", "expires_at")}
        given = {"text": self.text, "key": self.key, "data": self.metadata, **times}
        return Change(
            **taken_away | {name: value for name, value in given.items() if value is not None},
            tags=None if self.tags is None else tuple(self.tags),
            sources=tuple(each.source() for each in self.sources),
            reason=self.reason,
        )


class MemorySearchIn(Input):
    query: Text = Field(min_length=1, max_length=MAX_QUESTION_CHARS, examples=["where does she live?"])
    subject: Name | None = Field(None, description=SUBJECT, examples=["ann"])
    agent: Name | None = Field(None, description=AGENT)
    session_id: Id | None = Field(None, description="Only what goes with this session.")
    key: Key | None = None
    tag: Tag | None = None
    as_of: Moment | None = Field(None, description=AS_OF)
    valid_at: Moment | None = Field(None, description=VALID_AT)
    everything: bool = Field(False, description=EVERYTHING)
    limit: int = Field(10, ge=1, le=MAX_HITS)

    def wanted(self) -> Wanted:
        named = {name: getattr(self, name) for name in ("subject", "agent", "session_id", "key", "tag", "everything")}
        return Wanted(**named, as_of=unix_ms(self.as_of), valid_at=unix_ms(self.valid_at))


def wanted_of(as_of: dt.datetime | None, valid_at: dt.datetime | None, **named: Any) -> Wanted:
    return Wanted(**named, as_of=unix_ms(as_of), valid_at=unix_ms(valid_at))


class SourceOut(BaseModel):
    session_id: str | None
    seq: int | None
    document_id: str | None


class MemoryOut(BaseModel):
    id: str
    version: int
    subject: str
    agent: str | None
    session_id: str | None
    key: str | None
    text: str
    tags: list[str]
    metadata: dict[str, Any]
    valid_from: str
    valid_to: str | None = Field(description="From when on it is not true any more; null: it is.")
    superseded_by: str | None = Field(description="The memory that is true from `valid_to` on.")
    conflicts_with: list[str] = Field(description="Memories that it may contradict: all of them stay.")
    confirmations: int = Field(description="How often it was said again.")
    confirmed_at: str | None
    expires_at: str | None
    sources: list[SourceOut] = Field(description="At most 100, the newest; in a history those that the version added.")
    created_at: str
    recorded_at: str = Field(description="When this version was recorded.")

    @classmethod
    def fields_of(cls, memory: Memory) -> dict[str, Any]:
        row = memory.version
        sources = [SourceOut(session_id=s.session_id, seq=s.seq, document_id=s.document_id) for s in memory.sources]
        moments = {name: _shown(getattr(row, name)) for name in _MOMENTS}
        named = {"id": row.memory_id, "version": row.number, "agent": row.agent or None, "session_id": row.session_id or None}
        return {**row.model_dump(include=_SAME), **moments, **named, "metadata": row.data, "sources": sources}

    @classmethod
    def of(cls, memory: Memory) -> MemoryOut:
        return cls(**cls.fields_of(memory))


_MOMENTS = ("valid_from", "valid_to", "confirmed_at", "expires_at", "created_at", "recorded_at")
_SAME = {"subject", "key", "text", "tags", "superseded_by", "conflicts_with", "confirmations"}


def _shown(moment: int | None) -> str | None:
    return None if moment is None else isoformat(moment)


class PlacedOut(BaseModel):
    outcome: Literal["added", "confirmed"]
    memory: MemoryOut
    superseded: list[str] = Field(description="Memories that this one ended.")

    @classmethod
    def of(cls, placed: Placed) -> PlacedOut:
        return cls.model_validate(
            {"outcome": placed.outcome, "memory": MemoryOut.of(placed.memory), "superseded": [*placed.superseded]}
        )


class AddedOut(BaseModel):
    data: list[PlacedOut] = Field(description="In the order of the facts.")
    tokens: int = Field(description="Of the embedding model, charged.")
    llm_tokens: int
    degraded: list[str] = Field(description="`dense`: kept without vectors; `judge`: the language model was done without.")

    @classmethod
    def of(cls, added: Added) -> AddedOut:
        placed = [*map(PlacedOut.of, added.placed)]
        return cls(data=placed, tokens=added.charged, llm_tokens=added.llm_tokens, degraded=[*added.degraded])


class MemoryVersionOut(MemoryOut):
    action: Literal["added", "confirmed", "updated", "superseded", "deleted"]
    reason: str | None
    changed_by: str = Field(description="Id of the principal.")
    replaced_at: str | None = Field(description="When the next version was recorded; null: it is the latest.")

    @classmethod
    def of(cls, memory: Memory) -> MemoryVersionOut:
        row = memory.version
        told = {"action": row.action, "reason": row.reason, "changed_by": row.changed_by}
        return cls.model_validate({**cls.fields_of(memory), **told, "replaced_at": _shown(row.replaced_at)})


class MemoryHitOut(BaseModel):
    memory: MemoryOut
    score: float = Field(description="By meaning and words together; 1 is the best of both.")
    cosine: float | None
    words: float | None = Field(description="BM25 among the subject's memories; null: no word in common.")


class MemorySearchOut(BaseModel):
    data: list[MemoryHitOut] = Field(description="Best first.")
    tokens: int
    degraded: list[str] = Field(description="`dense`: by words alone.")

    @classmethod
    def of(cls, found: Found) -> MemorySearchOut:
        hits = [
            MemoryHitOut(memory=MemoryOut.of(hit.memory), score=hit.score, cosine=hit.cosine, words=hit.words)
            for hit in found.hits
        ]
        return cls(data=hits, tokens=found.charged, degraded=[*found.degraded])


class DeletedMemoryOut(BaseModel):
    id: str
    deleted: Literal[True] = True

    @classmethod
    def of(cls, row: MemoryVersion) -> DeletedMemoryOut:
        return cls(id=row.memory_id)
