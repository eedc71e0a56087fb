"""A recall once more: of the index as it was when somebody asked, and by the vector of then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import ROWS_BY_KEY
from rag.embedding.service import Embedded
from rag.recall.loading import MAX_TURNS, Indexed, Known, brought_up
from rag.recall.recall import Found, Recall, RecallQuestion, TenantRecall, Where
from rag.recall.resident import Held, Residents
from rag.recall.turns import SaidTurn
from rag.sessions.archives import restored
from rag.sessions.finding import BEHIND, alive
from rag.sessions.room import left_by
from rag.sessions.tables import PIECE, ChatSession, Turn
from rag.store.base import Vector
from rag.types import Meter, Speaker

#: How the question is searched for: by this vector, by words alone, or embedded anew.
By = Vector | Literal["words", "anew"]
#: What is searched: as much as then, what had been said by a time (Unix milliseconds), or all there is.
When = Sequence[Indexed] | int | None


class RecallAgain(TenantRecall):
    """`residents`: indexes of former moments, apart from those that questions of today share."""

    def __init__(self, parts: Recall, scope: Speaker, meter: Meter, residents: Residents, by: By, when: When) -> None:
        super().__init__(parts, scope, meter)
        self._residents, self._by, self._when = residents, by, when

    def _embed(self, question: RecallQuestion, charge_id: str) -> tuple[Embedded | None, tuple[str, ...]]:
        if isinstance(self._by, str) or question.by_words:
            return (None, ()) if self._by == "words" else super()._embed(question, charge_id)
        return Embedded(np.asarray([self._by]), 0, 0, 0), ()

    def _found(self, where: Where) -> Found:
        if self._when is None:
            return super()._found(where)
        with self._parts.database.read(self._scope) as session:
            if isinstance(self._when, int):
                wanted = self._said_by(session, where(session), self._when)
            else:
                wanted = self._living(session, self._when)
            held = [(self._brought_up(session, each), each) for each in wanted]
        return {id(of.thread): (of, Known(e.id, e.turns, e.archived_turns, e.embedded_turns)) for of, e in held}

    def _turns(self, session: Session, ids: Sequence[str]) -> Iterable[SaidTurn]:
        """What has left the window since was in it then. Raise ContentDamaged."""
        if self._when is None:
            return super()._turns(session, ids)
        of_living = select(Turn).join(ChatSession, col(ChatSession.id) == col(Turn.session_id)).where(col(Turn.id).in_(ids))
        turns = restored(session, session.scalars(of_living.where(*alive(self._parts.clock()))))
        return [SaidTurn(*(getattr(turn, name) for name in SaidTurn._fields)) for turn in turns]

    def _said_by(self, session: Session, found: Iterable[Known], moment: int) -> list[Indexed]:
        """Whether a turn had its vector by then is not known."""
        found = [*found]
        ids = [known.id for known in found]
        last, indexed = _last_turns(session, ids, moment), []
        chats = {chat.id: chat for chat in session.scalars(select(ChatSession).where(col(ChatSession.id).in_(ids)))}
        for known in found:
            if known.id not in chats:  # it is being erased
                continue
            turns = last.get(known.id, 0)
            archived = left_by(session, chats[known.id], turns)
            before = max(archived, turns - MAX_TURNS)
            indexed.append(Indexed(known.id, before, turns, max(before, min(known.embedded_turns, turns)), archived))
        return indexed

    def _living(self, session: Session, wanted: Sequence[Indexed]) -> list[Indexed]:
        own = () if self._scope.subject is None else (col(ChatSession.subject) == self._scope.subject,)
        ids = [each.id for each in wanted]
        found = select(col(ChatSession.id)).where(col(ChatSession.id).in_(ids), *alive(self._parts.clock()), *own)
        living = {*session.scalars(found)}
        return [each for each in wanted if each.id in living]

    def _brought_up(self, session: Session, wanted: Indexed) -> Held:
        """From what was held for an earlier moment, if that was not a later one: an index only grows."""
        key = (self._scope.tenant_id, wanted.id)
        held = self._residents.get(key)
        if held.before != wanted.before or held.seq > wanted.turns or held.embedded > wanted.embedded_turns:
            self._residents.renew(key, wanted.before)
        known = Known(wanted.id, wanted.turns, wanted.before, wanted.embedded_turns)
        return brought_up(self._residents, session, self._scope.tenant_id, known, self._parts.embedding.space.id, _said)


def _said(session: Session, given: Mapping[str, object]) -> Sequence[Turn]:
    return restored(session, session.scalars(_SAID, given))


_SAID = BEHIND.limit(2 * PIECE).execution_options(**ROWS_BY_KEY)


def _last_turns(session: Session, ids: Sequence[str], moment: int) -> dict[str, int]:
    of = col(Turn.session_id)
    last = sa.select(of, sa.func.max(col(Turn.seq))).where(of.in_(ids), col(Turn.created_at) <= moment).group_by(of)
    return {row[0]: row[1] for row in session.execute(last)}
