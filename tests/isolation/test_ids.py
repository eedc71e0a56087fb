"""Every place of an id × every kind of id: one's own, another tenant's, nobody's, and nonsense."""

from __future__ import annotations

import random

import pytest

from tests.isolation.declarations import OPERATIONS, Operation, kind_of, pool_of
from tests.isolation.doors import Answer
from tests.isolation.probes import given_away, sibling, texts, told
from tests.isolation.world import Member, World, filled
from tests.support import examples

MALFORMED = {
    "empty": "",
    "blank": " ",
    "long": "x" * 10_000,
    "slash": "a/b",
    "dots": "..",
    "way up": "../../etc/passwd",
    "NUL": "a\0b",
    "escaped NUL": "a%00b",
    "lines": "a\r\nx-injected: 1",
    "unicode": "Ω\u202e💥",
    "surrogate": "\ud800",
    "sql": "' OR '1'='1' --",
    "wildcards": "%_*",
    "object": '{"$ne": null}',
}
PLACES = [(operation, place) for operation in OPERATIONS for place in operation.takes]
each_place = pytest.mark.parametrize(("operation", "place"), PLACES, ids=lambda item: str(item))


def credential(world: World, operation: Operation, member: Member) -> str:
    return world.operator if operation.scope == "operate" else member.credentials["full key"]


def ask(world: World, operation: Operation, place: str, value: str) -> Answer:
    member = world.members[0]
    values = filled(world.good(operation, member), {place: value})
    answer = world.send(operation, values, credential(world, operation, member))
    marks = [] if operation.scope == "operate" else world.marks(*world.members[1:])
    assert given_away(answer, marks, *texts(values)) == []
    if answer.wrote and answer.status < 300:
        assert world.changed() == []
    if answer.wrote:
        world.rewind()
    return answer


@each_place
def test_ones_own_is_answered(world: World, operation: Operation, place: str) -> None:
    kind = operation.takes[place]
    own = world.members[0].own.get(f"{kind}/{operation}") or world.members[0].own[kind]
    assert ask(world, operation, place, own).status == operation.success


@each_place
def test_foreign_and_missing_are_one(world: World, operation: Operation, place: str) -> None:
    """Same status, body, headers and statements; of an operator, who may see every tenant, only what is missing is asked."""
    kind, chance = operation.takes[place], random.Random(place)
    expected = kind_of(kind).foreign or operation.success
    foreign = world.members[1].pool(pool_of(kind))
    assert foreign
    for value in foreign:
        nobodys = sibling(value, chance)
        missing = ask(world, operation, place, nobodys)
        assert missing.status == expected
        if operation.scope != "operate":
            answer = ask(world, operation, place, value)
            assert told(answer, value) == told(missing, nobodys)
            assert answer.statements == missing.statements


def _some(values: dict[str, str], operation: Operation, place: str) -> dict[str, str]:
    """Two for each place (ten in the full suite), others for another: with so many places each has its turn."""
    names = random.Random(f"{operation} {place}").sample(sorted(values), min(examples(10), len(values)))
    return {name: values[name] for name in names}


@each_place
def test_an_id_of_another_kind_is_a_missing_one(world: World, operation: Operation, place: str) -> None:
    kind = operation.takes[place]
    if kind_of(kind).foreign != 404:
        return
    fitting = world.members[0].pool(pool_of(kind))
    others = _some({name: value for name, value in world.members[0].own.items() if value not in fitting}, operation, place)
    found = {name: ask(world, operation, place, value).status for name, value in others.items()}
    assert {name: status for name, status in found.items() if status != 404} == {}


@each_place
def test_nonsense_is_refused(world: World, operation: Operation, place: str) -> None:
    allowed = kind_of(operation.takes[place]).malformed or {operation.success, 400, 413, 415, 422}
    found = {name: ask(world, operation, place, value) for name, value in _some(MALFORMED, operation, place).items()}
    assert {name: answer for name, answer in found.items() if answer.status not in allowed} == {}
    assert not any("x-injected" in dict(answer.headers) for answer in found.values())
