"""JSON and JSON Lines: each value a line behind the path that leads to it, as in `books[0].title: Emma`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ingestion.readers.base import BLOCK, CannotRead, Draft, Parsed
from ingestion.readers.text import decode

MAX_DEPTH = 100
_PLAIN_KEY = re.compile(r"[^\s.\[\]:\"]{1,200}")


def read_json(content: bytes, max_chars: int) -> Parsed:
    text = decode(content).removeprefix("\ufeff")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise _wrong(error.lineno, error.msg) from error
        return _records(text, max_chars)  # JSON Lines are often named .json
    except ValueError as error:  # a number of thousands of digits
        raise _wrong(1, str(error)) from error
    draft = Draft(max_chars)
    _add(draft, value)
    return draft.parsed(markdown=False)


def read_json_lines(content: bytes, max_chars: int) -> Parsed:
    return _records(decode(content).removeprefix("\ufeff"), max_chars)


def load(content: bytes) -> Any:
    """One JSON value that is no text for itself; raise CannotRead."""
    try:
        return json.loads(decode(content).removeprefix("\ufeff"))
    except ValueError as error:
        raise _wrong(getattr(error, "lineno", 1), str(error)) from error


def _records(text: str, max_chars: int) -> Parsed:
    draft = Draft(max_chars)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                _add(draft, json.loads(line))
            except ValueError as error:
                raise _wrong(number, str(error)) from error
    return draft.parsed(markdown=False)


def _add(draft: Draft, value: Any) -> None:
    """A blank line before each item of a list at the top, which is where it is best cut."""
    item = ""
    for number, (path, leaf) in enumerate(_leaves(value, "", 0)):
        before, item = item, path.partition("]")[0]
        begins = number == 0 or (isinstance(value, list) and item != before)
        draft.add(f"{path}: {leaf}" if path else leaf, after=BLOCK if begins else "\n")


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > MAX_DEPTH:
        raise CannotRead(f"The JSON is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            name = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
            yield from _leaves(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{place}]", depth + 1)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _wrong(line: int, reason: str) -> CannotRead:
    return CannotRead(f"The JSON is wrong in line {line} ({reason[:100]}); mend it, or send it as .txt.")
