"""What was said and remembered leaves the cache of vectors too: before its rows go, for only they know the texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlmodel import col

from config.database import Database
from ingestion.erasing.reach import REST
from rag.embedding.service import EmbeddingService
from rag.memories.removal import forget_cached, texts_of
from rag.recall.turns import indexed_text
from rag.sessions.tables import Turn
from rag.types import Scope

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
        with self._database.read(self._scope) as session:
            remembered = texts_of(session, session_ids=session_ids, subject=subject)
        for at in range(0, len(remembered), PAGE):
            self._forget(remembered[at : at + PAGE])

    def _forget_turns(self, session_ids: Sequence[str]) -> None:
        said, after = sa.select(col(Turn.id), col(Turn.speaker), col(Turn.content)).order_by(col(Turn.id)).limit(PAGE), ""
        while True:
            with self._database.read(self._scope) as session:
                turns = session.execute(said.where(col(Turn.session_id).in_(session_ids), col(Turn.id) > after)).all()
            self._forget([text for turn in turns if (text := indexed_text(turn.speaker, turn.content))])
            if len(turns) < PAGE:
                return
            after = turns[-1].id

    def _forget(self, texts: Sequence[str]) -> None:
        began = time.monotonic()
        forget_cached(self._embedding, self._scope, texts)
        if texts:
            self._pause(REST * (time.monotonic() - began))  # others come in between
