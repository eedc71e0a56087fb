"""What commands print, and how they end, where a service is not needed to see it."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import belongings, evaluation, tenants
from api.cli.main import app
from carrel_client import NotFoundError, PermissionDeniedError, Plan, TransportError
from rag.evaluation.questions import Dataset


@pytest.mark.parametrize("as_json", [True, False])
def test_an_export_without_its_end_is_a_failure(tmp_path: Path, as_json: bool) -> None:
    lines: list[dict[str, Any]] = [{"type": "session"}, {"type": "turn"}, {"type": "session_end"}]
    belongings._write(iter(lines), tmp_path / "whole", as_json=as_json)
    with pytest.raises(TransportError, match="after 2 lines"):
        belongings._write(iter(lines[:2]), tmp_path / "half", as_json=as_json)


def test_a_limit_of_nothing_is_not_shown_as_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    values = {field.name: None for field in dataclasses.fields(Plan)} | {"name": "closed", "default": False, "documents": 0}
    client = SimpleNamespace(admin=SimpleNamespace(tenants=SimpleNamespace(plans=lambda: [Plan(**values)])))  # type: ignore[arg-type]
    monkeypatch.setattr(tenants, "operator", lambda _settings: nullcontext(client))
    tenants.list_plans()
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["closed", "0", "unlimited"]


@pytest.mark.parametrize(
    "command",
    [
        ["key", "rotate", "key_x", "--overlap-hours"],
        ["tenant", "override", "acme", "documents", "5", "--days"],
        ["collection", "create", "x", "--near-threshold"],
        ["collection", "create", "x", "--semantic-threshold"],
    ],
)
def test_what_is_no_number_is_refused_before_anybody_is_asked(command: list[str]) -> None:
    for given in ("nan", "-nan", "inf"):
        outcome = CliRunner().invoke(app, [*command, given])
        assert (outcome.exit_code, "Invalid value" in outcome.output) == (2, True), outcome.output


def test_a_limit_that_json_does_not_know_is_told_by_the_service() -> None:
    assert [tenants._value("documents", text) for text in ("NaN", "-Infinity", "5", "1.5")] == ["NaN", "-Infinity", 5, 1.5]


def test_why_a_collection_was_not_made_is_told_and_those_that_were_are_removed(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("".join(f'{{"id": "{n}", "text": "x", "group": "g{n}"}}\n' for n in range(3)))
    made, removed = list[str](), list[str]()

    def create(name: str, **_options: Any) -> None:
        if len(made) == 1:
            raise PermissionDeniedError(403, {"code": "quota_exceeded"}, None)
        made.append(name)

    def listed(collection: str) -> list[Any]:
        if collection not in made:
            raise NotFoundError(404, {}, None)
        return []

    collections = SimpleNamespace(create=create, delete=removed.append)
    client: Any = SimpleNamespace(collections=collections, documents=SimpleNamespace(list=listed))
    with evaluation.bars(quiet=True) as progress, pytest.raises(PermissionDeniedError):
        with evaluation._temporary(client, Dataset(tmp_path, []), None, progress):
            raise AssertionError("nothing is there to be asked")
    assert removed == made != []
