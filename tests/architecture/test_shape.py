"""The code stays small in every part: files, functions, and what a module lets out."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

import carrel_client

ROOT = Path(__file__).parents[2]
FOLDERS = ("config", "tenants", "rag", "ingestion", "api", "benchmarks", "client/src")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 330, 50
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def _sources() -> dict[str, str]:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "versions" not in path.parts]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


@cache
def _nodes() -> list[tuple[str, ast.AST]]:
    return [(name, node) for name, source in _sources().items() for node in ast.walk(ast.parse(source))]


def _lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_no_file_is_long() -> None:
    assert {name: count for name, source in _sources().items() if (count := len(source.splitlines())) > MAX_FILE_LINES} == {}


def test_no_function_is_long() -> None:
    functions = [(name, node) for name, node in _nodes() if isinstance(node, Function)]
    assert len(functions) > 300
    assert {f"{name}:{node.name}" for name, node in functions if _lines(node) > MAX_FUNCTION_LINES} == set()


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, source in _sources().items() if not ast.get_docstring(ast.parse(source))] == []


def test_only_commands_print() -> None:
    printing = {
        name
        for name, node in _nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "pprint")
    }
    assert {name for name in printing if not name.startswith(("api/cli/", "benchmarks/"))} == set()


def test_no_exception_is_caught_without_a_name() -> None:
    assert {name for name, node in _nodes() if isinstance(node, ast.ExceptHandler) and node.type is None} == set()


def test_no_check_vanishes_with_python_o() -> None:
    found = {name for name, node in _nodes() if isinstance(node, ast.Assert)}
    assert {name for name in found if not name.startswith("benchmarks/")} == set()


def test_the_client_offers_exactly_what_it_lists() -> None:
    listed = carrel_client.__all__
    assert listed == sorted(set(listed))
    assert all(isinstance(getattr(carrel_client, name), type) for name in listed)
    with pytest.raises(AttributeError, match="Nothing"):
        carrel_client.Nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("module", ["answers", "errors", "models"])
def test_every_error_and_model_of_the_client_is_offered(module: str) -> None:
    own = importlib.import_module(f"carrel_client.{module}")
    public = {name for name, value in vars(own).items() if isinstance(value, type) and value.__module__ == own.__name__}
    assert {name for name in public if not name.startswith("_")} - set(carrel_client.__all__) <= {"Model"}
