"""What was said in old turns lies packed, many in one row. This is the one way to have it back, for every reader of turns
outside the window.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import col, select

from config.errors import ContentDamaged
from rag.sessions.tables import PIECE, Turn, TurnArchive

PIECE_BYTES = 1 << 19  #: of JSON in one row, or a turn that is larger: what a reader of one turn unpacks, in some 3 ms
#: What is left in a compacted turn's own row of what lies here.
THIN: Mapping[str, Any] = {"content": "", "tool_calls": None, "data": None, "files": []}


class Said(NamedTuple):
    """The columns of a turn that lie here once it is compacted."""

    content: str
    tool_calls: list[dict[str, Any]] | None
    data: dict[str, Any]
    files: list[str]


def pack(turns: Sequence[Turn]) -> TurnArchive:
    """The first of these turns of a session, which follow one another: as many as fit, and one at least."""
    said, size = list[bytes](), 0
    for turn in turns[:PIECE]:
        one = orjson.dumps([turn.content, turn.tool_calls, turn.data, turn.files])
        size += len(one)
        if said and size > PIECE_BYTES:
            break
        said.append(one)
    first, last = turns[0].seq, turns[len(said) - 1].seq
    packed = zlib.compress(b"[" + b",".join(said) + b"]", 9)
    return TurnArchive(
        tenant_id=turns[0].tenant_id,
        session_id=turns[0].session_id,
        first_seq=first,
        last_seq=last,
        checksum=_checksum(first, last, packed),
        packed=packed,
    )


def unpack(archive: TurnArchive) -> dict[int, Said]:
    """By the turns' numbers. Raise ContentDamaged."""
    if not is_intact(archive):
        raise _damaged(archive.first_seq, archive.last_seq)
    said = orjson.loads(zlib.decompress(archive.packed))
    return {seq: Said(*one) for seq, one in enumerate(said, archive.first_seq)}


def is_intact(archive: TurnArchive) -> bool:
    return archive.checksum == _checksum(archive.first_seq, archive.last_seq, archive.packed)


def restored(session: Session, turns: Iterable[Turn]) -> list[Turn]:
    """The same turns with what was said in them, wherever that lies. Raise ContentDamaged."""
    turns, thin = [*turns], dict[str, dict[int, Turn]]()
    for turn in turns:
        if turn.data is None:
            thin.setdefault(turn.session_id, {})[turn.seq] = turn
    for session_id, of_session in thin.items():
        _restore(session, session_id, of_session)
    return turns


def readable(session: Session, turns: Iterable[Turn]) -> list[Turn]:
    """As `restored`, without those that are damaged."""
    turns, found = [*turns], list[Turn]()
    try:
        return restored(session, turns)
    except ContentDamaged:
        for turn in turns:
            with suppress(ContentDamaged):
                found += restored(session, [turn])
    return found


def _restore(session: Session, session_id: str, thin: dict[int, Turn]) -> None:
    first, last = min(thin), max(thin)
    given = {"of": session_id, "first": first, "last": last, "beyond": last + PIECE}
    for archive in session.scalars(_AROUND, given):
        if not (here := thin.keys() & range(archive.first_seq, archive.last_seq + 1)):
            continue
        said = unpack(archive)
        for seq in here:
            turn = thin.pop(seq)
            for name, value in zip(Said._fields, said[seq], strict=True):
                set_committed_value(turn, name, value)  # no change, which the session would write
    if thin:
        raise _damaged(min(thin), max(thin))


def _checksum(first: int, last: int, packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=16, person=b"turns", salt=first.to_bytes(8) + last.to_bytes(8)).digest()


def _damaged(first: int, last: int) -> ContentDamaged:
    return ContentDamaged(
        f"What was said in turns {first} to {last} is damaged in the database: restore it from a backup. "
        "Other turns of the session can be read."
    )


#: `beyond`: where a piece that has the last of them may end, so that no others are looked at.
_AROUND = (
    select(TurnArchive)
    .where(
        col(TurnArchive.session_id) == sa.bindparam("of"),
        col(TurnArchive.last_seq) >= sa.bindparam("first"),
        col(TurnArchive.last_seq) < sa.bindparam("beyond"),
        col(TurnArchive.first_seq) <= sa.bindparam("last"),
    )
    .order_by(col(TurnArchive.last_seq))
)
