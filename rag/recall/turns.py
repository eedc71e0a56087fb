"""What of a turn is embedded and indexed, wherever that is done."""

from __future__ import annotations

import numpy as np

from rag.recall.thread import Item
from rag.store.base import Vector


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
