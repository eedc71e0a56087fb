"""Questions by words and by meaning, in a service of two tenants without its processes."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from config.database import Database
from config.errors import ModelUnavailable
from ingestion.repair.terms import recount
from rag.corpus import Chunk, Collection, Document, TermCounts
from rag.embedding.service import Embedded
from rag.lexical.counting import MERGED, TermStatistics, read_counts_of
from rag.lexical.statistics import CollectionStatistics, total
from rag.ranking import SUPPORTED, Fusion, Leg, fuse
from rag.retrieval.legs import alike
from rag.retrieval.question import Answer, Mode, Question
from rag.store.base import Hit, Vector
from rag.store.memory import MemoryStore, MemoryVectors
from rag.store.shards import EdgeStore
from tests.support import BuildsCopies, FreeMeter
from tests.world import World

POSTGRESQL_DAILY = False


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    made = World(database, MemoryStore(), tmp_path)
    yield made
    made.close()


def ask(world: World, name: str, text: str, *, mode: Mode = "hybrid", top_k: int = 5, explain: bool = False) -> Answer:
    question = Question(text, ("default",), top_k=top_k, mode=mode, explain=explain)
    return world.retriever.for_tenant(world.contexts[name], FreeMeter()).query(question, charge_id=str(uuid.uuid4()))


def bring(world: World, name: str, **texts: str) -> None:
    for external_id, text in texts.items():
        world.bring(name, external_id, text)
    world.run_jobs()


def counted(world: World, name: str) -> bool:
    """Whether what is stored is what the live chunks add up to."""
    with world.database.read(world.contexts[name]) as session:
        ids = session.scalars(sa.select(col(Collection.id))).all()
        return all(total([*read_counts_of(session, each).values()]) == recount(session, each) for each in ids)


def test_a_word_finds_its_document_whatever_the_vectors_say(world: World) -> None:
    bring(world, "ash", one="The error is QX-4711.", two="Quite another thing.", three="Errors happen, as QX-4712.")
    bring(world, "elm", one="QX-4711 belongs to elm.")
    answer = ask(world, "ash", "what is QX-4711?", mode="lexical")
    assert [passage.external_id for passage in answer.passages] == ["one", "three"]  # which has a part of it
    assert answer.passages[0].score > 3 * answer.passages[1].score
    assert (answer.charged, answer.cached, answer.degraded) == (0, 0, ())
    assert ask(world, "ash", "what is QX-4711?").passages[0].external_id == "one"
    assert ask(world, "ash", "nobody's word: zyzzyva", mode="lexical").passages == ()


def test_an_answer_explains_itself(world: World) -> None:
    bring(world, "ash", **{f"d{n}": f"oak shelf number{n}" for n in range(8)})
    explanation = ask(world, "ash", "oak number3", top_k=2, explain=True).explanation
    assert explanation is not None
    assert [(leg.name, leg.hits) for leg in explanation.legs] == [("dense", 8), ("lexical", 8)]
    assert explanation.weights == {"dense": 0.7, "lexical": pytest.approx(0.3)}
    best = explanation.passages[0]
    assert best.legs["lexical"].rank == 1
    assert 0 < best.score <= 1
    assert best.fused is not None
    assert best.fused > best.score  # the others are worse
    assert explanation.candidates == 8
    assert explanation.dropped == {"beyond_top_k": 6}
    assert explanation.embedding == "model"
    assert explanation.timings_ms.keys() == {"collections", "words", "embedding", "engine", "fusion", "hydration", "arranging"}
    assert ask(world, "ash", "oak").explanation is None


def test_support_asks_for_own_vectors_of_the_best_and_can_be_turned_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in world.contexts:
        bring(world, name, **{f"d{n}": f"oak shelf number{n} of {name}" for n in range(SUPPORTED + 5)})
    asked: list[int] = []
    vectors_of = MemoryVectors.vectors

    def vectors(handle: MemoryVectors, ids: Sequence[str]) -> dict[str, Vector]:
        asked.append(len(ids))
        found = vectors_of(handle, ids)
        assert len(found) == len(ids)
        return found

    monkeypatch.setattr(MemoryVectors, "vectors", vectors)
    with_support = ask(world, "ash", "oak number3")
    ask(world, "ash", "oak number3", mode="dense")
    assert asked == [SUPPORTED]
    profiles = world.retriever.collections.profiles
    standard = profiles.get("standard")
    monkeypatch.setitem(profiles._named, "standard", replace(standard, fusion=replace(standard.fusion, support=0.0)))
    without = ask(world, "ash", "oak number3", explain=True)
    assert asked == [SUPPORTED]
    assert without.explanation is not None
    assert {passage.fused for passage in without.explanation.passages} == {None}
    assert without.passages[0].score == pytest.approx(1.0)
    assert with_support.passages[0].score < 1


def test_a_phrasing_without_known_words_is_ranked_by_the_same_scores_as_the_others(world: World) -> None:
    for name in world.contexts:
        bring(world, name, one="An oak shelf.", two="A river.")
    for phrasings, weights in (
        (("quux", "oak shelf"), {"dense": 0.7, "lexical": 0.3}),
        (("oak shelf", "quux"), {"dense": 0.7, "lexical": 0.3}),
        (("quux", "corge"), {"dense": 1.0}),
    ):
        question = Question(phrasings[0], ("default",), others=phrasings[1:], explain=True)
        answer = world.retriever.for_tenant(world.contexts["ash"], FreeMeter()).query(question, charge_id="q")
        assert answer.explanation is not None
        assert answer.explanation.weights == pytest.approx(weights)
    words = Leg("lexical", [Hit("a", 4.0, "d")], False)
    known, unknown = [Leg("dense", [Hit("a", 0.5, "d")], False), words], [Leg("dense", [Hit("b", 0.4, "d")], False)]
    [first, second] = (fuse(each, Fusion()) for each in alike([known, unknown]))
    assert (first[0].score, second[0].score) == (pytest.approx(1.0), pytest.approx(0.7))
    assert alike([unknown, unknown]) == [unknown, unknown]
    assert alike([[], [words]]) == [[Leg("lexical", (), False)], [words]]


def test_what_was_dropped_is_counted_without_names(world: World) -> None:
    bring(world, "ash", gone="oak shelf", there="oak board")
    world.change("ash", sa.update(Document).where(col(Document.external_id) == "gone").values(deleted_at=1))
    answer = ask(world, "ash", "oak", explain=True)
    assert [passage.external_id for passage in answer.passages] == ["there"]
    assert answer.explanation is not None
    assert answer.explanation.dropped == {"not_current": 1, "beyond_top_k": 0}


def test_without_the_model_words_have_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(world, "ash", one="oak shelf", two="pine board")

    def unavailable(*_args: object, **_fields: object) -> Embedded:
        raise ModelUnavailable("The provider does not answer.")

    monkeypatch.setattr(world.embedding, "embed_queries", unavailable)
    answer = ask(world, "ash", "oak")
    assert [passage.external_id for passage in answer.passages] == ["one"]
    assert answer.degraded == ("dense",)
    for text, mode in (("oak", "dense"), ("zyzzyva", "hybrid")):
        with pytest.raises(ModelUnavailable):
            ask(world, "ash", text, mode=mode)  # type: ignore[arg-type]


def test_chunks_from_before_there_were_words_are_found_and_said_to_be_half(world: World) -> None:
    for name in world.contexts:
        bring(world, name, one="oak shelf", two="pine board")
    world.change("ash", sa.update(Chunk).values(terms=None), sa.delete(TermCounts))
    world.retriever.statistics = TermStatistics()
    answer = ask(world, "ash", "oak")
    assert len(answer.passages) == 2
    assert answer.degraded == ("lexical",)
    assert ask(world, "elm", "oak").degraded == ()
    kinds = {finding.kind for finding in world.reconciler.check(repair=True).findings}
    assert kinds == {"chunk_without_terms", "term_counts"}
    assert ask(world, "ash", "oak").degraded == ()
    world.check_invariants()


def test_each_collection_weighs_words_by_its_own_documents(world: World) -> None:
    collections = world.retriever.collections.for_tenant(world.contexts["ash"])
    collections.create("other")
    bring(world, "ash", a="oak pine", b="oak elm", c="oak ash")
    for number in range(3):
        world.bring("ash", f"o{number}", f"elm pine{number}", collection="other")
    world.run_jobs()
    retriever = world.retriever.for_tenant(world.contexts["ash"], FreeMeter())

    def scores(*names: str) -> dict[str, float]:
        answer = retriever.query(Question("oak pine", names, mode="lexical"), charge_id=str(uuid.uuid4()))
        return {passage.external_id: passage.score for passage in answer.passages}

    assert scores("default", "other") == {**scores("default"), **scores("other")}
    assert scores("default")["a"] > scores("default")["b"] > 0


def test_counts_follow_creates_updates_and_deletes_and_few_rows_hold_them(world: World) -> None:
    rng = random.Random(7)
    for step in range(24):
        name, document = rng.choice(["ash", "elm"]), f"d{rng.randrange(9)}"
        shown, _ = world.of(name).list(collection=None, after=None, limit=20)
        listed = {each.document.external_id: each.document.id for each in shown}
        if document in listed and rng.random() < 0.4:
            world.of(name).delete(listed[document])
        else:
            words = " ".join(f"word{rng.randrange(40)}" for _ in range(rng.randrange(1, 60)))
            world.bring(name, document, f"{words}\n\nstep {step}")
        if rng.random() < 0.7:
            world.run_jobs()
        assert counted(world, name)
    world.run_jobs()
    world.check_invariants()
    assert all(len(world.all(name, TermCounts)) < 4 * MERGED for name in world.contexts)


def test_kept_statistics_are_those_of_the_collection_now(world: World) -> None:
    bounded = TermStatistics(max_bytes=1)  # keeps nothing
    for number in range(6):
        bring(world, "ash", **{f"d{number}": f"oak pine{number}"})
        bring(world, "elm", **{f"d{number}": f"elm pine{number % 3}"})
        for statistics in (world.retriever.statistics, bounded):
            for name in ("ash", "elm"):
                with world.database.read(world.contexts[name]) as session:
                    [row] = session.scalars(sa.select(Collection)).all()
                    [kept] = statistics.of(session, [row]).values()
                    fresh = CollectionStatistics((recount(session, row.id),))
                assert kept.chunks == fresh.chunks == number + 1
                features = fresh.parts[0].features.tolist()
                assert kept.frequencies(features).tolist() == fresh.frequencies(features).tolist()
    assert not bounded._known
    assert len(world.retriever.statistics._known) == 2


@pytest.fixture(params=["memory", "edge"])
def neighbours(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[World]:
    store = MemoryStore() if request.param == "memory" else EdgeStore(tmp_path / "vectors", BuildsCopies())
    made = World(database, store, tmp_path)
    yield made
    made.close()
    store.close()


@pytest.mark.parametrize("chunks", [60, pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(1_200)])])
def test_another_tenants_documents_change_no_bit_of_a_score(neighbours: World, chunks: int) -> None:
    world = neighbours
    bring(world, "ash", **{f"d{n}": f"oak pine{n} board{n % 3}" for n in range(12)})
    texts = ("oak pine3", "board1 oak", "pine7")

    def scores() -> list[list[tuple[str, float]]]:
        world.retriever.statistics = TermStatistics()
        return [[(p.id, p.score) for p in ask(world, "ash", text, mode=mode).passages] for text in texts for mode in MODES]

    before = scores()
    for at in range(0, chunks // 3, 100):  # a paragraph is three chunks or more
        paragraphs = (f"oak pine{n} board{n % 5} " * 40 for n in range(at, min(at + 100, chunks // 3)))
        world.bring("elm", f"e{at}", "\n\n".join(paragraphs))
    world.run_jobs()
    assert len(world.all("elm", Chunk)) >= chunks
    assert scores() == before
    assert all(any(score for _, score in each) for each in before)


MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")
