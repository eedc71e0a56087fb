"""Sessions that expire all at once, for what their end costs others. They are preparation, so they are written as rows, counted
and told of as the service does, and with vectors: a call for each turn, and its embedding, would take most of an hour.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from api.wiring.conversations import build_sessions
from api.wiring.core import Core
from benchmarks.harness import shown
from config.ids import new_id
from rag.recall.tables import TurnVector
from rag.recall.turns import packed
from rag.sessions.tables import EXPIRED, ChatSession, Turn
from rag.sessions.values import NewTurn
from tenants.context import TenantContext

TURNS, TOKENS = 10, 10  #: of each session, and of each turn
AT_ONCE = 20  #: in one transaction
LIFE_S = 10**6  #: tells them from others
DIMENSIONS = 384


@dataclass(frozen=True)
class Expiring:
    core: Core
    tenant: TenantContext

    @classmethod
    def made(cls, core: Core, tenant_id: str, count: int) -> Expiring:
        made = cls(core, core.registry.context_of_job(tenant_id, "benchmark"))
        vector = packed(np.full(DIMENSIONS, DIMENSIONS**-0.5, np.float32))
        for first in shown(range(0, count, AT_ONCE), "expiring", -(-count // AT_ONCE)):
            began = time.monotonic()
            made._add(range(first, min(first + AT_ONCE, count)), vector)
            # SQLite is not fair: without a rest the service's own writes wait for half a minute.
            time.sleep(time.monotonic() - began)
        return made

    def _add(self, numbers: range, vector: bytes) -> None:
        parts, now = build_sessions(self.core), self.core.clock()
        said = [NewTurn("user", f"{number} What was it that you said about the library?") for number in range(TURNS)]
        with self.core.database.write(self.tenant) as session:
            for number in numbers:
                row = self._row(f"user {number % 100}", now)
                parts.add(session, row)
                turns = [self._turn(row.id, seq, turn, now) for seq, turn in enumerate(said, 1)]
                session.execute(sa.insert(Turn), [turn.model_dump() for turn in turns])
                session.execute(sa.insert(TurnVector), [self._vector(turn, vector) for turn in turns])

    def _row(self, subject: str, now: int) -> ChatSession:
        row = ChatSession(
            id=new_id("ses"),
            tenant_id=self.tenant.tenant_id,
            subject=subject,
            created_at=now,
            last_active_at=now,
            absolute_ttl_s=LIFE_S,
            turns=TURNS,
            embedded_turns=TURNS,
            tokens=TOKENS * TURNS,
        )
        row.expires_at = row.ends_at()
        return row

    def _turn(self, session_id: str, seq: int, turn: NewTurn, now: int) -> Turn:
        return Turn(
            id=new_id("trn"),
            tenant_id=self.tenant.tenant_id,
            session_id=session_id,
            seq=seq,
            role=turn.role,
            content=turn.content,
            tokens=TOKENS,
            said_at=now,
            created_at=now,
            content_hash=turn.digest(),
        )

    @staticmethod
    def _vector(turn: Turn, vector: bytes) -> dict[str, object]:
        of = {name: getattr(turn, name) for name in ("tenant_id", "session_id", "seq")}
        return {**of, "turn_id": turn.id, "space": "sp_of_a_benchmark", "vector": vector}

    def let_expire(self) -> None:
        with self.core.database.engine.begin() as connection:
            connection.execute(sa.update(_SESSIONS).where(_MINE).values(expires_at=1))

    def are_embedded(self) -> bool:
        """Whether no turn of any session waits for its vector."""
        return self._count(_SESSIONS.c.turns > _SESSIONS.c.embedded_turns) == 0

    def living(self) -> int:
        """How many nobody has ended yet."""
        return self._count(_MINE, _SESSIONS.c.state != EXPIRED)

    def left(self) -> int:
        return self._count(_MINE)

    def _count(self, *conditions: sa.ColumnElement[bool]) -> int:
        with self.core.database.engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(_SESSIONS).where(*conditions)).scalar_one()


_SESSIONS: sa.Table = ChatSession.__table__  # type: ignore[attr-defined]
_MINE = _SESSIONS.c.absolute_ttl_s == LIFE_S
