"""What the code offers is documented, and what the documentation names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from api import reference
from api.app import create_app
from api.wiring.api import ApiServices
from config.errors import CarrelError
from config.settings import Settings
from ingestion.media import FORMATS, SUFFIXES

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")])
WRITTEN = [page for page in PAGES if page.parent != reference.FOLDER]
FORBIDDEN = ("TODO", "FIXME", "seamless", "blazing", "cutting-edge", "state-of-the-art", "enterprise-grade", "effortless")
#: Named in pages although they are no settings of the service.
OTHER_VARIABLES = {"CARREL_TEST_QDRANT_URL", "CARREL_TEST_PG_URL"}


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return reference.render()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(cast(ApiServices, None)).openapi()


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_reference_is_what_the_code_says(rendered: dict[str, str]) -> None:
    written = {page.name: page.read_text(encoding="utf-8") for page in reference.FOLDER.iterdir()}
    assert written == rendered, "run `make docs`"


def test_rendering_is_repeatable_in_any_terminal(rendered: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "40", "FORCE_COLOR": "1", "CARREL_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert reference.render() == rendered


def test_every_setting_is_described(rendered: dict[str, str]) -> None:
    for name, field in Settings.model_fields.items():
        assert f"`CARREL_{name.upper()}`" in rendered["settings.md"]
        assert field.description, f"{name} has no description"


def test_every_command_is_described(rendered: dict[str, str]) -> None:
    commands = dict(reference.command_help())
    assert {"carrel serve", "carrel tenant create", "carrel key revoke"} <= commands.keys()
    for path, text in commands.items():
        assert f"## `{path}`" in rendered["cli.md"]
        assert len(text.splitlines()) > 3, f"{path} has no help"


def test_every_route_is_described(rendered: dict[str, str], document: dict[str, Any]) -> None:
    for method, path, operation in reference.operations(document):
        assert f"### `{method} {path}`" in rendered["http.md"], "its tag is missing in api.app.TAGS"
        assert operation.get("summary"), f"{method} {path} has no summary"


def test_every_format_is_described(rendered: dict[str, str]) -> None:
    described = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    assert [suffix for suffix in SUFFIXES if f"`{suffix}`" not in described] == []
    assert f"Read are {FORMATS}." in " ".join(dict(reference.command_help())["carrel ingest"].split())


def errors(base: type[CarrelError] = CarrelError) -> set[type[CarrelError]]:
    return {base}.union(*(errors(kind) for kind in base.__subclasses__()))


def test_every_error_code_is_described() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for kind in errors():
        assert f"| `{kind.code}` |" in text, f"{kind.__name__} is missing in docs/errors.md"


def test_error_statuses_are_the_real_ones() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| (yes|no) \|", text, re.MULTILINE)
    known = {kind.code: (str(kind.status), "yes" if kind.retryable else "no") for kind in errors()}
    assert len(rows) > 10
    assert {code: (status, retryable) for code, status, retryable in rows}.items() <= known.items()


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_named_settings_exist(page: Path) -> None:
    known = {f"CARREL_{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    assert set(re.findall(r"CARREL_[A-Z_]*[A-Z]", page.read_text(encoding="utf-8"))) <= known


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_named_routes_exist(page: Path, document: dict[str, Any]) -> None:
    templates = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + r"|/v1/admin") for path in document["paths"]]
    for path in re.findall(r"/v1/[\w/{}.-]*[\w}]", page.read_text(encoding="utf-8")):
        assert any(template.fullmatch(path) for template in templates), f"{path} is no route"


def anchors(page: Path) -> set[str]:
    """The names that headings get on the usual renderers: lower case, punctuation gone, blanks as hyphens."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_forbidden_phrase(page: Path) -> None:
    text = page.read_text(encoding="utf-8").casefold()
    assert not [phrase for phrase in FORBIDDEN if phrase.casefold() in text]


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "index.md":
            assert f"({page.relative_to(ROOT / 'docs').as_posix()})" in index, f"{page.name} is not in docs/index.md"
