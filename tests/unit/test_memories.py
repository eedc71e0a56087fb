"""Memories as their handle keeps them: versions that form a chain, one fact of a key at a time, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import SQLModel, col

from config.database import Database
from config.errors import Forbidden, InvalidInput, ModelUnavailable, NotFound, QuotaExceeded
from rag.corpus import Collection, Document, DocumentVersion, SpaceRow
from rag.embedding.batcher import Batcher
from rag.embedding.cache import NullVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.service import EmbeddingService
from rag.memories import memories as searching
from rag.memories.memories import Memories, TenantMemories
from rag.memories.placing import Place
from rag.memories.ranking import Scored
from rag.memories.removal import MemorySweep
from rag.memories.tables import MemoryVersion
from rag.memories.validity import Span
from rag.memories.values import MAX_VERSIONS, Added, Change, Fact, Memory, Source, Wanted, Whose
from rag.sessions.sessions import Sessions
from rag.sessions.tables import ChatSession
from rag.sessions.values import NewSession, NewTurn
from tests.postgresql import ON_SQLITE
from tests.support import FakeScope, FreeMeter
from tests.unit.conftest import NOON, SetClock

A, B = FakeScope("a"), FakeScope("b")
ANN, BOB = FakeScope("a", subject="ann"), FakeScope("a", subject="bob")
ANNS, EVERYTHING = Wanted("ann"), Wanted("ann", everything=True)


@pytest.fixture(scope="module")
def embedding() -> Iterator[EmbeddingService]:
    service = EmbeddingService(Batcher(HashRuntime(), batch_tokens=2048), NullVectorCache())
    yield service
    service.close()


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def memories(database: Database, clock: SetClock, embedding: EmbeddingService, told: list[tuple[str, str]]) -> Memories:
    def tell(_session: object, tenant_id: str, event: str, subject: str, **_: object) -> None:
        told.append((event, subject))

    return Memories(database, clock, embedding, limit=50, tell=tell)


class Handle:
    """Adds with a new charge each time."""

    def __init__(self, memories: Memories, scope: FakeScope = A) -> None:
        self.meter = FreeMeter()
        self.of: TenantMemories = memories.for_tenant(scope, self.meter, by="key_1")

    def add(self, *facts: Fact | str, subject: str | None = "ann", **more: Any) -> Added:
        given = [Fact(fact) if isinstance(fact, str) else fact for fact in facts]
        return self.of.add(given, subject=subject, charge_id=f"charge_{len(self.meter.paid)}", **more)

    def one(self, fact: Fact | str, **more: Any) -> Memory:
        return self.add(fact, **more).placed[0].memory

    def update(self, memory_id: str, **changes: Any) -> Memory:
        return self.of.update(memory_id, Change(**changes), charge_id=f"charge_{len(self.meter.paid)}")

    def texts(self, wanted: Wanted = ANNS) -> list[str]:
        return [each.version.text for each in self.of.page(wanted, after=None, limit=100)[0]]

    def found(self, query: str, wanted: Wanted = ANNS, limit: int = 10) -> list[str]:
        found = self.of.search(query, wanted=wanted, limit=limit, charge_id=f"charge_{len(self.meter.paid)}")
        return [hit.memory.version.text for hit in found.hits]

    def history(self, memory_id: str) -> list[MemoryVersion]:
        return [each.version for each in self.of.history(memory_id, after=None, limit=100)]


@pytest.fixture
def handle(memories: Memories) -> Handle:
    return Handle(memories)


def test_a_fact_is_kept_with_what_is_known_of_it(handle: Handle, told: list[tuple[str, str]]) -> None:
    fact = Fact("Ann plays the cello.", key="instrument", tags=("music", "a"), data={"by": 1}, reason="she said so")
    added = handle.add(fact, agent="tutor")
    [placed] = added.placed
    row = placed.memory.version
    assert (placed.outcome, row.number, row.subject, row.agent, row.session_id) == ("added", 1, "ann", "tutor", "")
    assert (row.text, row.key, row.tags, row.data, row.reason) == (
        fact.text,
        "instrument",
        ["a", "music"],
        {"by": 1},
        fact.reason,
    )
    assert (row.valid_from, row.valid_to, row.recorded_at, row.changed_by) == (NOON, None, NOON, "key_1")
    assert added.charged == sum(handle.meter.paid.values()) > 0
    assert handle.of.get(row.memory_id).version.text == fact.text
    assert told == [("memory.added", row.memory_id)]


def test_the_same_fact_confirms_the_first(handle: Handle, clock: SetClock) -> None:
    first = handle.one(Fact("Ann lives in Berlin", tags=("b",))).version
    clock.now += 1000
    again = handle.add(Fact("Ann  lives in  Berlin", tags=("a",)), "Ann is a lawyer")
    assert [each.outcome for each in again.placed] == ["confirmed", "added"]
    row = again.placed[0].memory.version
    assert (row.memory_id, row.number, row.confirmations, row.confirmed_at) == (first.memory_id, 2, 1, NOON + 1000)
    assert row.tags == ["b", "a"]
    assert len(handle.texts()) == 2
    handle.one("Ann lives in Berlin", agent="other")  # another's knowledge
    assert len(handle.texts()) == 3


def test_near_words_confirm_only_with_a_near_vector(memories: Memories, embedding: EmbeddingService) -> None:
    handle = Handle(memories)
    handle.one("I am allergic to nuts")
    assert handle.add("I'm allergic to nuts").placed[0].outcome == "added"  # a hashed vector of other words is far
    assert handle.add("I am allergic to nuts").placed[0].outcome == "confirmed"


def test_another_value_of_a_key_supersedes(handle: Handle, clock: SetClock, told: list[tuple[str, str]]) -> None:
    first = handle.one(Fact("Ann lives in Berlin", key="home_city")).version
    clock.now += 1000
    [placed] = handle.add(Fact("She has moved to Oslo", key="home_city")).placed
    second = placed.memory.version
    assert placed.superseded == (first.memory_id,)
    assert handle.texts() == ["She has moved to Oslo"]
    old = handle.of.get(first.memory_id).version
    assert (old.valid_to, old.superseded_by, old.action, old.number) == (NOON + 1000, second.memory_id, "superseded", 2)
    assert handle.texts(EVERYTHING) == ["Ann lives in Berlin", "She has moved to Oslo"]
    assert handle.texts(replace(EVERYTHING, everything=False, valid_at=NOON)) == ["Ann lives in Berlin"]
    assert handle.texts(replace(EVERYTHING, everything=False, as_of=NOON)) == ["Ann lives in Berlin"]
    assert told[-1] == ("memory.superseded", first.memory_id)


def test_what_was_believed_and_what_was_true_are_two_questions(handle: Handle, clock: SetClock) -> None:
    """Recorded late: as of then it was not known, and yet it was true then."""
    handle.one(Fact("Ann lives in Berlin", key="home_city", valid_from=NOON - 9_000))
    clock.now += 1000
    handle.one(Fact("Ann lives in Oslo", key="home_city", valid_from=NOON - 500))
    assert handle.texts(Wanted("ann", as_of=NOON)) == ["Ann lives in Berlin"]
    assert handle.texts(Wanted("ann", valid_at=NOON)) == ["Ann lives in Oslo"]
    assert handle.texts(Wanted("ann", as_of=NOON, valid_at=NOON - 8_000)) == ["Ann lives in Berlin"]
    assert handle.texts(Wanted("ann", valid_at=NOON - 8_000)) == ["Ann lives in Berlin"]
    assert handle.texts(Wanted("ann", valid_at=NOON - 10_000)) == []
    earlier = handle.one(Fact("Ann lives in Rome", key="home_city", valid_from=NOON - 20_000)).version
    assert earlier.valid_to == NOON - 9_000
    assert earlier.superseded_by is not None
    assert handle.texts() == ["Ann lives in Oslo"]
    with pytest.raises(InvalidInput, match="true before and after"):
        handle.one(Fact("Ann lives in Bonn", key="home_city", valid_from=NOON, valid_to=NOON + 5))
    with pytest.raises(InvalidInput, match="later"):
        handle.one(Fact("Ann is away", valid_to=NOON))


def test_without_a_key_only_what_clearly_contradicts_supersedes(handle: Handle) -> None:
    first = handle.one("I work at Acme").version
    [placed] = handle.add("I work at Globex").placed
    assert placed.superseded == (first.memory_id,)
    friend = handle.one("My friend is Anna").version
    [other] = handle.add("My friend is Ben").placed
    assert (other.superseded, other.memory.version.conflicts_with) == ((), [friend.memory_id])
    handle.one("I work at Initech", agent="other")
    assert handle.texts() == ["I work at Globex", "My friend is Anna", "My friend is Ben", "I work at Initech"]


def test_facts_of_one_call_are_placed_one_after_the_other_or_none(handle: Handle) -> None:
    added = handle.add("I work at Acme", "I work at Acme", "I work at Globex")
    assert [each.outcome for each in added.placed] == ["added", "confirmed", "added"]
    assert added.placed[0].memory.version.superseded_by == added.placed[2].memory.version.memory_id
    with pytest.raises(NotFound):
        handle.add("One more", Fact("Another", sources=(Source("ses_none", 1),)))
    assert len(handle.texts(EVERYTHING)) == 2


def test_an_update_is_a_version_and_finds_its_place(handle: Handle, clock: SetClock) -> None:
    first = handle.one(Fact("Ann lives in Berlin", key="home_city")).version
    clock.now += 1000
    changed = handle.update(first.memory_id, text="Ann lives in Bern", tags=("x",), reason="misheard").version
    assert (changed.number, changed.text, changed.tags, changed.reason, changed.action) == (
        2,
        "Ann lives in Bern",
        ["x"],
        "misheard",
        "updated",
    )
    assert handle.found("Bern")[0] == "Ann lives in Bern"
    assert handle.of.get(first.memory_id, as_of=NOON).version.text == "Ann lives in Berlin"
    assert handle.found("Berlin", Wanted("ann", as_of=NOON))[0] == "Ann lives in Berlin"
    same = handle.update(first.memory_id, text="Ann lives in Bern").version
    assert same.number == 2
    other = handle.one(Fact("Ann hires a flat in Rome")).version
    keyed = handle.update(other.memory_id, key="home_city").version
    assert handle.texts() == ["Ann hires a flat in Rome"]
    assert handle.of.get(first.memory_id).version.superseded_by == keyed.memory_id
    ended = handle.update(keyed.memory_id, valid_to=NOON + 9_000).version
    assert (ended.valid_to, ended.superseded_by) == (NOON + 9_000, None)
    clock.now += 9_000
    assert handle.texts() == []
    with pytest.raises(InvalidInput):
        handle.update(first.memory_id, valid_to=NOON - 1)
    with pytest.raises(InvalidInput, match="future"):
        handle.of.get(first.memory_id, as_of=clock.now + 1)


def test_what_was_kept_is_known_by_a_clock_that_is_behind(handle: Handle, memories: Memories, clock: SetClock) -> None:
    handle.one(Fact("Ann lives in Berlin", key="home_city"))
    clock.now += 5_000
    handle.one(Fact("Ann lives in Oslo", key="home_city"))
    handle.one(Fact("Ann moves to Rome", valid_from=NOON + 6_000))
    clock.now = NOON + 1_000
    assert handle.texts() == handle.found("where does Ann live") == ["Ann lives in Oslo"]
    handle.one(Fact("Ann lives in Bonn", key="home_city"))
    assert handle.texts() == ["Ann lives in Bonn"]
    assert handle.texts(Wanted("ann", valid_at=NOON + 1_000)) == ["Ann lives in Berlin"]
    assert Handle(memories, B).texts() == []


def test_what_ended_a_fact_stays_known_while_its_end_does(handle: Handle, clock: SetClock) -> None:
    first, moved = handle.one(Fact("Ann lives in Berlin", key="home_city")).version, NOON + 1000
    clock.now = moved
    second = handle.one(Fact("Ann lives in Oslo", key="home_city")).version
    for changes in ({"valid_from": NOON - 5}, {"tags": ("x",)}, {"key": "former_city"}):
        row = handle.update(first.memory_id, **changes).version
        assert (row.valid_to, row.superseded_by) == (moved, second.memory_id)
    row = handle.update(first.memory_id, valid_to=moved - 1).version
    assert (row.valid_to, row.superseded_by) == (moved - 1, None)


def test_what_is_deleted_while_it_is_searched_for_is_not_found(
    handle: Handle, memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL each statement sees what others committed by then."""
    deleted, _ = (handle.one(f"Ann likes {each}").version.memory_id for each in ("figs", "plums"))
    stranger = Handle(memories, B).one("Eve likes figs").version.memory_id
    rank = searching.rank

    def late(*args: Any) -> list[Scored]:
        ranked = rank(*args)
        if memories.database.is_postgresql:  # SQLite's readers see one moment
            handle.of.delete(deleted)
        else:
            ranked = [each for each in ranked if each.id != deleted]
        return [*(Scored(name, 1.0, None, None) for name in ("mem_gone", stranger)), *ranked]

    monkeypatch.setattr(searching, "rank", late)
    assert handle.found("Ann likes") == ["Ann likes plums"]


def test_any_number_of_facts_that_lie_around_another_are_left_to_stand() -> None:
    around = {f"mem_{number}": Span(0, 10_000 - number) for number in range(1_100)}
    place = Place(None, "a", Whose("ann"), "key_1", NOON, NOON)  # type: ignore[arg-type]  # it asks no database
    fitted = place.fit(Span(5, 6), around, strict=False)
    assert (fitted.span, fitted.ended) == (Span(5, 6), ())


def test_what_is_deleted_says_nothing_any_more_at_any_time(
    handle: Handle, database: Database, clock: SetClock, told: list[tuple[str, str]]
) -> None:
    row = handle.one(
        Fact("Ann's canaryword", key="canarykey", tags=("canarytag",), data={"x": "canarydata"}, reason="canaryreason")
    ).version
    handle.update(row.memory_id, text="Ann's second canaryword")
    other = handle.one("Ann likes figs").version
    clock.now += 1000
    handle.of.delete(row.memory_id, reason="asked to")
    for wanted in (Wanted("ann"), EVERYTHING, Wanted("ann", as_of=NOON)):
        assert handle.texts(wanted) == ["Ann likes figs"]
        assert handle.found("canaryword", wanted) == ["Ann likes figs"]
    for wrong in (lambda: handle.of.get(row.memory_id), lambda: handle.of.delete(row.memory_id)):
        with pytest.raises(NotFound):
            wrong()
    with pytest.raises(NotFound):
        handle.update(row.memory_id, text="again")
    history = handle.history(row.memory_id)
    assert [(each.number, each.action, each.text, each.reason) for each in history] == [
        (1, "added", "", None),
        (2, "updated", "", None),
        (3, "deleted", "", "asked to"),
    ]
    with database.system_read() as session:
        assert "canary" not in str(session.execute(sa.select(SQLModel.metadata.tables["memory_versions"])).all())
    assert handle.one(Fact("Ann's other", key="canarykey")).version.number == 1
    assert told[-2] == ("memory.deleted", row.memory_id)
    assert handle.of.get(other.memory_id)


def test_nobody_reaches_anothers(memories: Memories, handle: Handle) -> None:
    row = handle.one(Fact("Ann lives in Berlin", key="home_city")).version
    bobs = handle.one(Fact("Bob lives in Oslo", key="home_city"), subject="bob").version
    assert row.valid_to is None
    for stranger in (Handle(memories, B), Handle(memories, BOB)):
        assert "Ann lives in Berlin" not in stranger.texts(Wanted(everything=True))
        for wrong in (
            lambda s: s.of.get(row.memory_id),
            lambda s: s.history(row.memory_id),
            lambda s: s.update(row.memory_id, text="x"),
            lambda s: s.of.delete(row.memory_id),
        ):
            with pytest.raises(NotFound):
                wrong(stranger)
    assert Handle(memories, B).found("Berlin") == []
    bob = Handle(memories, BOB)
    for forbidden in (lambda: bob.texts(), lambda: bob.found("Berlin"), lambda: bob.one("x")):
        with pytest.raises(Forbidden):
            forbidden()
    assert bob.texts(Wanted()) == bob.found("Berlin", Wanted()) == ["Bob lives in Oslo"]
    assert bob.one("Bob sings", subject=None).version.subject == "bob"
    assert Handle(memories, ANN).texts(Wanted()) == ["Ann lives in Berlin"]
    assert handle.texts(Wanted()) == ["Ann lives in Berlin", "Bob lives in Oslo", "Bob sings"]
    with pytest.raises(InvalidInput, match="Name the subject"):
        handle.one("Whose?", subject=None)
    assert bobs.memory_id != row.memory_id


def test_a_list_has_pages_and_filters(handle: Handle) -> None:
    for number in range(5):
        handle.one(Fact(f"Fact {number} of many", key=f"k{number}", tags=("Even",) if number % 2 == 0 else ("even",)))
    seen: list[str] = []
    after: str | None = None
    while True:
        page, after = handle.of.page(Wanted("ann"), after=after, limit=2)
        seen += [each.version.text for each in page]
        if after is None:
            break
    assert seen == [f"Fact {number} of many" for number in range(5)]
    assert handle.texts(Wanted("ann", tag="even")) == ["Fact 1 of many", "Fact 3 of many"]
    assert handle.texts(Wanted("ann", tag="%")) == handle.texts(Wanted("ann", agent="x")) == []
    assert handle.texts(Wanted("ann", key="k3")) == ["Fact 3 of many"]


def test_a_search_goes_by_words_and_meaning_and_does_without_the_model(
    handle: Handle, memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle.add("Ann plays the cello in a quartet", "Ann grows tomatoes", "Ann's bicycle is green")
    found = handle.of.search("tomatoes", wanted=Wanted("ann"), limit=2, charge_id="q")
    assert found.hits[0].memory.version.text == "Ann grows tomatoes"
    assert len(found.hits) == 2
    assert found.hits[0].words is not None
    assert found.hits[0].cosine is not None
    assert found.hits[1].words is None

    def fails(*_: object, **__: object) -> None:
        raise ModelUnavailable("gone")

    monkeypatch.setattr(memories.embedding.embedder, "embed", fails)
    worded = handle.of.search("tomatoes", wanted=Wanted("ann"), charge_id="q2")
    assert ([hit.memory.version.text for hit in worded.hits], worded.degraded) == (["Ann grows tomatoes"], ("dense",))
    kept = handle.add("Ann fears moths")
    assert kept.degraded == ("dense",)
    monkeypatch.undo()
    assert handle.found("moths")[0] == "Ann fears moths"
    [of_words] = handle.of.search("moths", wanted=Wanted("ann"), limit=1, charge_id="q3").hits
    assert of_words.cosine is None
    assert handle.add("Ann fears  moths").placed[0].outcome == "confirmed"
    [embedded] = handle.of.search("moths", wanted=Wanted("ann"), limit=1, charge_id="q4").hits
    assert (embedded.memory.version.memory_id, embedded.cosine is None) == (of_words.memory.version.memory_id, False)


def test_a_subject_has_bounds(handle: Handle, memories: Memories) -> None:
    handle.add(*(f"Fact number {number} holds" for number in range(49)))
    with pytest.raises(QuotaExceeded):
        handle.add("Something new", "And something else")
    handle.add("Something new")
    handle.add("Something new")  # a confirmation adds none
    handle.add("Something new", subject="bob")
    row = handle.one("Something new").version
    with memories.database.write(A) as session:
        session.execute(
            sa.update(MemoryVersion)
            .where(col(MemoryVersion.memory_id) == row.memory_id, col(MemoryVersion.number) == row.number)
            .values(number=MAX_VERSIONS)
        )
    assert handle.one("Something new").version.number == MAX_VERSIONS
    with pytest.raises(QuotaExceeded):
        handle.update(row.memory_id, text="Something newer")
    handle.of.delete(row.memory_id)
    handle.add("Something else again")


def test_provenance_is_the_subjects_own(handle: Handle, memories: Memories, clock: SetClock) -> None:
    sessions = Sessions(memories.database, clock)
    chats = {
        name: sessions.for_tenant(scope).create(NewSession(name)).id for name, scope in (("ann", A), ("bob", A), ("eve", B))
    }
    sessions.for_tenant(A).append(chats["ann"], [NewTurn("user", "I live in Berlin")])
    row = handle.one(Fact("Ann lives in Berlin", sources=(Source(chats["ann"], 1),))).version
    confirmed = handle.one(Fact("Ann lives in Berlin", sources=(Source(chats["ann"]),)))
    assert confirmed.sources == (Source(chats["ann"], 1), Source(chats["ann"]))
    assert [each.sources for each in handle.of.history(row.memory_id, after=None, limit=9)] == [
        (Source(chats["ann"], 1),),
        (Source(chats["ann"]),),
    ]
    for wrong in (
        Source(chats["ann"], 2),
        Source(chats["bob"]),
        Source(chats["eve"]),
        Source("ses_x"),
        Source(document_id="doc_x"),
    ):
        with pytest.raises(NotFound):
            handle.one(Fact("Ann sings", sources=(wrong,)))
        with pytest.raises(NotFound):
            handle.update(row.memory_id, sources=(wrong,))
    with pytest.raises(NotFound):
        handle.one("Ann sings", session_id=chats["bob"])
    handle.one("Ann is tired today", session_id=chats["ann"])
    assert handle.texts(Wanted("ann", session_id=chats["ann"])) == ["Ann is tired today"]
    with memories.database.write(A) as session:
        session.get_one(ChatSession, chats["ann"]).state = "expired"
    assert handle.texts() == handle.found("tired") == ["Ann lives in Berlin"]
    with pytest.raises(NotFound):
        handle.one("Ann is awake", session_id=chats["ann"])


def test_a_document_is_named_by_who_sees_it(handle: Handle, memories: Memories) -> None:
    space = SpaceRow(id="s", dimensions=3, description={}, created_at=0)
    with memories.database.system_write() as session:
        session.add(space)
    with memories.database.write(A) as session:
        common: dict[str, Any] = {"tenant_id": "a", "created_at": 0}
        session.add(Collection(id="col_1", name="red", space_id="s", generation=1, **common))
        session.flush()
        session.add(Document(id="doc_1", collection_id="col_1", external_id="x", last_number=1, **common))
        session.flush()
        given: dict[str, Any] = {
            "title": "",
            "media_type": "text/plain",
            "attributes": {},
            "labels": ["x"],
            "chunking": {},
            **common,
        }
        version = {"id": "ver_1", "document_id": "doc_1", "number": 1, "digest": "", "bytes": 1, "content_blob": ""}
        session.add(DocumentVersion(**version, **given))
        session.flush()
        session.get_one(Document, "doc_1").live_version_id = "ver_1"
    fact = Fact("Ann is in the register", sources=(Source(document_id="doc_1"),))
    assert handle.one(fact).sources == fact.sources
    for scope in (FakeScope("a", collections=frozenset({"blue"})), FakeScope("a", labels=frozenset({"y"})), B):
        with pytest.raises(NotFound):
            Handle(memories, scope).one(fact)
    assert Handle(memories, FakeScope("a", collections=frozenset({"red"}), labels=frozenset({"x"}))).one(fact)


def test_what_is_to_be_forgotten_is_so_at_its_time_and_swept(
    handle: Handle, memories: Memories, clock: SetClock, told: list[tuple[str, str]]
) -> None:
    row = handle.one(Fact("Ann is on holiday", key="status", expires_at=NOON + 1000)).version
    handle.update(row.memory_id, text="Ann is on a long holiday")
    kept = handle.one(Fact("Ann sings", expires_at=NOON + 1000)).version
    handle.update(kept.memory_id, expires_at=None)
    bobs = handle.one(Fact("Bob is ill", expires_at=NOON + 1000), subject="bob").version
    Handle(memories, B).one("Ann is on holiday")
    deleted = handle.one("Ann is gone").version
    handle.of.delete(deleted.memory_id)
    clock.now += 1000
    assert handle.texts(EVERYTHING) == ["Ann sings"]
    assert handle.texts(Wanted("ann", as_of=NOON)) == ["Ann sings"]
    with pytest.raises(NotFound):
        handle.history(row.memory_id)
    again = handle.one(Fact("Ann is on holiday", key="status")).version
    assert again.memory_id != row.memory_id
    retracted = list[tuple[str, str, list[str]]]()

    def retract(_session: object, tenant_id: str, subject: str, memory_ids: Sequence[str]) -> None:
        retracted.append((tenant_id, subject, [*memory_ids]))

    parts = memories.database, clock, memories.embedding, lambda tenant, _: FakeScope(tenant), memories.tell, retract
    sweep = MemorySweep(*parts)
    told.clear()
    assert (sweep.run_once(), sweep.run_once()) == (2, 0)
    assert retracted == [("a", "ann", [row.memory_id]), ("a", "bob", [bobs.memory_id])]
    assert {event for event, _ in told} == {"memory.deleted"}
    assert len(handle.history(deleted.memory_id)) == 2
    clock.now += 40 * 24 * 3600 * 1000
    assert sweep.run_once() == 1
    with pytest.raises(NotFound):
        handle.history(deleted.memory_id)
    assert sorted(handle.texts(EVERYTHING)) == ["Ann is on holiday", "Ann sings"]
    assert len(Handle(memories, B).texts()) == 1


AT_ONCE = 6


def test_adds_of_one_key_at_once_leave_one_that_holds(memories: Memories) -> None:
    start = threading.Barrier(AT_ONCE)

    def add(number: int) -> str:
        handle = Handle(memories)
        start.wait(20)
        return handle.one(Fact(f"Ann lives in city {number}", key="home_city")).version.memory_id

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ids = set(pool.map(add, range(AT_ONCE)))
    handle = Handle(memories)
    assert len(ids) == AT_ONCE
    assert len(handle.texts()) == 1
    everything = handle.of.page(EVERYTHING, after=None, limit=100)[0]
    assert sum(each.version.valid_to is None for each in everything) == 1
    start.reset()

    def same(_: int) -> str:
        handle = Handle(memories)
        start.wait(20)
        return handle.add("Ann has a boat", subject="bob").placed[0].outcome

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert sorted(pool.map(same, range(AT_ONCE))) == ["added", *["confirmed"] * (AT_ONCE - 1)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "update", "delete"]),
        st.integers(0, 4),
        st.sampled_from(["home", "job", None]),
        st.integers(-5, 5),
    ),
    max_size=12,
)


@ON_SQLITE
@given(steps=STEPS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_history_is_a_chain_and_a_key_has_one_fact_at_any_time(
    memories: Memories, clock: SetClock, steps: list[tuple[str, int, str | None, int]]
) -> None:
    """After any changes; and what was answered at each moment is what `as_of` that moment answers later."""
    subject = f"subject {clock.now}"
    handle, answered, ids = Handle(memories), dict[int, list[str]](), list[str]()
    for action, number, key, offset in steps:
        clock.now += 10
        try:
            if action == "add" or not ids:
                fact = Fact(f"Value {number}", key=key, valid_from=clock.now + 20 * offset)
                ids.append(handle.one(fact, subject=subject).version.memory_id)
            elif action == "update":
                handle.update(ids[number % len(ids)], text=f"Value {number}", key=key)
            else:
                gone = ids.pop(number % len(ids))
                handle.of.delete(gone)
                answered.clear()  # of what is deleted nothing is said at any time
        except (InvalidInput, NotFound):
            pass
        ids = [*dict.fromkeys(ids)]
        answered[clock.now] = sorted(handle.texts(Wanted(subject)))
    for moment, texts in answered.items():
        assert sorted(handle.texts(Wanted(subject, as_of=moment))) == texts
    with memories.database.read(A) as session:
        rows = session.scalars(sa.select(MemoryVersion).where(col(MemoryVersion.subject) == subject)).all()
    chains: dict[str, list[MemoryVersion]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        chains.setdefault(row.memory_id, []).append(row)
    for chain in chains.values():
        assert [row.number for row in chain] == [*range(1, len(chain) + 1)]
        assert [row.replaced_at for row in chain] == [*(row.recorded_at for row in chain[1:]), None]
    for moment in range(clock.now - 130, clock.now + 130, 17):
        for wanted in (
            Wanted(subject, valid_at=moment),
            *([Wanted(subject, valid_at=moment, as_of=clock.now - 30)] if answered else []),
        ):
            keys = [each.version.key for each in handle.of.page(wanted, after=None, limit=100)[0] if each.version.key]
            assert len(keys) == len(set(keys))
    clock.now += 1000
