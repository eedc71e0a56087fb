"""What a context shows, line by line without its text, so that two can be compared of which one's text is gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rag.packing.rendering import Citation


def outline(ids: Mapping[str, Any], documents: Sequence[str]) -> list[str]:
    """In the order in which a context has its parts; recalled turns as they were found. `ids`: `rag.traces.conversed`."""
    versions = {memory_id: number for memory_id, number, _ in ids["memories"]}
    return [
        *(f"pinned {seq}" for seq in ids["pins"]),
        *(f"recap {first}-{last} {digest[:6]}" for first, last, digest in ids["recaps"]),
        *(f"turn {seq}" for first, last in ids["recent"] for seq in range(first, last + 1)),
        *(f"memory {memory_id} version {versions[memory_id]}" for memory_id in ids["shown"]["memories"]),
        *documents,
        *(f"recalled {turn_id}" for turn_id in ids["shown"]["recalled"]),
    ]


def pieces(shown: Iterable[Sequence[Any]], documents: Mapping[str, str]) -> list[str]:
    """Of each passage that is shown its number, its id and its place. `documents`: names by the passages' ids."""
    return [f"[{number}] {documents[passage_id]} {start}–{end}" for number, passage_id, start, end in shown]


def pieces_of(citations: Iterable[Citation]) -> list[str]:
    return [f"[{each.number}] {each.passage.external_id} {each.start}–{each.end}" for each in citations]
