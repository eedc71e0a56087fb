"""What of a turn is embedded and indexed, wherever that is done, and what of it is shown."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rag.recall.thread import Item
from rag.store.base import Vector


class SaidTurn(NamedTuple):
    """What is shown of one that was found: columns, because ten entities cost 30 µs more than their values."""

    id: str
    session_id: str
    seq: int
    role: str
    speaker: str | None
    content: str
    tool_calls: list[dict[str, Any]] | None
    data: dict[str, Any]  #: `metadata` on the wire
    tokens: int
    said_at: int


def indexed_text(speaker: str | None, content: str) -> str:
    """As it is embedded and searched: with the name of who said it, which a third of all questions name. Empty of a turn that
    says nothing, such as a bare call of a tool: it is neither embedded nor found by words.
    """
    return f"{speaker}: {content}" if speaker and content else content


def item_of(turn_id: str, role: str, speaker: str | None, content: str, said_at: int) -> Item:
    """`said_at` in milliseconds, as SQL has it. Without a name, a question may name the role."""
    return Item(turn_id, indexed_text(speaker, content), said_at / 1000, speaker or role)


def packed(vector: Vector) -> bytes:
    return vector.astype("<f2").tobytes()


def unpacked(vector: bytes) -> Vector:
    return np.frombuffer(vector, "<f2").astype(np.float32)
