"""The Python client keeps to its form: one half made of the other, examples on all that is public, typed, quick."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import carrel_client

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "client" / "src" / "carrel_client"
IMPORT_MS = 150


@pytest.fixture(scope="module")
def make_sync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sync", ROOT / "client" / "make_sync.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_synchronous_half_is_what_is_made_of_the_other(make_sync: ModuleType, tmp_path: Path) -> None:
    make_sync.write(tmp_path)
    made = {path.relative_to(tmp_path): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.py*")}
    assert {name: (PACKAGE / name).read_text(encoding="utf-8") for name in made} == made, "run `make client`"
    assert {path.name for path in (PACKAGE / "_sync").glob("*.py")} - {name.name for name in made} == {make_sync.BY_HAND}


SOURCE = '''"""Waits: `await carrel.get()`."""

class AsyncThing:
    """Example: `print((await carrel.get(1)).text, [x async for x in carrel.all()])`"""

    async def lines(self) -> AsyncGenerator[str, None]:
        async with aclosing(self._all()) as lines:
            async for line in lines:
                yield (await one(line, (1, 2)))["x"].text + (await two()), (await three())  # await what comes
'''
MADE = '''"""Waits: `carrel.get()`."""

class Thing:
    """Example: `print(carrel.get(1).text, list(carrel.all()))`"""

    def lines(self) -> Generator[str, None, None]:
        with closing(self._all()) as lines:
            for line in lines:
                yield one(line, (1, 2))["x"].text + (two()), (three())  # what comes
'''


def test_words_change_in_code_examples_and_comments(make_sync: ModuleType) -> None:
    assert make_sync.synchronous(SOURCE) == MADE


def test_both_halves_offer_the_same() -> None:
    names = set(carrel_client.__all__)
    looped = {name for name in names if name.startswith("Async")}
    assert len(looped) >= 15
    for name in looped:
        one, other = getattr(carrel_client, name), getattr(carrel_client, name.removeprefix("Async"))
        assert public(one).keys() == public(other).keys()


def public(kind: type) -> dict[str, object]:
    members = inspect.getmembers(kind, inspect.isroutine)
    return {name: member for name, member in members if not name.startswith("_")}


def nouns() -> Iterator[type]:
    for name in carrel_client.__all__:
        kind = getattr(carrel_client, name)
        if kind.__module__.startswith(("carrel_client._async", "carrel_client._sync")):
            yield kind


def test_every_public_method_has_an_example_that_is_python() -> None:
    seen = 0
    for kind in nouns():
        for name, method in public(kind).items():
            _, _, example = (inspect.getdoc(method) or "").partition("Example: `")
            assert example.endswith("`"), f"{kind.__name__}.{name} has no example"
            compile(example[:-1], name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            assert "await " not in example or kind.__name__.startswith("Async"), f"{kind.__name__}.{name} awaits"
            seen += 1
    assert seen > 150


def _milliseconds() -> float:
    """CPU time of the import alone, in a fresh interpreter."""
    asked = "import time; began = time.process_time(); import carrel_client; print(1000 * (time.process_time() - began))"
    return float(subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout)


def test_it_is_imported_in_no_time() -> None:
    assert min(_milliseconds() for _ in range(3)) <= IMPORT_MS


def test_it_imports_nothing_heavy() -> None:
    asked = "import sys; from carrel_client import Carrel; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert {"httpx2", "carrel_client._sync.client"} <= set(loaded)
    assert {"pydantic", "numpy", "langchain_core", "llama_index", "carrel_client._async.client"}.isdisjoint(loaded)


@pytest.mark.full  # 5 s of CPU where mypy has no cache
def test_an_application_of_it_is_typed_strictly(pytestconfig: pytest.Config) -> None:
    cache = pytestconfig.cache.mkdir("mypy-of-the-client")  # type: ignore[union-attr]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--cache-dir", str(cache)]
    application = ROOT / "tests" / "fixtures" / "client_app.py"
    env = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    checked = subprocess.run([*command, str(application)], env=env, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (PACKAGE / "py.typed").exists()
