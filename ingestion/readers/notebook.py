"""Jupyter notebooks: text cells as Markdown and code cells as fenced code, in order. Outputs are left out."""

from __future__ import annotations

import re
from typing import Any

from ingestion.readers.base import CannotRead, Draft, Parsed
from ingestion.readers.json import load

_LANGUAGE = re.compile(r"[A-Za-z0-9+#-]{1,20}")
_FENCE = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)


def read_notebook(content: bytes, max_chars: int) -> Parsed:
    notebook = load(content)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise CannotRead("The file is no notebook of version 4, which has cells; save it again with Jupyter.")
    language = _language(notebook.get("metadata"))
    draft = Draft(max_chars)
    for cell in cells:
        kind, source = _cell(cell)
        draft.add(_fenced(source, language) if kind == "code" and source.strip() else source)
    return draft.parsed()


def _cell(cell: Any) -> tuple[str, str]:
    source = cell.get("source") if isinstance(cell, dict) else None
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    if not isinstance(source, str):
        raise CannotRead("The notebook is damaged: a cell has no source.")
    return str(cell.get("cell_type")), source


def _language(metadata: Any) -> str:
    for place, key in (("language_info", "name"), ("kernelspec", "language")):
        described = metadata.get(place) if isinstance(metadata, dict) else None
        name = described.get(key) if isinstance(described, dict) else None
        if isinstance(name, str) and _LANGUAGE.fullmatch(name):
            return name
    return ""


def _fenced(source: str, language: str) -> str:
    """With a longer fence than any in the code."""
    fence = "`" * max(3, 1 + max(map(len, _FENCE.findall(source)), default=0))
    return f"{fence}{language}\n{source.rstrip()}\n{fence}"
