"""Filters as the OpenAI SDK writes them, in Carrel's language. What is wrong with one is found where that is parsed."""

from __future__ import annotations

from typing import Any

from config.errors import InvalidInput
from rag.filters import MAX_DEPTH

GROUPS = ("and", "or")


def native(given: Any, at: str = "filters", depth: int = 1) -> dict[str, Any]:
    """Raise InvalidInput for what is no object, or too deep."""
    if depth > MAX_DEPTH:
        raise InvalidInput(f"A filter nests at most {MAX_DEPTH} deep.", field=at, limit=MAX_DEPTH)
    if not isinstance(given, dict) or "op" in given:
        raise InvalidInput("A filter is an object with `type`.", field=at)
    renamed = {("op" if name == "type" else name): value for name, value in given.items()}
    if renamed.get("op") in ("exists", "not"):
        raise InvalidInput("`type` is one of eq, ne, gt, gte, lt, lte, in, nin, and, or.", field=f"{at}.type")
    if renamed.get("op") in GROUPS and isinstance(renamed.get("filters"), list):
        renamed["filters"] = [native(one, f"{at}.filters[{i}]", depth + 1) for i, one in enumerate(renamed["filters"])]
    return renamed
