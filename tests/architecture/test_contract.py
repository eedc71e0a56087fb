"""The HTTP interface is described wholly, and nothing of it changes without being seen to change."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from api.app import create_app
from api.contract.__main__ import FILE, since_accepted
from api.contract.answers import ANSWERS
from api.contract.changes import changes, covers
from api.contract.examples import REQUESTS
from api.contract.refusals import MORE
from api.contract.snapshot import Lines, lines_of, read, written
from api.openai.errors import PATHS
from api.reference import operations
from api.wiring.api import ApiServices

DOCUMENT: dict[str, Any] = create_app(cast(ApiServices, None)).openapi()
OPERATIONS = {operation["operationId"]: (path, operation) for _, path, operation in operations(DOCUMENT)}


def test_the_interface_is_what_was_accepted() -> None:
    found = since_accepted()
    told = "\n".join(map(str, found))
    assert not found, (
        f"the HTTP interface changed:\n{told}\n\nIf that is meant, `make contract` writes it to docs/{FILE.name}. "
        "What is BREAKING must not happen within v1 (docs/versioning.md)."
    )
    assert FILE.read_text(encoding="utf-8") == written(lines_of(DOCUMENT)), "run `make contract`: only the order differs"


def test_what_is_written_is_read_as_it_was() -> None:
    lines = lines_of(DOCUMENT)
    assert {name: [*entries.items()] for name, entries in read(written(lines)).items()} == {
        name: [*entries.items()] for name, entries in lines.items()
    }
    assert len(lines) > 300


BEFORE: Lines = {
    "operation ask": {
        "": "POST /v1/ask query",
        "query.limit": "optional integer[maximum=10]",
        "body application/json": "required AskIn",
        "answer 200 application/json": "AskOut",
        "refuses": "401",
    },
    "input AskIn": {"text": "required string[maxLength=5]", "kind": 'optional "a" | "b"', "n": "optional integer"},
    "output AskOut": {"score": "always number", "state": 'always "done" | "open"', "note": "sometimes string"},
}


@pytest.mark.parametrize(
    ("section", "name", "value", "breaking"),
    [
        ("operation ask", "", "POST /v1/ask manage", True),
        ("operation ask", "", "POST /v1/demand query", True),
        ("operation ask", "query.limit", None, True),
        ("operation ask", "query.limit", "optional integer[maximum=5]", True),
        ("operation ask", "query.limit", "optional integer[maximum=20]", False),
        ("operation ask", "query.limit", "optional integer", False),
        ("operation ask", "query.limit", "optional number", False),
        ("operation ask", "query.limit", "required integer[maximum=10]", True),
        ("operation ask", "query.more", "optional string", False),
        ("operation ask", "query.more", "required string", True),
        ("operation ask", "body application/json", "optional AskIn", False),
        ("operation ask", "answer 200 application/json", None, True),
        ("operation ask", "answer 202 application/json", "AskOut", False),
        ("operation ask", "refuses", "401 404", False),
        ("input AskIn", "text", "optional string[maxLength=5]", False),
        ("input AskIn", "text", "required string[maxLength=5] | null", False),
        ("input AskIn", "text", "required integer", True),
        ("input AskIn", "kind", 'optional "a"', True),
        ("input AskIn", "kind", 'optional "a" | "b" | "c"', False),
        ("input AskIn", "kind", "optional string", False),
        ("input AskIn", "n", "optional integer[minimum=0]", True),
        ("input AskIn", "n", None, True),
        ("input AskIn", "new", "required string", True),
        ("input AskIn", "new", "optional string", False),
        ("output AskOut", "score", None, True),
        ("output AskOut", "score", "always integer", False),
        ("output AskOut", "score", "always null | number", True),
        ("output AskOut", "score", "sometimes number", True),
        ("output AskOut", "note", "always string", False),
        ("output AskOut", "state", 'always "done" | "open" | "paused"', False),
        ("output AskOut", "state", 'always "done" | "open" | null', True),
        ("output AskOut", "state", "always string", True),
        ("output AskOut", "new", "always string", False),
        ("output Other", "new", "always string", False),
    ],
)
def test_a_change_is_told_and_judged(section: str, name: str, value: str | None, breaking: bool) -> None:
    after = {each: dict(entries) for each, entries in BEFORE.items()}
    if value is None:
        del after[section][name]
    else:
        after.setdefault(section, {})[name] = value
    [change] = changes(BEFORE, after)
    assert (change.breaking, str(change).startswith("BREAKING")) == (breaking, breaking)
    assert section in change.place


def test_what_is_gone_whole_is_told_once() -> None:
    assert [(change.breaking, change.place) for change in changes(BEFORE, {})] == [(True, name) for name in sorted(BEFORE)]
    assert not changes(BEFORE, BEFORE)


def test_a_type_covers_another() -> None:
    assert covers("integer | null", "null")
    assert not covers("integer[minimum=0]", "integer[minimum=-1]")
    assert not covers("string[pattern=a]", "string")


def test_operations_have_stable_names_and_one_described_tag() -> None:
    tags = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    for name, (_, operation) in OPERATIONS.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        [tag] = operation["tags"]
        assert tags[tag]
    assert not [name for name in DOCUMENT["components"]["schemas"] if "__" in name], "two models have one name"


def test_every_body_has_an_example_and_examples_are_valid() -> None:
    checked = 0
    for name, (_, operation) in OPERATIONS.items():
        contents = operation.get("requestBody", {}).get("content", {})
        assert all("example" in content and content["example"] is not None for content in contents.values()), name
        for answer in operation["responses"].values():
            contents = {**contents, **{f"{id(answer)} {media}": each for media, each in answer.get("content", {}).items()}}
        checked += sum(_valid(name, content) for content in contents.values())
    checked += sum(
        _valid("refusal", next(iter(each["content"].values()))) for each in DOCUMENT["components"]["responses"].values()
    )
    assert checked > 80
    assert {name.partition(" ")[0] for name in REQUESTS} | ANSWERS.keys() <= OPERATIONS.keys()


def _valid(name: str, content: dict[str, Any]) -> bool:
    if "example" not in content:
        return False
    validator = Draft202012Validator({**content["schema"], "components": DOCUMENT["components"]})
    assert not [error.message for error in validator.iter_errors(content["example"])], name
    return True


def test_refusals_are_of_the_one_shape_or_the_sdks() -> None:
    assert set().union(*MORE.values()) <= OPERATIONS.keys()
    for name, (path, operation) in OPERATIONS.items():
        for status, answer in operation["responses"].items():
            if "$ref" not in answer:
                assert status < "300" or name in ("mcp", "readiness"), f"{name} answers {status} in a shape of its own"
                continue
            content = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]["content"]
            expected = "application/json" if PATHS.fullmatch(path) else "application/problem+json"
            assert [*content] == [expected], name


def test_the_document_says_where_it_is_and_how_to_come_in() -> None:
    assert DOCUMENT["servers"]
    assert DOCUMENT["info"]["x-interface"] == "v1"
    assert DOCUMENT["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
