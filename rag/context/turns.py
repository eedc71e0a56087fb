"""A turn as a context shows it: what was said, and what was called for."""

from __future__ import annotations

import json

from rag.packing.elements import Said
from rag.recall.turns import SaidTurn
from rag.sessions.tables import Turn

EMPTY = "(nothing)"  #: models' interfaces take no message without content


def said_of(turn: Turn | SaidTurn) -> Said:
    return Said(turn.session_id, turn.seq, turn.role, text_of(turn), turn.said_at, turn.speaker, turn.id)


def text_of(turn: Turn | SaidTurn) -> str:
    """Calls of tools stand behind what was said, each on a line of its own."""
    calls = [json.dumps(call, ensure_ascii=False, sort_keys=True) for call in turn.tool_calls or ()]
    return "\n".join([*([turn.content] if turn.content.strip() else []), *(f"called: {call}" for call in calls)]) or EMPTY
