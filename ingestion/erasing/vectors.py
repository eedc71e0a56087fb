"""What was said and remembered leaves the cache of vectors too: before its rows go, for only they know the texts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlmodel import col, select

from config.database import ROWS_BY_KEY, Database
from config.errors import ContentDamaged
from rag.embedding.service import EmbeddingService
from rag.memories.removal import forget_cached, texts_of
from rag.recall.turns import indexed_text
from rag.sessions.archives import unpack
from rag.sessions.sweeping import REST
from rag.sessions.tables import Turn, TurnArchive
from rag.types import Scope

log = logging.getLogger(__name__)

PAGE = 500  # texts at a time


class CachedTexts:
    """Of one tenant. Raises Unavailable if some may be left."""

    def __init__(
        self, database: Database, embedding: EmbeddingService, scope: Scope, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._database, self._embedding, self._scope, self._pause = database, embedding, scope, pause

    def forget(self, session_ids: Sequence[str], subject: str | None = None) -> None:
        """Turns of these sessions, memories that go with them, and those of the subject."""
        self._forget_turns(session_ids)
        self._forget_compacted(session_ids)
        with self._database.read(self._scope) as session:
            remembered = texts_of(session, session_ids=session_ids, subject=subject)
        for at in range(0, len(remembered), PAGE):
            self._forget(remembered[at : at + PAGE])

    def _forget_turns(self, session_ids: Sequence[str]) -> None:
        said = sa.select(col(Turn.id), col(Turn.speaker), col(Turn.content)).where(col(Turn.session_id).in_(session_ids))
        said, after = said.order_by(col(Turn.id)).limit(PAGE).execution_options(**ROWS_BY_KEY), ""
        while True:
            with self._database.read(self._scope) as session:
                turns = session.execute(said.where(col(Turn.id) > after)).all()
            self._forget([text for turn in turns if (text := indexed_text(turn.speaker, turn.content))])
            if len(turns) < PAGE:
                return
            after = turns[-1].id

    def _forget_compacted(self, session_ids: Sequence[str]) -> None:
        """What cannot be read cannot be named: then all of the tenant's go, which have to be paid for again."""
        place, after = (col(TurnArchive.session_id), col(TurnArchive.last_seq)), ("", 0)
        page = select(TurnArchive).where(place[0].in_(session_ids)).order_by(*place).limit(1)
        while True:
            with self._database.read(self._scope) as session:
                archive = session.scalars(page.where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after)))).first()
                if archive is None:
                    return
                speakers = {row.seq: row.speaker for row in session.execute(_SPEAKERS, archive.model_dump(include=_PLACE))}
            after = archive.session_id, archive.last_seq
            try:
                said = unpack(archive)
            except ContentDamaged as error:
                log.error("turns to be forgotten cannot be read", extra={"session": after[0], "reason": error.detail})
                self._embedding.forget_all(self._scope)
            else:
                texts = (indexed_text(speakers.get(seq), one.content) for seq, one in said.items())
                self._forget([text for text in texts if text])

    def _forget(self, texts: Sequence[str]) -> None:
        began = time.monotonic()
        forget_cached(self._embedding, self._scope, texts)
        if texts:
            self._pause(REST * (time.monotonic() - began))  # others come in between


_PLACE = {"session_id", "first_seq", "last_seq"}
_SPEAKERS = sa.select(col(Turn.seq), col(Turn.speaker)).where(
    col(Turn.session_id) == sa.bindparam("session_id"),
    col(Turn.seq).between(sa.bindparam("first_seq"), sa.bindparam("last_seq")),
)
