"""After the search: what crowds is thinned, what is wanted is lifted, what is alike gives way, what stands beside comes."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.database import Database
from config.errors import InvalidInput
from rag.arranging.arranger import Arranger
from rag.arranging.diversity import diverse
from rag.arranging.relevance import Calibration, calibration_of
from rag.arranging.thinning import DAY_MS, shingles, similar, thinned
from rag.arranging.wishes import NONE, Boost, Recency, Wishes
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Fingerprint
from rag.filters import parse
from rag.ranking import Leg
from rag.rerank.base import RerankFailed
from rag.rerank.stage import Reranking
from rag.retrieval.question import Answer, Passage, Question
from rag.retrieval.telling import Found
from rag.store.base import Hit
from rag.store.memory import MemoryStore
from tests.properties.test_packing import passage
from tests.support import PATIENCE, FreeMeter
from tests.world import TENANTS, World

NOW = 1_800_000_000_000
PAGE = "The reading room opens at nine and closes at five, and on feast days it stays shut for everybody but the keepers. " * 2


JAPANESE = "図書館は九時に開きます。館内では飲食できません。"


@pytest.fixture
def world(sql_url: str, tmp_path: Path) -> Iterator[World]:
    database = Database(sql_url)
    world = World(database, MemoryStore(), tmp_path)
    yield world
    world.close()
    database.close()


def ask(world: World, name: str, text: str, *, top_k: int = 10, others: tuple[str, ...] = (), **wishes: object) -> Answer:
    question = Question(text, ("default",), top_k=top_k, others=others, wishes=Wishes(**wishes))  # type: ignore[arg-type]
    return world.retriever.for_tenant(world.contexts[name], FreeMeter()).query(question, charge_id=text)


def documents(answer: Answer) -> list[str]:
    return [found.external_id for found in answer.passages]


def test_what_was_not_asked_for_is_not_done() -> None:
    found = [passage("a"), passage("b", ordinal=1)]
    assert thinned(found, NONE, NOW) == found
    assert NONE.depth(7) == 7


def many_copies(world: World, count: int) -> None:
    """Each tenant has nearly equal documents by the hundred, and two others that are less near to the question."""
    for name in TENANTS:
        for number in range(count if name == TENANTS[0] else 3):
            world.bring(name, f"copy {number}", PAGE + f"Notice {number}.")
        paragraphs = [f"Paragraph {n}. The reading room. " + f"filler{n} word{n} " * 40 for n in range(30)]
        world.bring(name, "long", "\n\n".join(paragraphs))
        world.bring(name, "other", "Where the reading room opens there is a lamp, an umbrella stand and a map of the river.")
    world.run_jobs()


@pytest.mark.parametrize("wishes", [Wishes(collapse=True), Wishes(per_document=3), Wishes(collapse=True, per_document=3)])
def test_a_thousand_near_duplicates_fill_at_most_so_many_places(wishes: Wishes) -> None:
    crowd = [passage(PAGE + f"Notice {n}.", version="crowd", ordinal=n, score=0.9) for n in range(1000)]
    others = [passage(f"Lamp {n} of room {n * 7}.", version=f"other {n}", score=0.1) for n in range(5)]
    kept = Counter(p.version_id for p in thinned(crowd + others, wishes, NOW))
    assert kept["crowd"] == (1 if wishes.collapse else 3)
    assert len(kept) == 6


def test_copies_fill_one_place_and_a_document_as_many_as_it_may(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'carrel.db'}")
    world = World(database, MemoryStore(), tmp_path)
    many_copies(world, 40)
    one, two = TENANTS
    plain = documents(ask(world, one, PAGE, top_k=20))
    assert all(name.startswith("copy") for name in plain)
    collapsed = documents(ask(world, one, PAGE, top_k=20, collapse=True))
    assert len([name for name in collapsed if name.startswith("copy")]) == 1
    assert {"long", "other"} < set(collapsed)
    capped = Counter(documents(ask(world, one, PAGE, top_k=100, collapse=True, per_document=2)))
    assert capped["long"] == 2
    assert max(capped.values()) == 2
    grouped = ask(world, one, PAGE, top_k=3, collapse=True, group=4)
    assert documents(grouped)[0].startswith("copy")
    assert Counter(documents(grouped))["long"] == 4
    assert len(set(documents(grouped))) == 3
    assert "copy 30" not in documents(ask(world, two, PAGE, top_k=100))
    world.close()
    database.close()


def test_one_document_of_many_copies_fills_as_many_places_as_it_may(world: World) -> None:
    for name in TENANTS:
        world.bring(name, "crowd", "\n\n".join(PAGE + f"Notice {number}. " * 30 for number in range(40)))
        world.bring(name, "other", "A lamp and an umbrella stand.")
    world.run_jobs()
    for name in TENANTS:
        assert Counter(documents(ask(world, name, PAGE, top_k=5))) == {"crowd": 5}
        assert Counter(documents(ask(world, name, PAGE, top_k=5, per_document=2))) == {"crowd": 2, "other": 1}


def test_neighbours_stand_behind_their_passage_and_are_of_the_live_version(world: World) -> None:
    world.fill()
    for name in TENANTS:
        found = ask(world, name, f"Shelf 2 board 1 of {name}", top_k=1, before=1, after=1).passages
        assert {p.external_id for p in found} == {"one"}
        assert {p.version for p in found} == {2}
        main, *beside = found
        assert main.neighbour_of is None
        assert {p.neighbour_of for p in beside} == {main.id}
        assert {p.ordinal for p in found} <= {main.ordinal - 1, main.ordinal, main.ordinal + 1}
        _, text = world.of(name).text(main.document_id)
        assert all(text[p.start : p.end] == p.text for p in found)


def test_a_neighbour_that_was_found_itself_is_not_shown_twice(world: World) -> None:
    world.fill()
    for name in TENANTS:
        alone = ask(world, name, "oak pine shelf", top_k=100).passages
        beside = ask(world, name, "oak pine shelf", top_k=100, before=5, after=5).passages
        assert [p.id for p in alone] == [p.id for p in beside]


def test_several_phrasings_count_by_the_best(world: World) -> None:
    for name in TENANTS:
        world.bring(name, "lamp", f"The lamp of {name} burns oil.")
        world.bring(name, "river", f"The river of {name} freezes late.")
    world.run_jobs()
    for name in TENANTS:
        lamp, river = ask(world, name, "lamp burns oil"), ask(world, name, "river freezes late")
        both = ask(world, name, "lamp burns oil", others=("river freezes late",))
        best = {p.id: max(p.score, q.score) for p in lamp.passages for q in river.passages if p.id == q.id}
        assert {p.id: p.score for p in both.passages} == pytest.approx(best)
        assert both.charged == lamp.charged + river.charged


def test_an_unmeasured_model_has_no_relevance_and_refuses_a_threshold(world: World) -> None:
    world.fill()
    assert {p.relevance for p in ask(world, TENANTS[0], "oak").passages} == {None}
    with pytest.raises(InvalidInput) as refused:
        ask(world, TENANTS[0], "oak", min_relevance=0.5)
    assert refused.value.field == "min_relevance"


def test_relevance_rises_with_the_cosine_and_is_of_measured_models_alone() -> None:
    bundled = Fingerprint("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", "mean", True, 256, "bf16", 384)
    calibration = calibration_of(bundled)
    assert calibration is not None
    values = [calibration.of(cosine) for cosine in (-1.0, 0.0, 0.3, 0.74, 0.9, 1.0)]
    assert values == sorted(values)
    assert values[3] == pytest.approx(0.5)
    assert 0 < values[0] < values[-1] < 1
    for other in (replace(bundled, dimensions=128), replace(bundled, query_prompt="query: "), HashRuntime.fingerprint):
        assert calibration_of(other) is None


def test_boosts_and_age_move_passages_and_leave_their_scores() -> None:
    old = passage("old", created_at=NOW - 60 * DAY_MS, version="a", score=0.5, attributes={"kind": "policy"})
    new = passage("new", created_at=NOW, version="b", score=0.4)
    by_age = thinned([old, new], Wishes(recency=Recency(0.2, 30)), NOW)
    assert [(p.text, p.score, round(p.boost, 3)) for p in by_age] == [("new", 0.4, 0.2), ("old", 0.5, 0.05)]
    wanted = Boost(parse({"key": "kind", "op": "eq", "value": "policy"}), -0.3)
    assert [p.text for p in thinned([old, new], Wishes(boosts=(wanted,)), NOW)] == ["new", "old"]
    for wrong in (Boost(wanted.filter, 0.6), Boost(wanted.filter, float("nan"))):
        with pytest.raises(InvalidInput):
            Wishes(boosts=(wrong,))


def test_a_threshold_keeps_what_reaches_it() -> None:
    found = [passage("a", relevance=0.7), passage("b", relevance=0.5), passage("c", relevance=0.49), passage("d")]
    assert [p.text for p in thinned(found, Wishes(min_relevance=0.5), NOW)] == ["a", "b"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (PAGE + "1", PAGE + "2", True),
        (PAGE, PAGE.upper() + "!", True),
        (PAGE, PAGE[:60], False),
        ("Room 1 is on floor 2.", "Room 7 is on floor 3.", False),
        (
            "図書館は九時に開きます。館内では飲食できません。" * 3,
            "図書館は九時に開きます。館内では飲食できません。" * 3 + "又",
            True,
        ),
        ("図書館は九時に開きます。", "体育館は五時に閉まります。", False),
        ("", "", True),
        ("a", "b", False),
    ],
)
def test_nearly_equal_texts_are_told_from_others(one: str, other: str, same: bool) -> None:
    assert similar(shingles(one), shingles(other)) is same


def test_what_is_unlike_the_first_goes_before_its_twin() -> None:
    first, twin, other = (passage(text, version=text, score=score) for text, score in (("a", 0.9), ("b", 0.89), ("c", 0.5)))
    along, across = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    vectors = {first.id: along, twin.id: along, other.id: across}
    assert diverse([first, twin, other], vectors, 0.4, 2) == [first, other]
    assert diverse([first, twin, other], vectors, 1.0, 3) == [first, twin, other]
    assert diverse([first, twin, other], {}, 0.4, 3) == [first, twin, other]
    assert diverse([], {}, 0.5, 3) == []


ROW = st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))


@given(st.lists(ROW, max_size=12), st.floats(0, 1), st.integers(1, 20))
def test_diversity_takes_each_once_and_the_best_first(
    rows: list[tuple[float, float, float]], balance: float, limit: int
) -> None:
    found = sorted((passage("x", ordinal=n, score=row[0]) for n, row in enumerate(rows)), key=lambda p: (-p.score, p.id))
    vectors = {passage("x", ordinal=n).id: np.array(row[1:], np.float32) for n, row in enumerate(rows)}
    chosen = diverse(found, vectors, balance, limit)
    assert len(chosen) == min(limit, len(found)) == len({p.id for p in chosen})
    if found and balance > 0:
        assert chosen[0].score == found[0].score


def test_diversity_asks_the_store_of_its_tenant_alone(world: World) -> None:
    world.fill()
    for name in TENANTS:
        plain = ask(world, name, "oak pine shelf", top_k=3)
        mixed = ask(world, name, "oak pine shelf", top_k=3, mmr=0.3)
        assert len(mixed.passages) == 3
        assert mixed.passages[0].id == plain.passages[0].id
        assert all(name in p.text for p in mixed.passages)


def test_a_hundred_long_candidates_are_compared_in_a_moment() -> None:
    texts = [" ".join(f"w{(n * 7919 + at) % 5000}" for at in range(400)) for n in range(100)]
    found: list[Passage] = [passage(text, version=str(n)) for n, text in enumerate(texts)]
    began = time.process_time()
    thinned(found, Wishes(collapse=True), NOW)
    assert time.process_time() - began < 1.0 * PATIENCE


@dataclass
class Backwards:
    """The later of what it is given, the better; or it fails."""

    fails: bool = False
    name: str = "backwards"
    seen: list[int] = field(default_factory=list)

    def count_tokens(self, _query: str, texts: Sequence[str]) -> int:
        return len(texts)

    def scores(self, _query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        self.seen.append(len(texts))
        if self.fails:
            raise RerankFailed("late", began=deadline_s < 0)
        return [0.01 * place / len(texts) for place in range(len(texts))]

    def close(self) -> None: ...


def arranged(world: World, found: list[Passage], reranker: Backwards | None, **wishes: object) -> list[Passage]:
    context, top_k = world.contexts[TENANTS[0]], wishes.pop("top_k")
    question = Question("oak", ("default",), top_k=top_k, wishes=Wishes(**wishes))  # type: ignore[arg-type]
    reranking = None if reranker is None else Reranking(reranker, 1.0, 30)
    arranger = Arranger(world.database, context, FreeMeter())
    return arranger.arrange(question, found, world.vectors(TENANTS[0]), reranking, charge_id="q").passages


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
def test_a_reranker_looks_at_as_many_as_were_set_and_what_follows_stays_behind(world: World) -> None:
    found = [passage(f"{n}", version=f"{n:03}", id=str(uuid.UUID(int=n)), score=1 - n / 200) for n in range(120)]
    texts = [each.text for each in found]
    reranker = Backwards()
    best = arranged(world, found, reranker, top_k=10)
    assert (reranker.seen, [each.text for each in best]) == ([30], texts[29:19:-1])
    assert len(arranged(world, found, reranker, top_k=50)) == reranker.seen[-1] == 50
    some = arranged(world, found, reranker, top_k=10, mmr=1.0)
    assert [each.text for each in some] == texts[29:19:-1], "scores of two kinds are not compared"
    assert [each.text for each in arranged(world, found, Backwards(fails=True), top_k=40)] == texts[:40]


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("reranker", [None, Backwards(), Backwards(fails=True)])
@pytest.mark.parametrize("mmr", [None, 0.7])
def test_as_many_documents_as_were_asked_for_whatever_reorders_their_passages(
    world: World, reranker: Backwards | None, mmr: float | None
) -> None:
    found = [
        passage(f"{n}", version=f"doc {n // 3}", ordinal=n % 3, id=str(uuid.UUID(int=n)), score=1 - n / 400) for n in range(180)
    ]
    chosen = arranged(world, found, reranker, top_k=60, group=3, mmr=mmr)
    assert len({each.document_id for each in chosen}) == 60
    assert len(chosen) == 180


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
def test_a_threshold_looks_no_further_than_cosines_that_reach_it(world: World) -> None:
    world.retriever.calibration = Calibration(9.0, 0.7)
    handle = world.retriever.for_tenant(world.contexts[TENANTS[0]], FreeMeter())

    def more(least: float | None, *legs: Leg) -> bool:
        return handle._more(Question("oak", ("default",), wishes=Wishes(min_relevance=least)), Found(legs=[legs]))

    dense, words = Leg("dense", [Hit("a", 0.9, "d"), Hit("b", 0.7, "d")], True), Leg("lexical", [Hit("a", 3.0, "d")], True)
    assert more(None, dense, words)
    assert more(0.5, dense, words)
    assert not more(0.51, dense, words), "what comes after is less near, and words alone have no relevance"
    assert not more(0.1, replace(dense, cut_off=False), words)
    assert not more(0.1, words)


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
def test_few_documents_of_many_passages_are_grouped_in_one_round(world: World) -> None:
    """What is reranked or boosted are so many passages, not documents, which a collection may not have."""
    for name in TENANTS:
        for number in range(12 if name == TENANTS[0] else 1):
            world.bring(name, f"d{number}", "\n\n".join(f"Oak shelf {number} part {part}. " * 24 for part in range(8)))
    world.run_jobs()
    question = Question("oak shelf", ("default",), top_k=5, wishes=Wishes(group=3), explain=True)
    world.retriever.reranking = Reranking(Backwards(), 1.0, 30)
    answer = world.retriever.for_tenant(world.contexts[TENANTS[0]], FreeMeter()).query(question, charge_id="q")
    assert answer.explanation is not None
    assert (answer.explanation.rounds, len({found.document_id for found in answer.passages})) == (1, 5)
    assert {leg.hits for leg in answer.explanation.legs} == {68}, "there were more"
