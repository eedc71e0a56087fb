"""`If-Match` and `If-None-Match`: who may write, on both databases, also when many write at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from config.database import Database
from config.errors import Forbidden, InvalidInput, NotFound, VersionConflict
from ingestion.intake.catalogue import Shown
from ingestion.intake.preconditions import ANYTHING, Precondition
from ingestion.intake.submission import Submission
from rag.corpus import Document, DocumentVersion
from rag.store.memory import MemoryStore
from tests.world import TENANTS, World

POSTGRESQL_DAILY = False
MINE, OTHERS = TENANTS
WRITERS = 64


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    for name in TENANTS:
        world.bring(name, "one", "the first text")
        world.run_jobs()
    yield world
    world.close()


def _put(
    world: World, text: str, expected: Precondition, name: str = MINE, external_id: str = "one", labels: Sequence[str] = ()
) -> Shown:
    submission = Submission(text.encode(), external_id=external_id, media_type="text/plain", labels=labels)
    return world.of(name).submit(submission, expected=expected).shown


def _etag(world: World, name: str = MINE) -> str:
    [document] = world.all(name, Document)
    return world.of(name).get(document.id).etag


def _at(etag: str) -> Precondition:
    return Precondition.parse(etag, None)


def test_a_writer_who_saw_the_newest_version_may_write_and_gets_the_next_tag(world: World) -> None:
    before = _etag(world)
    shown = _put(world, "the second text", _at(before))
    assert (shown.version.number, shown.etag == before) == (2, False)
    with pytest.raises(VersionConflict, match="at version 2 now") as refused:
        _put(world, "the third text", _at(before))  # although the second is not live yet
    assert refused.value.etag == shown.etag
    assert _put(world, "the third text", _at(f'"x.1" , {shown.etag}')).version.number == 3
    world.run_jobs()
    assert len(world.all(MINE, DocumentVersion)) == 3


def test_the_tag_of_another_tenants_document_fits_nothing_of_ones_own(world: World) -> None:
    with pytest.raises(VersionConflict):
        _put(world, "new", _at(_etag(world, OTHERS)))
    assert [version.number for name in TENANTS for version in world.all(name, DocumentVersion)] == [1, 1]


def test_the_same_content_needs_the_right_tag_too(world: World) -> None:
    assert _put(world, "the first text", _at(_etag(world))).version.state == "live"
    with pytest.raises(VersionConflict):
        _put(world, "the first text", _at('"other"'))


def test_a_tag_is_not_of_a_document_that_comes_after_a_deleted_one(world: World) -> None:
    before = _etag(world)
    [document] = world.all(MINE, Document)
    world.of(MINE).delete(document.id)
    world.run_jobs()
    with pytest.raises(VersionConflict, match="no such document") as refused:
        _put(world, "new", _at(before))
    assert refused.value.etag is None
    _put(world, "new", ANYTHING)
    with pytest.raises(VersionConflict, match="at version 1 now"):
        _put(world, "newer", _at(before))


def test_create_only_creates_and_any_replaces(world: World) -> None:
    absent, any_ = Precondition.parse(None, "*"), Precondition.parse("*", None)
    with pytest.raises(VersionConflict, match="exists, at version 1") as refused:
        _put(world, "new", absent)
    assert (refused.value.field, refused.value.etag) == ("if-none-match", _etag(world))
    with pytest.raises(VersionConflict):
        _put(world, "new", any_, external_id="two")
    assert _put(world, "new", absent, external_id="two").version.number == 1
    assert _put(world, "new", any_).version.number == 2
    assert len(world.files()) == len({v.content_blob for n in TENANTS for v in world.all(n, DocumentVersion)}) + 2  # texts


@pytest.mark.parametrize(
    ("match", "none_match"),
    [("doc.1", None), ('"a" "b"', None), ("", None), ("*, *", None), (",".join(['"a"'] * 21), None), (None, '"a"')],
)
def test_what_is_no_condition_is_refused(match: str | None, none_match: str | None) -> None:
    with pytest.raises(InvalidInput):
        Precondition.parse(match, none_match)


def test_weak_tags_never_match(world: World) -> None:
    with pytest.raises(VersionConflict):
        _put(world, "new", _at(f"W/{_etag(world)}"))


def test_of_a_hidden_document_no_version_is_told(world: World) -> None:
    hidden = Submission(b"new", external_id="red", media_type="text/plain", labels=["red"])
    world.of(MINE).submit(hidden)
    outsider = world.documents.for_tenant(replace(world.contexts[MINE], labels=frozenset()))
    for expected in (Precondition.parse('"a"', None), Precondition.parse(None, "*")):
        with pytest.raises(Forbidden):
            outsider.submit(Submission(b"mine", external_id="red", media_type="text/plain"), expected=expected)


def test_who_must_not_see_the_newest_version_deletes_neither(world: World) -> None:
    [document] = world.all(MINE, Document)
    outsider = world.documents.for_tenant(replace(world.contexts[MINE], labels=frozenset()))
    _put(world, "newer", ANYTHING, labels=["red"])
    for expected in (ANYTHING, Precondition.parse('"a"', None)):
        with pytest.raises(Forbidden):
            outsider.delete(document.id, expected=expected)
    assert outsider.get(document.id).version.number == 1
    with pytest.raises(NotFound):
        world.of(OTHERS).delete(document.id)
    world.of(MINE).delete(document.id)
    assert world.all(MINE, Document)[0].deleted_at is not None


def test_a_delete_takes_a_tag(world: World) -> None:
    [document] = world.all(MINE, Document)
    before = _etag(world)
    _put(world, "newer", ANYTHING)
    with pytest.raises(VersionConflict):
        world.of(MINE).delete(document.id, expected=_at(before))
    with pytest.raises(NotFound):
        world.of(OTHERS).delete(document.id, expected=_at(before))
    assert world.of(MINE).get(document.id).etag != before
    world.of(MINE).delete(document.id, expected=_at(_etag(world)))
    with pytest.raises(NotFound):
        world.of(MINE).get(document.id)


def _together(work: Callable[[int], str]) -> list[str]:
    start = threading.Barrier(WRITERS)

    def begin(number: int) -> str:
        start.wait(60)
        try:
            return work(number)
        except VersionConflict:
            return "conflict"

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(begin, range(WRITERS)))


def test_of_many_writers_with_one_tag_exactly_one_wins(world: World) -> None:
    tag = _at(_etag(world))
    outcomes = _together(lambda number: f"won {_put(world, f'text {number}', tag).version.number}")
    assert sorted(outcomes) == ["conflict"] * (WRITERS - 1) + ["won 2"]
    assert sorted(version.number for version in world.all(MINE, DocumentVersion)) == [1, 2]
    assert [version.number for version in world.all(OTHERS, DocumentVersion)] == [1]
    assert {version.content_blob for version in world.all(MINE, DocumentVersion)} <= world.files()


def test_of_many_who_create_exactly_one_does(world: World) -> None:
    absent = Precondition.parse(None, "*")
    outcomes = _together(lambda number: str(_put(world, f"text {number}", absent, external_id="new").version.number))
    assert sorted(outcomes) == ["1"] + ["conflict"] * (WRITERS - 1)


def test_of_a_delete_and_a_writer_with_one_tag_one_wins(world: World) -> None:
    tag, [document] = _at(_etag(world)), world.all(MINE, Document)

    def work(number: int) -> str:
        if number % 2:
            return str(_put(world, f"text {number}", tag).version.number)
        try:
            return world.of(MINE).delete(document.id, expected=tag).kind
        except NotFound:
            return "conflict"

    assert len([outcome for outcome in _together(work) if outcome != "conflict"]) == 1
