"""The turns of a session as a document that is cut at turns, so that each keeps the vector that recall has of it.

Its content is JSON of ours, which needs no reader that may die; its pages are the turns, by their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import isoformat
from ingestion.readers.base import BLOCK, Parsed
from rag.corpus import VersionChunk
from rag.recall.tables import TurnVector
from rag.recall.turns import indexed_text, unpacked
from rag.sessions.archives import restored
from rag.sessions.tables import Turn
from rag.splitting.chunking import Piece
from rag.store.base import Space, Vector

MEDIA_TYPE = "application/vnd.carrel.turns+json"
PAGE = 500

Said = Mapping[str, Any]


def content_of(session: Session, session_id: str) -> bytes:
    """What was said, in order; a turn without words stands for its number only."""
    said: list[Said] = []
    while True:
        page = select(Turn).where(col(Turn.session_id) == session_id, col(Turn.seq) > len(said)).order_by(col(Turn.seq))
        rows = restored(session, session.scalars(page.limit(PAGE)))
        said += [
            {
                "who": row.speaker or row.role,
                "at": isoformat(row.said_at),
                "text": indexed_text(row.speaker, row.content).strip(),
            }
            for row in rows
        ]
        if len(rows) < PAGE:
            return json.dumps(said, ensure_ascii=False).encode() if any(one["text"] for one in said) else b""


def read(content: bytes) -> tuple[Parsed, list[Said]]:
    said: list[Said] = json.loads(content)
    pages, size = [], 0
    for one in said:
        pages.append(size)
        size += len(one["text"]) + len(BLOCK) if one["text"] else 0
    text = BLOCK.join(one["text"] for one in said if one["text"])
    return Parsed(text, pages=tuple(min(page, len(text)) for page in pages)), said


def cut(said: Sequence[Said], split: Callable[[str], Iterator[Piece]], fits: Callable[[str], bool]) -> Iterator[Piece]:
    """A chunk for each turn, and several for one that is too long for a chunk. Who said it when stands as its headings."""
    ordinal, start = 0, 0
    for number, one in enumerate(said, 1):
        text, headings = one["text"], (str(one["who"]), str(one["at"]))
        if not text:
            continue
        whole = Piece(0, 0, len(text), text, "", headings, number, number)
        for piece in [whole] if fits(text) else split(text):
            parent = piece.parent and replace(piece.parent, start=piece.parent.start + start, end=piece.parent.end + start)
            yield replace(
                piece,
                ordinal=ordinal,
                start=piece.start + start,
                end=piece.end + start,
                headings=headings,
                first_page=number,
                last_page=number,
                parent=parent,
            )
            ordinal += 1
        start += len(text) + len(BLOCK)


def vectors_of(session: Session, session_id: str, space: Space, place: Mapping[str, object]) -> dict[str, Vector]:
    """By text, those of the turns that these places of a version show: `version`, `first`, `end`."""
    given = {**place, "session": session_id, "space": space.id}
    rows = session.execute(_VECTORS, given)
    return {indexed_text(speaker, content).strip(): unpacked(vector) for speaker, content, vector in rows}


_SHOWN = select(col(VersionChunk.first_page)).where(
    col(VersionChunk.version_id) == sa.bindparam("version"),
    col(VersionChunk.ordinal) >= sa.bindparam("first"),
    col(VersionChunk.ordinal) < sa.bindparam("end"),
)
_VECTORS = (
    sa.select(col(Turn.speaker), col(Turn.content), col(TurnVector.vector))
    .join(TurnVector, col(TurnVector.turn_id) == col(Turn.id))
    .where(
        col(Turn.session_id) == sa.bindparam("session"),
        col(TurnVector.space) == sa.bindparam("space"),
        col(Turn.seq).in_(_SHOWN),
    )
)
