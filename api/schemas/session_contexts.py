"""What a context of a session takes and shows beside that of documents, as it is on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.schemas.documents import Input, Text
from config.clock import isoformat
from config.errors import InvalidInput
from rag.context.pins import MAX_PINS, Pinned
from rag.packing.composing import Element, Knowledge
from rag.packing.conversation import Conversation
from rag.packing.elements import Fact, Pin, Recap, Said
from rag.packing.shares import DEFAULT_SHARES, PARTS, Part, Strategy

MAX_NEWEST, MAX_RECALLED, MAX_PIN_CHARS, MAX_MESSAGE_CHARS = 100, 50, 20_000, 200_000
Share = Annotated[float, Field(ge=0, le=1)]


class SharesIn(Input):
    """Weights of the parts of a context, in the order in which they are filled; 0 leaves a part out."""

    recent: Share = Field(DEFAULT_SHARES["recent"], description="The newest turns, word for word.")
    summary: Share = Field(DEFAULT_SHARES["summary"], description="What the turns before them came to.")
    memories: Share = Field(DEFAULT_SHARES["memories"], description="What is remembered of the subject, with `memories`.")
    documents: Share = DEFAULT_SHARES["documents"]
    recalled: Share = Field(DEFAULT_SHARES["recalled"], description="Former turns that the question is about.")

    def given(self) -> dict[Part, float]:
        return {part: getattr(self, part) for part in PARTS}


class ConversingIn(BaseModel):
    """Fields of a context that only a session gives a meaning."""

    session: Text | None = Field(None, description="Packs this session's turns, and what is attached to it, too.")
    strategy: Strategy = Field(
        "hybrid",
        description="With a session: `recent` turns and what fell out, `recall` of former turns, `documents`, or all of them.",
    )
    memories: bool = Field(False, description="Also what is remembered of the session's subject.")
    shares: SharesIn = Field(default_factory=SharesIn, description="Of the budget, by part of the context.")
    newest_turns: int = Field(2, ge=0, le=MAX_NEWEST, description="So many stand in it, or it is refused.")
    recall_top_k: int = Field(20, ge=1, le=MAX_RECALLED, description="Former turns that are tried, best first.")
    pins: list[Annotated[Text, Field(min_length=1, max_length=MAX_PIN_CHARS)]] = Field(
        default_factory=list, max_length=MAX_PINS, description="Texts that stand first, whatever else has room."
    )
    message: Text | None = Field(
        None,
        min_length=1,
        max_length=MAX_MESSAGE_CHARS,
        description="What the user says now: it stands last, within the budget.",
    )
    knowledge: Knowledge = Field(
        "last",
        description="Where memories, passages and recalled turns stand: `last`, before what is said last, so that what "
        "stands before it stays the same bytes; or in the `system` message.",
    )

    def require_session(self) -> None:
        """Raise InvalidInput for fields that mean nothing without one."""
        alone = (self.model_fields_set & set(ConversingIn.model_fields)) - {"session"}
        if self.session is None and alone:
            raise InvalidInput("This is for contexts of a session: name it as `session`.", field=min(alone))


class MessageOut(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class PlacedOut(BaseModel):
    """Characters `context_start` to `context_end` of the text, delimiters included."""

    context_start: int
    context_end: int


class TurnPlacedOut(PlacedOut):
    place: Literal["pinned", "recent", "recalled"]
    session_id: str
    seq: int
    role: str
    speaker: str | None
    said_at: str


class RecapPlacedOut(PlacedOut):
    from_seq: int
    to_seq: int
    method: str = Field(description="`extractive`, or the name of the language model that wrote it.")


class MemoryPlacedOut(PlacedOut):
    id: str


class ConversingOut(BaseModel):
    """Of a context with a session; null without one."""

    messages: list[MessageOut] | None = Field(None, description="The same for a chat: what lasts as `system`, then the turns.")
    message_tokens: int | None = Field(
        None, description="Of the messages: of each content, 4 more for each, and 3 for the answer's beginning."
    )
    question: str | None = Field(None, description="What was asked of documents, memories and former turns.")
    turns: list[TurnPlacedOut] | None = None
    recaps: list[RecapPlacedOut] | None = Field(None, description="What turns that fell out of the window came to.")
    memories: list[MemoryPlacedOut] | None = None

    @staticmethod
    def fields_of(conversation: Conversation) -> dict[str, object]:
        elements = conversation.composed.elements
        return {
            "messages": [MessageOut.model_validate(message, from_attributes=True) for message in conversation.messages],
            "message_tokens": conversation.message_tokens,
            "turns": [out for element in elements if (out := _turn(element)) is not None],
            "recaps": [_recap(element, element.shown) for element in elements if isinstance(element.shown, Recap)],
            "memories": [_memory(element, element.shown) for element in elements if isinstance(element.shown, Fact)],
        }


def _turn(element: Element) -> TurnPlacedOut | None:
    said = element.shown.turn if isinstance(element.shown, Pin) else element.shown
    if not isinstance(said, Said):
        return None
    return TurnPlacedOut(
        context_start=element.start,
        context_end=element.end,
        place=element.place,
        session_id=said.session,
        seq=said.seq,
        role=said.role,
        speaker=said.speaker,
        said_at=isoformat(said.said_at),
    )


def _recap(element: Element, recap: Recap) -> RecapPlacedOut:
    places = {"context_start": element.start, "context_end": element.end}
    return RecapPlacedOut(**places, from_seq=recap.first, to_seq=recap.last, method=recap.method)


def _memory(element: Element, fact: Fact) -> MemoryPlacedOut:
    return MemoryPlacedOut(context_start=element.start, context_end=element.end, id=fact.id)


class PinIn(Input):
    seq: int = Field(ge=1, le=2**31 - 1, description="Of the turn.")


class PinOut(BaseModel):
    session_id: str
    seq: int
    role: str
    content: str
    pinned_at: str

    @classmethod
    def of(cls, pinned: Pinned) -> PinOut:
        turn = pinned.turn
        return cls(
            session_id=turn.session_id,
            seq=turn.seq,
            role=turn.role,
            content=turn.content,
            pinned_at=isoformat(pinned.pinned_at),
        )


class PinsOut(BaseModel):
    items: list[PinOut] = Field(description="In the order of their turns.")
