"""The tables of conversations: sessions, the tags that they are found by, their turns, and what was said in old ones. SQL is
the truth; what recalls turns derives from it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned

OPEN, CLOSED, ARCHIVED = "open", "closed", "archived"
#: What nobody reaches any more, and is removed in pieces: its time was up, or somebody erased it.
EXPIRED, ERASED = "expired", "erased"
GONE = (EXPIRED, ERASED)
#: As the indexes say it: SQLite takes them for no other wording.
IS_GONE, IS_LIVING = sa.text("state IN ('expired', 'erased')"), sa.text("state NOT IN ('expired', 'erased')")
#: Some of its turns have no vector yet.
IS_BEHIND = sa.text("turns > embedded_turns")
#: Turns whose contents lie in one row once they are compacted: 100 of ordinary chat are 13 KB packed, and read in 0.3 ms.
PIECE = 100
#: So many have left its window, and lie whole in their own rows.
IS_COMPACTABLE = sa.text(f"archived_turns - compacted_turns >= {PIECE}")
#: Vectors of its turns are kept, for replays.
HAS_VECTORS = sa.text("packed_at IS NOT NULL")


class ChatSession(TenantOwned, table=True):
    """One conversation of one subject."""

    __tablename__ = "sessions"
    __table_args__ = (
        sa.Index("ix_sessions_tenant_id_id", "tenant_id", "id"),
        sa.Index("ix_sessions_tenant_id_subject_id", "tenant_id", "subject", "id"),
        sa.Index("ix_sessions_due", "expires_at", sqlite_where=IS_LIVING, postgresql_where=IS_LIVING),
        sa.Index("ix_sessions_gone", "expires_at", "id", sqlite_where=IS_GONE, postgresql_where=IS_GONE),
        sa.Index("ix_sessions_behind", "tenant_id", "id", sqlite_where=IS_BEHIND, postgresql_where=IS_BEHIND),
        sa.Index("ix_sessions_compactable", "id", sqlite_where=IS_COMPACTABLE, postgresql_where=IS_COMPACTABLE),
    )

    id: str = Field(primary_key=True)
    subject: str  #: the end user, as the application names its users
    title: str | None = None
    tags: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)  #: the application's own; `metadata` on the wire
    state: str = OPEN
    created_at: int = Field(sa_type=sa.BigInteger)
    last_active_at: int = Field(sa_type=sa.BigInteger)  #: when it was made, resumed or last given a turn
    idle_ttl_s: int | None = None  #: after the last activity; does not run while it is archived
    absolute_ttl_s: int | None = None  #: after it was made
    #: When it expires as things stand: what the two say. From then on it is as if it were not there. Of one that is gone: when
    #: it was ended.
    expires_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    turns: int = 0  #: how many, and so the `seq` of the last
    #: The first so many have their vectors (`rag.recall`).
    embedded_turns: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    tokens: int = Field(default=0, sa_type=sa.BigInteger)  #: of all turns
    #: The first so many turns have left the window: they are listed and replayed, and neither recalled nor packed.
    archived_turns: int = 0
    archived_tokens: int = Field(default=0, sa_type=sa.BigInteger)
    #: What was said in the first so many lies in `turn_archives`; they are archived, and are not embedded any more.
    compacted_turns: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    max_turns: int | None = None  #: in the window
    max_tokens: int | None = None
    when_full: str = "refuse"  #: or `archive`: the oldest turns leave the window
    budget_tokens: int | None = Field(default=None, sa_type=sa.BigInteger)  #: that may be spent for it; None: no limit
    budget_micro_usd: int | None = Field(default=None, sa_type=sa.BigInteger)
    spent_tokens: int = Field(default=0, sa_type=sa.BigInteger)
    spent_cost: int = Field(default=0, sa_type=sa.BigInteger)  #: in picodollars
    forked_from: str | None = None  #: the session, which may be gone since
    forked_at_seq: int | None = None  #: the last turn that it has in common with it

    def ends_at(self) -> int | None:
        """What `expires_at` is to be, as its other fields are."""
        idle = self.idle_ttl_s if self.state != ARCHIVED else None
        ends = ((self.created_at, self.absolute_ttl_s), (self.last_active_at, idle))
        return min((since + ttl_s * 1000 for since, ttl_s in ends if ttl_s is not None), default=None)


class SessionTag(TenantOwned, table=True):
    """Finds sessions by a tag. What a session shows are its own `tags`."""

    __tablename__ = "session_tags"
    __table_args__ = (sa.Index("ix_session_tags_tenant_id_tag_session_id", "tenant_id", "tag", "session_id"),)

    session_id: str = Field(primary_key=True, foreign_key="sessions.id")
    tag: str = Field(primary_key=True)


class Turn(TenantOwned, table=True):
    """Something that was said, which never changes. Of a compacted turn its own row has neither content, calls, metadata nor
    files (`data` is null there, as in no other): who reads those of a turn that can be outside the window asks
    `rag.sessions.archives`.
    """

    __tablename__ = "turns"
    __table_args__ = (
        sa.UniqueConstraint("session_id", "seq"),
        sa.UniqueConstraint("session_id", "idempotency_key"),
    )

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id")
    seq: int  #: from 1, without gaps
    role: str  #: user, assistant, system or tool
    speaker: str | None = None  #: a name, where several have the same role
    content: str
    tool_calls: list[dict[str, Any]] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))
    data: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)  #: `metadata` on the wire
    files: list[str] = Field(default_factory=list, sa_type=sa.JSON)  #: documents that were attached to it
    tokens: int  #: of the content, as `rag.tokens` counts them
    said_at: int = Field(sa_type=sa.BigInteger)  #: as the application says, or when it was appended
    created_at: int = Field(sa_type=sa.BigInteger)
    content_hash: str  #: of all that was given of it: tells a repetition from another turn under the same key
    idempotency_key: str | None = None


class TurnArchive(TenantOwned, table=True):
    """What was said in turns `first_seq` to `last_seq`, at most PIECE of them, which never changes."""

    __tablename__ = "turn_archives"
    __table_args__ = (
        sa.Index("ix_turn_archives_vectors", "tenant_id", "packed_at", sqlite_where=HAS_VECTORS, postgresql_where=HAS_VECTORS),
    )

    session_id: str = Field(primary_key=True, foreign_key="sessions.id")
    last_seq: int = Field(primary_key=True)  #: the key, so that a turn's is the first that is not before it
    first_seq: int
    checksum: bytes
    packed: bytes
    packed_at: int | None = Field(default=None, sa_type=sa.BigInteger)  #: while its turns have vectors; None: they have none
