"""Answers are given again while they are what a search would find, to nobody else, and never in more memory than allowed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from config.database import Database
from ingestion.removal.collections import Removal
from rag.arranging.wishes import Recency, Wishes
from rag.corpus import Collection
from rag.filters import parse
from rag.result_cache import ResultCache
from rag.result_shelves import MAX_COMPARED, Kept, Shelf, Shelves
from rag.retrieval import retriever
from rag.retrieval.question import Answer, Question
from rag.store.base import Vector
from rag.store.memory import MemoryStore
from tenants.context import TenantContext
from tests.properties.test_packing import passage
from tests.support import FreeMeter
from tests.world import TENANTS, World

ASH, ELM = TENANTS
MIB = 1024 * 1024


class CountingMeter(FreeMeter):
    def __init__(self) -> None:
        super().__init__()
        self.known: list[tuple[int, int, int]] = []

    def strained(self) -> bool:
        return False

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None:
        self.known.append((cached, deduplicated, hits))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'carrel.db'}", synchronous="off")
    world = World(database, MemoryStore(), tmp_path)
    world.retriever.results = ResultCache(MIB)
    for name in TENANTS:
        world.bring(name, "rules", f"Loans of {name} last four weeks.", attributes={"year": 1})
        world.bring(name, "secret", f"Loans of {name} to the board never end.", labels=["board"])
    world.run_jobs()
    yield world
    world.close()
    database.close()


def ask(world: World, who: str | TenantContext, text: str = "how long are loans?", **fields: object) -> Answer:
    context = world.contexts[who] if isinstance(who, str) else who
    question = Question(text, ("default",), **fields)  # type: ignore[arg-type]
    return world.retriever.for_tenant(context, FreeMeter()).query(question, charge_id="q")


def found(answer: Answer) -> list[str]:
    return sorted(passage.text for passage in answer.passages)


def test_a_repeated_question_costs_nothing_and_says_so(world: World) -> None:
    first, meter = ask(world, ASH), CountingMeter()
    question = Question("how long are loans?", ("default",))
    again = world.retriever.for_tenant(world.contexts[ASH], meter).query(question, charge_id="again")
    assert (first.reused, again.reused, again.similarity) == (False, True, None)
    assert again.passages == first.passages
    assert (first.charged, again.charged, again.cached) == (again.cached, 0, first.charged)
    assert (meter.paid, meter.known) == ({}, [(first.charged, 0, 1)])


def test_another_tenant_is_answered_from_its_own(world: World) -> None:
    ask(world, ASH)
    other = ask(world, ELM)
    assert not other.reused
    assert all("elm" in text for text in found(other))
    assert set(world.retriever.results.held()) == {world.contexts[ASH].tenant_id, world.contexts[ELM].tenant_id}


def test_labels_and_every_option_are_part_of_the_question(world: World) -> None:
    ask(world, ASH)
    bare = replace(world.contexts[ASH], labels=frozenset())
    assert found(ask(world, bare)) == ["Loans of ash last four weeks."]
    assert ask(world, bare).reused
    assert not ask(world, replace(bare, labels=frozenset({"board"}))).reused
    for fields in (
        {"top_k": 1},
        {"filter": parse({"key": "year", "op": "eq", "value": 1})},
        {"filter": parse({"key": "year", "op": "eq", "value": 2})},
        {"wishes": Wishes(per_document=1)},
        {"others": ("loans",)},
        {"rerank": False},
    ):
        assert not ask(world, ASH, **fields).reused, fields
        assert ask(world, ASH, **fields).reused, fields


def test_what_depends_on_the_time_is_not_kept(world: World) -> None:
    wishes = Wishes(recency=Recency(0.1, 30))
    assert not ask(world, ASH, wishes=wishes).reused
    assert not ask(world, ASH, wishes=wishes).reused


def test_nor_what_a_collection_is_tuned_to_order_by_the_time(world: World) -> None:
    for parameters, kept in (({"dense_weight": 0.5}, True), ({"recency": {"weight": 0.1, "half_life_days": 30}}, False)):
        world.change(ASH, sa.update(Collection).values(tuning={"version": 1, "parameters": parameters}))
        for fields, reused in (({}, kept), ({"tuned": False}, True)):
            ask(world, ASH, **fields)
            assert ask(world, ASH, **fields).reused is reused, (parameters, fields)
    ask(world, ELM)
    assert ask(world, ELM).reused


def test_a_write_a_delete_and_a_setting_make_answers_stale(world: World) -> None:
    ask(world, ASH), ask(world, ELM)
    world.bring(ASH, "rules", "Loans of ash last five weeks.")
    assert ask(world, ASH).reused  # nothing has changed until the job is done
    world.run_jobs()
    changed = ask(world, ASH)
    assert not changed.reused
    assert "Loans of ash last five weeks." in found(changed)
    world.of(ASH).delete(next(p.document_id for p in changed.passages if p.external_id == "rules"))
    assert found(ask(world, ASH)) == ["Loans of ash to the board never end."]
    ask(world, ASH)
    world.retriever.collections.for_tenant(world.contexts[ASH]).update("default", profile="precise")
    assert not ask(world, ASH).reused
    assert ask(world, ELM).reused, "another tenant's writes are none of its business"


def test_a_collection_that_was_removed_and_made_anew_answers_nothing_of_before(world: World) -> None:
    for name in TENANTS:
        allow(world, name, semantic_cache=True, semantic_threshold=0.9)
        ask(world, name)
        ask(world, name, NEAR.format("May"))
    for document in {each.document_id for each in ask(world, ASH).passages}:
        world.of(ASH).delete(document)
    world.run_jobs()
    collections = world.retriever.collections
    Removal(world.database, collections).remove(world.contexts[ASH], "default")
    collections.for_tenant(world.contexts[ASH]).create("default", semantic_cache=True, semantic_threshold=0.9)
    for text in ("how long are loans?", NEAR.format("June")):
        anew = ask(world, ASH, text)
        assert (anew.passages, anew.reused) == ((), False)
    assert ask(world, ELM).reused


def test_a_write_during_a_search_leaves_nothing_stale_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both orders: the answer holds what was before the write, or after it; kept it is as of before."""
    embed = world.embedding.embed_queries

    def written_meanwhile(*args: object, **kwargs: object) -> object:
        monkeypatch.undo()
        world.bring(ASH, "rules", "Loans of ash last six weeks.")
        world.run_jobs()
        return embed(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(world.embedding, "embed_queries", written_meanwhile)
    ask(world, ASH)
    assert not ask(world, ASH).reused
    assert "Loans of ash last six weeks." in found(ask(world, ASH))


def test_an_answer_that_began_before_a_newer_one_was_seen_is_not_kept() -> None:
    shelves = Shelves(MIB)
    shelves.put("ash", b"new", Kept((passage("new"),), 1, {"col": (2,)}))
    shelves.put("ash", b"old", Kept((passage("old"),), 1, {"col": (1,)}))
    shelf = shelves.of("ash", {"col": (2,)})
    assert shelf is not None
    assert (shelf.get(b"old"), len(shelf)) == (None, 1)
    assert shelves.of("ash", {"col": (3,)}) is not None
    assert (dict(shelves), shelves.bytes) == ({}, 0)


def test_a_degraded_answer_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever, "uncounted", lambda *_: True)
    assert ask(world, ASH).degraded == ("lexical",)
    monkeypatch.undo()
    assert not ask(world, ASH).reused


def test_repaired_points_are_found_by_who_asked_without_them(world: World) -> None:
    world.vectors(ASH).delete_points(world.vectors(ASH).ids())
    assert found(ask(world, ASH)) == []
    world.reconciler.check(repair=True)
    assert len(found(ask(world, ASH))) == 2


def test_zero_keeps_nothing(world: World) -> None:
    world.retriever.results = ResultCache(0)
    ask(world, ASH)
    assert not ask(world, ASH).reused
    assert world.retriever.results.held() == {}


def kept(number: int, *, bytes_: int = 2_000, collection: str = "col") -> Kept:
    return Kept((passage(str(number).ljust(bytes_)),), 1, {collection: (1,)})


def test_the_shelves_are_bounded_and_the_largest_gives_way() -> None:
    shelves = Shelves(200_000)
    for number in range(15):
        shelves.put("elm", b"%d" % number, kept(number))
    fair = dict(shelves)["elm"].bytes
    for number in range(1_000):
        shelves.put("ash", b"%d" % number, kept(number))
        assert shelves.bytes == sum(shelf.bytes for _, shelf in shelves) <= 200_000
    assert dict(shelves)["elm"].bytes == fair, "who holds less than a share loses nothing"
    assert dict(shelves)["ash"].get(b"999") is not None
    assert dict(shelves)["ash"].get(b"0") is None
    shelves.put("ash", b"huge", kept(0, bytes_=100_000))
    assert dict(shelves)["ash"].get(b"huge") is None, "one answer does not push out all others"


def test_of_a_tenant_that_changed_nothing_is_kept() -> None:
    cache, states = ResultCache(200_000), {"col": (1,)}
    for name in ("ash", "elm", "oak"):
        cache.put(name, b"key", kept(1))
    cache.forget("ash")
    cache.forget("key_of_somebody")
    assert cache.get("ash", b"key", states) is None
    assert cache.get("elm", b"key", states) is not None
    cache.put("ash", b"key", kept(1))
    assert cache._shelves.bytes == sum(cache.held().values())
    cache.forget(None)
    assert (cache.held(), cache._shelves.bytes) == ({}, 0)


def test_what_is_counted_is_what_memory_takes() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    shelf = Shelf()
    for number in range(200):
        texts = [f"{number} {part} ".ljust(900) for part in range(10)]
        found = tuple(
            passage(text, ordinal=n, version=f"ver_{number:020}", attributes={f"k{number}": text[:50]})
            for n, text in enumerate(texts)
        )
        answer = Kept(found, 1, {f"col_{number}": (1, "x")}, b"g", np.ones(384, np.float32))
        shelf.put(b"%d" % number, answer, answer.bytes)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.7 * shelf.bytes < taken < 1.1 * shelf.bytes


def test_the_state_of_a_collection_is_held_once() -> None:
    shelf = Shelf()
    for number in range(9):
        shelf.put(b"%d" % number, replace(kept(number), states={"col": (1, {"year": "number"})}), 1)
    held = [shelf.get(b"%d" % number) for number in range(9)]
    assert len({id(each.states["col"]) for each in held if each is not None}) == 1
    shelf.see({"col": (1, {"year": "text"})})
    assert len(shelf) == 0


def towards(angle: float) -> Vector:
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def test_the_likest_question_is_found_within_bounds() -> None:
    shelf = Shelf()
    for number in range(MAX_COMPARED + 10):
        shelf.put(b"%d" % number, replace(kept(number), group=b"g", vector=towards(number / 200)), 1)
    [(cosine, key)] = [shelf.nearest(b"g", towards(100.2 / 200))]  # type: ignore[list-item]
    assert (key, round(cosine, 5)) == (b"100", 1.0)
    oldest = shelf.nearest(b"g", towards(0))
    assert oldest is not None
    assert oldest[1] == b"10", "only the last are compared"
    assert shelf.nearest(b"other options", towards(0)) is None
    shelf.see({"col": (2,)})
    assert (shelf.nearest(b"g", towards(0)), len(shelf), shelf.bytes) == (None, 0, 0)


NEAR = "what is the fee for the reading room of the old town library in the month of {} for adults and children alike?"


def allow(world: World, name: str, **settings: object) -> None:
    world.retriever.collections.for_tenant(world.contexts[name]).update("default", **settings)  # type: ignore[arg-type]


def test_near_questions_share_answers_only_where_that_was_chosen(world: World) -> None:
    for name in TENANTS:
        ask(world, name, NEAR.format("May"))
        assert not ask(world, name, NEAR.format("June")).reused
    allow(world, ASH, semantic_cache=True, semantic_threshold=0.9)
    first = ask(world, ASH, NEAR.format("May"))
    near = ask(world, ASH, NEAR.format("June"))
    # Another question, answered as this one: what the similarity is shown for.
    assert near.similarity is not None
    assert 0.9 <= near.similarity < 1
    assert (near.reused, near.passages) == (True, first.passages)
    assert near.charged > 0, "its vector was needed"
    assert not ask(world, ASH, NEAR.format("June"), top_k=3).reused
    assert not ask(world, replace(world.contexts[ASH], labels=frozenset()), NEAR.format("June")).reused
    assert not ask(world, ASH, "who feeds the cat?").reused
    assert not ask(world, ELM, NEAR.format("July")).reused
    allow(world, ASH, semantic_threshold=1.0)
    ask(world, ASH, NEAR.format("May"))
    assert not ask(world, ASH, NEAR.format("June")).reused


def test_a_near_questions_answer_goes_stale_as_any_other(world: World) -> None:
    allow(world, ASH, semantic_cache=True, semantic_threshold=0.9)
    ask(world, ASH, NEAR.format("May"))
    assert ask(world, ASH, NEAR.format("June")).similarity is not None
    world.bring(ASH, "rules", "The fee of ash is nothing.")
    world.run_jobs()
    after = ask(world, ASH, NEAR.format("June"))
    assert not after.reused
    assert "The fee of ash is nothing." in found(after)
