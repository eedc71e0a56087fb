"""The Python in the documentation runs: each page's blocks in order, as one program, against a running service.

Pages write the demonstration's URL and keys that end in dots; a running service's stand in for them. A block that cannot run
says why behind its language: ```python no-run: the reason.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Callable
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Any

import pytest

from carrel_client import Carrel
from tests.support import Service

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python(?P<note>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
URL, KEY, OPERATOR_KEY = "http://127.0.0.1:8321", "carrel_key_...", "carrel_operator_..."
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if "```python" in page.read_text("utf-8")
]


def _loans(carrel: Carrel) -> dict[str, Any]:
    """What the other pages' examples ask about."""
    text = "Books may be kept for four weeks."
    submitted = carrel.documents.create(text=text, title="Loans", external_id="loans", labels=["staff"])
    submitted.wait()
    job = submitted.job
    return {"job_id": job and job.id, "p": carrel.query(text).passages[0]}


def _said(carrel: Carrel) -> dict[str, Any]:
    """A session of the end user whom the pages name, and what it was about."""
    session = carrel.sessions.create(subject="user-17", tags=["home"])
    carrel.sessions.say(session.id, "user", "I bought a green shelf last week.", speaker="Ann")
    return {**_loans(carrel), "session": session, "session_id": session.id}


def _nothing(carrel: Carrel) -> dict[str, Any]:
    return {}


#: What a page's program finds there beside `carrel`, where that is not an empty tenant's.
BEFORE: dict[str, Callable[[Carrel], dict[str, Any]]] = {
    **{f"docs/{name}.md": _loans for name in ("evaluation", "jobs", "mcp", "query", "tenants-and-keys", "traces")},
    **{f"docs/{name}.md": _said for name in ("context", "erasure", "recall", "session-documents")},
}


#: Other tests do the same every day, or it waits for a worker.
NOT_DAILY = {"docs/erasure.md", "docs/mcp.md", "docs/openai.md"}


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _when(page: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.full] if _name(page) in NOT_DAILY else []


@pytest.mark.parametrize("page", [pytest.param(page, id=_name(page), marks=_when(page)) for page in PAGES])
def test_the_python_of_a_page_runs(quick: Service, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tenant, _ = quick.tenant()
    key = quick.key(tenant, *SCOPES)
    carrel = quick.client(key)
    operator = (quick.data_dir / "operator.key").read_text().strip()
    names: dict[str, Any] = {"__name__": "__main__", "URL": quick.url, "KEY": key, "carrel": carrel, "client": carrel}
    names |= BEFORE.get(_name(page), _nothing)(carrel)
    text = page.read_text("utf-8")
    for block in BLOCK.finditer(text):
        if note := block["note"].strip():
            assert re.fullmatch(r"no-run: .{10,}", note), "say why it cannot run"
            continue
        code = block["code"].replace(URL, quick.url).replace(OPERATOR_KEY, operator).replace(KEY, key)
        _run("\n" * text.count("\n", 0, block.start("code")) + code, page, names)
    names["carrel"].close()  # a page may have made its own


SCOPES = ("query", "ingest", "manage", "converse")


def _run(code: str, page: Path, names: dict[str, Any]) -> None:
    compiled = compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(compiled, names)
    if compiled.co_flags & CO_COROUTINE:
        asyncio.run(result)


def test_pages_with_python_are_found() -> None:
    assert {"README.md", "docs/python-client.md", "docs/langchain.md", "docs/llama-index.md"} <= {_name(page) for page in PAGES}
