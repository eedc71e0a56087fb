"""Every operation is declared, and answers every kind of caller what it must."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.isolation.declarations import BY_COLLECTION, BY_LABELS, BY_SUBJECT, OPERATIONS, Operation
from tests.isolation.doors import REQUEST_ID, Answer
from tests.isolation.principals import KINDS
from tests.isolation.probes import given_away, texts
from tests.isolation.world import SPOKEN, World

BOUNDED_AWAY = ("text", "title", "external id", "source", "attribute value", "document", "job", "passage")
#: Beyond a subject: what stands in sessions of another.
SUBJECT_AWAY = ("session", "session/second", "turn", "turn/second", *SPOKEN, "tag")
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def test_every_operation_is_declared_with_its_scope(world: World) -> None:
    assert {operation.name: operation.scope for operation in OPERATIONS} == world.door.operations()


def test_every_input_is_declared(world: World) -> None:
    """A place that no declaration fills would never be probed."""
    known: dict[str, set[str]] = {}
    for operation in OPERATIONS:
        filled = {".".join(place.split(".")[:2]) for place in operation.takes}
        given = {f"{part}.{name}" for part, values in operation.parts.items() for name in values}
        known.setdefault(operation.name, set()).update(filled | given)
    missing = {name: places - known[name] - {"query.limit"} for name, places in world.door.inputs().items()}
    assert {name: places for name, places in missing.items() if places} == {}


@each_operation
def test_each_kind_of_caller_is_answered_as_declared(world: World, operation: Operation) -> None:
    values = world.good(operation, world.members[0])
    wrong: dict[str, object] = {}
    answered: dict[str, Answer] = {}
    for kind in KINDS:
        answer = world.send(operation, values, kind.credential(world))
        if answer.status != kind.expected(operation):
            wrong[kind.name] = (answer.status, kind.expected(operation), answer.body)
        if answer.status in (401, 403) and kind.excepted(operation) != 403 and answer.read:
            wrong[f"{kind.name}: read"] = "the body was read although the caller is refused"
        answered[kind.name] = answer
        others = [member for member in world.members if member.number != kind.tenant]
        marks = [] if kind.name == "operator" else world.marks(*others)
        if found := given_away(answer, marks, REQUEST_ID, *texts(values)):
            wrong[f"{kind.name}: leak"] = found
        if answer.wrote:
            world.rewind()
    assert wrong == {}
    refused = {(answer.headers, answer.body) for answer in answered.values() if answer.status == 401}
    assert len(refused) <= 1, "callers without a valid credential are told apart"


@each_operation
@pytest.mark.parametrize("name", [BY_COLLECTION, BY_LABELS])
def test_a_bounded_key_is_told_nothing_of_what_lies_beyond(world: World, operation: Operation, name: str) -> None:
    member = world.members[0]
    values = world.good(operation, member)
    answer = world.send(operation, values, member.credentials[name])
    sent = texts(values)
    assert given_away(answer, [member.own[kind] for kind in BOUNDED_AWAY if member.own[kind] not in sent], *sent) == []
    if answer.wrote:
        world.rewind()


@each_operation
def test_a_subject_is_told_nothing_of_what_is_anothers(world: World, operation: Operation) -> None:
    member = world.members[0]
    values = world.good(operation, member)
    for name in (BY_SUBJECT, "user of another subject"):
        answer = world.send(operation, values, member.credentials[name])
        sent = texts(values)
        assert given_away(answer, [member.own[kind] for kind in SUBJECT_AWAY if member.own[kind] not in sent], *sent) == []
        if answer.wrote:
            world.rewind()


@each_operation
@pytest.mark.parametrize("raw", [b"{broken", b"\xff" * 200_000], ids=["broken", "huge"])
def test_without_a_key_no_body_is_read(world: World, operation: Operation, raw: bytes) -> None:
    if operation.scope == "none":
        return
    values: Mapping[str, Any] = {"raw": raw, "path": world.good(operation, world.members[0]).get("path", {})}
    for kind in KINDS:
        if kind.expected(operation) == 401:
            answer = world.send(operation, dict(values), kind.credential(world))
            assert (answer.status, answer.read) == (401, False)


def test_a_declared_path_has_no_other_methods(world: World) -> None:
    key = world.members[0].credentials["full key"]
    for operation in OPERATIONS:
        method, _, path = operation.name.partition(" ")
        for other in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} - {method}:
            name = f"{other} {path}"
            if not any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), name) for known in world.door.operations()):
                values = {"path": world.good(operation, world.members[0]).get("path", {})}
                answer = world.door.send(name, values, key)
                assert answer.status == 405
                assert given_away(answer, world.marks(*world.members), *texts(values)) == []
