"""Sessions and turns on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from api.schemas.documents import Input, Text
from api.schemas.times import Moment, unix_ms
from config.clock import isoformat
from config.errors import storable
from config.money import micro_usd
from config.plans import MAX_MICRO_USD, MAX_TOKENS
from ingestion.conversations.attached import MAX_FILES
from rag.sessions.tables import ChatSession, Turn
from rag.sessions.values import MAX_BATCH, MAX_TURNS, Appended, NewSession, NewTurn
from tenants.identity.tokens import MAX_SUBJECT_CHARS

MAX_TTL_S = 10 * 366 * 24 * 3600
MAX_CONTENT_CHARS = 100_000
MAX_TAGS, MAX_TAG_CHARS, MAX_TITLE_CHARS, MAX_NAME_CHARS = 32, 64, 300, 200
MAX_METADATA_BYTES, MAX_CALLS_BYTES, MAX_KEY_CHARS = 16_384, 65_536, 255
MAX_DEPTH = 32  # of metadata and tool calls

Role = Literal["user", "assistant", "system", "tool"]
WhenFull = Literal["refuse", "archive"]
State = Literal["open", "closed", "archived"]
Order = Literal["oldest", "newest"]


def _kept(value: Any, most: int) -> Any:
    """What comes back as it was: readers of JSON go less deep than what writes it, and some numbers are none in it."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)]
    if level:
        raise ValueError(f"it is nested at most {MAX_DEPTH} deep")
    written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not storable(written) or len(written.encode()) > most:
        raise ValueError(f"it is at most {most} bytes of JSON, without lone surrogates")
    return value


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _distinct(tags: list[str]) -> list[str]:
    return sorted(set(tags))


Metadata = Annotated[dict[Text, Any], AfterValidator(lambda value: _kept(value, MAX_METADATA_BYTES))]
ToolCalls = Annotated[list[dict[Text, Any]], Field(max_length=64), AfterValidator(lambda value: _kept(value, MAX_CALLS_BYTES))]
Tag = Annotated[Text, Field(min_length=1, max_length=MAX_TAG_CHARS)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_distinct)]
Subject = Annotated[Text, Field(min_length=1, max_length=MAX_SUBJECT_CHARS)]
Title = Annotated[Text, Field(max_length=MAX_TITLE_CHARS)]
Ttl = Annotated[int, Field(ge=1, le=MAX_TTL_S)]
Turns = Annotated[int, Field(ge=1, le=MAX_TURNS)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]

SUBJECT = "Your name for the end user whose session it is; left out, the token's own."
IDLE = "Expires so long after its last turn; left out or null, never."
ABSOLUTE = "Expires so long after it was made, whatever happens in it."
MAX_TURNS_IS = "Of its window: the turns that are recalled and packed."
WHEN_FULL = "What a turn beyond the window does: it is refused, or the oldest leave the window (they are still listed)."
BUDGET = "Most that may be spent for it: embedding its turns, and what is asked with it."


class SessionIn(Input):
    subject: Subject | None = Field(None, description=SUBJECT, examples=["user-17"])
    title: Title | None = None
    tags: Tags = Field(default_factory=list, examples=[["support"]])
    metadata: Metadata = Field(default_factory=dict, description="Your own; it is kept and shown.")
    idle_ttl_seconds: Ttl | None = Field(None, description=IDLE)
    absolute_ttl_seconds: Ttl | None = Field(None, description=ABSOLUTE)
    max_turns: Turns | None = Field(None, description=MAX_TURNS_IS)
    max_tokens: Tokens | None = Field(None, description="Of the window's contents.")
    when_full: WhenFull = Field("refuse", description=WHEN_FULL)
    budget_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = Field(None, description=BUDGET)
    budget_micro_usd: Annotated[int, Field(ge=0, le=MAX_MICRO_USD)] | None = Field(None, description="The same in money.")

    def session(self) -> NewSession:
        return NewSession(**_named(self.model_dump()))


class SessionPatch(Input):
    """What is given changes; null takes a bound away. Callers with a subject change title, tags and metadata only."""

    title: Title | None = None
    tags: Tags = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    idle_ttl_seconds: Ttl | None = Field(None, description=IDLE)
    absolute_ttl_seconds: Ttl | None = Field(None, description=ABSOLUTE)
    max_turns: Turns | None = Field(None, description=MAX_TURNS_IS)
    max_tokens: Tokens | None = None
    when_full: WhenFull = Field("refuse", description=WHEN_FULL)
    budget_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = Field(None, description=BUDGET)
    budget_micro_usd: Annotated[int, Field(ge=0, le=MAX_MICRO_USD)] | None = None

    def changes(self) -> dict[str, Any]:
        return _named(self.model_dump(exclude_unset=True))


def _named(given: dict[str, Any]) -> dict[str, Any]:
    """By the names that sessions have inside."""
    return {name.replace("_ttl_seconds", "_ttl_s"): value for name, value in given.items()}


class TurnIn(Input):
    role: Role
    content: Text = Field(max_length=MAX_CONTENT_CHARS, description="May be empty, where a turn is its tool calls.")
    speaker: Annotated[Text, Field(min_length=1, max_length=MAX_NAME_CHARS)] | None = Field(
        None, description="Who says it, where several have the same role."
    )
    tool_calls: ToolCalls | None = Field(None, description="Kept and shown as they are.")
    metadata: Metadata = Field(default_factory=dict)
    files: list[Text] = Field(
        default_factory=list, max_length=MAX_FILES, description="Ids of documents that are attached to the session."
    )
    said_at: Moment | None = Field(None, description="When it was said, if that was not now.")
    idempotency_key: Annotated[Text, Field(min_length=1, max_length=MAX_KEY_CHARS)] | None = Field(
        None, description="Of this turn within its session: sent again, it is there once."
    )

    def turn(self) -> NewTurn:
        given = {name: getattr(self, name) for name in TurnIn.model_fields}
        return NewTurn(**given | {"said_at": unix_ms(self.said_at)})


class TurnsIn(Input):
    """All of them are appended, or none."""

    turns: list[TurnIn] = Field(
        min_length=1, max_length=MAX_BATCH, examples=[[{"role": "user", "content": "How long may I keep a book?"}]]
    )

    def files(self) -> list[str]:
        """Each once."""
        return [*dict.fromkeys(file for turn in self.turns for file in turn.files)]


class ForkIn(Input):
    turn_id: Text | None = Field(None, description="The last turn that the new session takes over; left out, the last one.")


class SessionOut(BaseModel):
    id: str
    subject: str
    title: str | None
    tags: list[str]
    metadata: dict[str, Any]
    state: State
    created_at: str
    last_active_at: str
    expires_at: str | None = Field(description="When it expires as things stand; null: it does not.")
    idle_ttl_seconds: int | None
    absolute_ttl_seconds: int | None
    turns: int = Field(description="How many there are, and so the `seq` of the last.")
    tokens: int = Field(description="Of all turns' contents.")
    archived_turns: int = Field(description="The first so many have left the window: they are neither recalled nor packed.")
    max_turns: int | None
    max_tokens: int | None
    when_full: WhenFull
    budget_tokens: int | None
    budget_micro_usd: int | None
    spent_tokens: int
    spent_micro_usd: int
    forked_from: str | None
    forked_at_seq: int | None

    @classmethod
    def of(cls, row: ChatSession) -> SessionOut:
        shown = row.model_dump(include=_SHOWN)
        return cls(
            **shown,
            metadata=row.data,
            created_at=isoformat(row.created_at),
            last_active_at=isoformat(row.last_active_at),
            expires_at=None if row.expires_at is None else isoformat(row.expires_at),
            idle_ttl_seconds=row.idle_ttl_s,
            absolute_ttl_seconds=row.absolute_ttl_s,
            spent_micro_usd=micro_usd(row.spent_cost),
        )


_SHOWN = set(SessionOut.model_fields) & set(ChatSession.model_fields) - {"created_at", "last_active_at", "expires_at"}


class TurnOut(BaseModel):
    id: str
    session_id: str
    seq: int = Field(description="From 1, without gaps.")
    role: Role
    speaker: str | None
    content: str
    tool_calls: list[dict[str, Any]] | None
    metadata: dict[str, Any]
    files: list[str] = Field(description="Documents that were attached to it.")
    tokens: int
    said_at: str
    created_at: str
    idempotency_key: str | None

    @classmethod
    def of(cls, row: Turn) -> TurnOut:
        shown = row.model_dump(exclude={"data", "said_at", "created_at", "content_hash", "tenant_id"})
        return cls(**shown, metadata=row.data, said_at=isoformat(row.said_at), created_at=isoformat(row.created_at))


class AppendedOut(BaseModel):
    """Where a turn is; its content is not repeated."""

    id: str
    seq: int
    tokens: int
    said_at: str
    created_at: str
    idempotency_key: str | None


class AppendOut(BaseModel):
    data: list[AppendedOut] = Field(description="In the order of the call.")
    new: int = Field(description="How many of them were not there before.")
    session: SessionOut

    @classmethod
    def of(cls, appended: Appended) -> AppendOut:
        rows = [
            AppendedOut(
                id=row.id,
                seq=row.seq,
                tokens=row.tokens,
                said_at=isoformat(row.said_at),
                created_at=isoformat(row.created_at),
                idempotency_key=row.idempotency_key,
            )
            for row in appended.turns
        ]
        return cls(data=rows, new=appended.new, session=SessionOut.of(appended.session))
