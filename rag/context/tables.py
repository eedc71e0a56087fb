"""The tables of contexts: which turns are pinned, and what turns that left the window came to. Both go with their session."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned


class SessionPin(TenantOwned, table=True):
    """A turn that stands in every context of its session."""

    __tablename__ = "session_pins"

    session_id: str = Field(primary_key=True, foreign_key="sessions.id")
    seq: int = Field(primary_key=True)  #: of the turn
    created_at: int = Field(sa_type=sa.BigInteger)


class SessionRecap(TenantOwned, table=True):
    """What turns `first_seq` to `last_seq` came to. It never changes: later turns have recaps of their own."""

    __tablename__ = "session_recaps"

    session_id: str = Field(primary_key=True, foreign_key="sessions.id")
    first_seq: int = Field(primary_key=True)
    last_seq: int = Field(primary_key=True)
    text: str
    method: str  #: extractive, or the name of the language model that wrote it
    created_at: int = Field(sa_type=sa.BigInteger)
