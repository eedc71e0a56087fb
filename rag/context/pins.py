"""Turns that stand in every context of their session."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput, NotFound
from rag.context.tables import SessionPin
from rag.sessions.archives import readable, restored
from rag.sessions.finding import find
from rag.sessions.tables import ChatSession, Turn
from rag.types import Speaker

MAX_PINS = 20


@dataclass(frozen=True, slots=True)
class Pinned:
    turn: Turn
    pinned_at: int


@dataclass(frozen=True, slots=True)
class Pins:
    database: Database
    clock: Clock

    def for_tenant(self, scope: Speaker) -> TenantPins:
        return TenantPins(self, scope)


class TenantPins:
    """Raises NotFound alike for sessions that are missing, foreign, another subject's or over."""

    def __init__(self, parts: Pins, scope: Speaker) -> None:
        self._parts, self._scope = parts, scope

    def pin(self, session_id: str, seq: int) -> Pinned:
        """Pinned again, it stays as it is. Raise NotFound for a turn that is not there."""
        with self._parts.database.write(self._scope) as session:
            find(session, self._scope, session_id, self._parts.clock(), lock=True)
            [turn] = restored(session, [self._turn(session, session_id, seq)])
            there = {pin.seq: pin for pin in session.scalars(_PINS.where(col(SessionPin.session_id) == session_id))}
            if seq not in there and len(there) >= MAX_PINS:
                raise InvalidInput(f"A session has at most {MAX_PINS} pins.", field="seq", limit=MAX_PINS)
            row = there.get(seq) or SessionPin(
                tenant_id=self._scope.tenant_id, session_id=session_id, seq=seq, created_at=self._parts.clock()
            )
            session.add(row)
        return Pinned(turn, row.created_at)

    def unpin(self, session_id: str, seq: int) -> Pinned:
        """Of a turn that is damaged too, which then has no content."""
        with self._parts.database.write(self._scope) as session:
            find(session, self._scope, session_id, self._parts.clock(), lock=True)
            row = session.get(SessionPin, (session_id, seq))
            if row is None:
                raise NotFound("The turn is not pinned.", field="seq")
            turn = self._turn(session, session_id, seq)
            readable(session, [turn])
            session.delete(row)
        return Pinned(turn, row.created_at)

    def list(self, session_id: str) -> list[Pinned]:
        """In the order of the turns."""
        with self._parts.database.read(self._scope) as session:
            find(session, self._scope, session_id, self._parts.clock())
            found = pinned(session, session_id)
            restored(session, [each.turn for each in found])
            return found

    @staticmethod
    def _turn(session: Session, session_id: str, seq: int) -> Turn:
        found = session.scalars(select(Turn).where(col(Turn.session_id) == session_id, col(Turn.seq) == seq)).one_or_none()
        if found is None:
            raise NotFound("There is no such turn.", field="seq")
        return found


def pinned(session: Session, session_id: str) -> list[Pinned]:
    """Of a session that was found, in the order of the turns, as their own rows have them."""
    statement = (
        select(Turn, col(SessionPin.created_at))
        .join(SessionPin, (col(SessionPin.session_id) == col(Turn.session_id)) & (col(SessionPin.seq) == col(Turn.seq)))
        .where(col(SessionPin.session_id) == session_id)
        .order_by(col(Turn.seq))
    )
    return [Pinned(*row) for row in session.execute(statement)]


def follow(session: Session, source_id: str, fork: ChatSession) -> None:
    """The turns that a fork copies are pinned in it as they were, and since."""
    there = _PINS.where(col(SessionPin.session_id) == source_id, col(SessionPin.seq) <= fork.turns)
    session.add_all(SessionPin(**pin.model_dump() | {"session_id": fork.id}) for pin in session.scalars(there).all())


_PINS = select(SessionPin)
