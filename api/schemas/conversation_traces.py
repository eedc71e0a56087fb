"""What is other in a conversation than when it was asked, as it is on the wire."""

from __future__ import annotations

from pydantic import BaseModel, Field

from config.clock import isoformat
from rag.traces.conversation_difference import (
    ConversationDifference,
    Item,
    ItemChange,
    Part,
    Stood,
    Told,
    Why,
)


class StoodOut(BaseModel):
    rank: int | None = Field(description="Of recalled turns and memories, as they were found.")
    score: float | None
    version: int | None = Field(description="Of a memory.")
    shown: bool = Field(description="False: it was found, and the context had no room for it.")

    @classmethod
    def of(cls, stood: Stood | None) -> StoodOut | None:
        return None if stood is None else cls(**{name: getattr(stood, name) for name in cls.model_fields})


class ConversationItemOut(BaseModel):
    part: Part
    id: str = Field(description="Of a turn or a memory; of a recap its turns; of a pin and a turn of the window its `seq`.")
    change: ItemChange = Field(description="`changed`: a memory of which another version holds, or a recap that says other.")
    then: StoodOut | None
    now: StoodOut | None
    session_id: str | None
    seq: int | None
    snippet: str | None = Field(description="The beginning of its text; null for what is not there any more.")
    why: Why | None = Field(
        description="Of what is gone: `erased` with its turn, `archived` out of the window, `superseded` or `forgotten` as a "
        "memory; null: it is there, and was not found or had no room."
    )

    @classmethod
    def of(cls, item: Item, told: Told) -> ConversationItemOut:
        return cls(
            **{name: getattr(item, name) for name in ("part", "id", "change")},
            **{name: getattr(told, name) for name in ("session_id", "seq", "snippet", "why")},
            then=StoodOut.of(item.then),
            now=StoodOut.of(item.now),
        )


class SpentOut(BaseModel):
    then: int
    now: int


class ConversationDifferenceOut(BaseModel):
    as_of: str = Field(description="What is compared with then: `then` itself once more, `now`, or a time.")
    turns_then: int | None = Field(description="The last turn; null of a recall.")
    turns_now: int | None
    items: list[ConversationItemOut] = Field(
        description="Pins, recaps, memories and recalled turns; of the window's turns those that are not in both."
    )
    tokens: dict[str, SpentOut] = Field(description="Of each part of the context, as the budget was shared.")

    @classmethod
    def made_of(cls, found: ConversationDifference | None) -> ConversationDifferenceOut | None:
        if found is None:
            return None
        return cls(
            as_of=isoformat(found.as_of) if isinstance(found.as_of, int) else found.as_of,
            turns_then=found.turns_then,
            turns_now=found.turns_now,
            items=[ConversationItemOut.of(item, told) for item, told in found.items],
            tokens={part: SpentOut(then=then, now=now) for part, (then, now) in found.spent.items()},
        )
