"""The table of turns' vectors. They lie in SQL and not in the engine: recall reads a whole conversation into memory, and what
is erased with its session is gone with it.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned


class TurnVector(TenantOwned, table=True):
    """Of a turn of a session whose `embedded_turns` reaches it; one without content has none."""

    __tablename__ = "turn_vectors"
    __table_args__ = (sa.UniqueConstraint("session_id", "seq"),)

    turn_id: str = Field(primary_key=True, foreign_key="turns.id")
    session_id: str = Field(foreign_key="sessions.id")
    seq: int
    space: str
    vector: bytes  #: float16, little-endian: half of what the index keeps, and as good (cosine 0.9999998)
