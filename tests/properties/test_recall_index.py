"""The index of a conversation: whatever the order in which texts and vectors come, it is the one made of all of them at once,
and what it ranks is what plain arithmetic over the pooled texts ranks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.recall.ranking import Asked, Weights, best, rank, standard
from rag.recall.thread import BEFORE, NEAR, PAUSE_S, REACH, Item, Thread
from rag.recall.times import Span
from rag.store.base import Vector

DIMENSIONS = 8
WORDS = ("oak", "fern", "Ann", "shelf", "moss", "Ben:", "the", "ja", "café", "木の葉", "")
NOON = 1_773_144_000.0


def _vector(seed: int) -> Vector:
    found = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found), np.float32)


@st.composite
def conversations(draw: st.DrawFn) -> list[Item]:
    items, at = [], NOON
    for number in range(draw(st.integers(1, 14))):
        at += draw(st.sampled_from([0.0, 60.0, PAUSE_S + 1]))
        text = " ".join(draw(st.lists(st.sampled_from(WORDS), max_size=6)))
        group, speaker = draw(st.sampled_from("ggh")), draw(st.sampled_from(("Ann", "Ben", "")))
        items.append(Item(f"i{number}", text, at, speaker, group, draw(st.none() | st.integers(0, 9).map(_vector))))
    return items


def _bare(item: Item) -> Item:
    return replace(item, vector=None)


def _state(thread: Thread) -> tuple[object, ...]:
    arrays = (thread.at, thread.words, thread.places, thread.sittings, thread.speaker, thread.norms, thread.norms_before)
    return (thread.ids, thread.speakers, thread.languages, [each.tolist() for each in (*arrays, thread.vectors)])


@settings(max_examples=60, deadline=None)
@given(conversations(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_an_index_that_grew_is_the_one_that_is_made_at_once(items: list[Item], chance: object, piece: int) -> None:
    whole, grown = Thread(DIMENSIONS, items), Thread(DIMENSIONS)
    for first in range(0, len(items), piece):
        grown.extend(map(_bare, items[first : first + piece]))
    late = [item for item in items if item.vector is not None]
    assert grown.without_vector == [item.id for item in items]
    chance.shuffle(late)  # type: ignore[attr-defined]
    for item in late:
        grown.give(item.id, item.vector)  # type: ignore[arg-type]
        grown.give(item.id, _vector(99))  # it has one
    grown.give("another", _vector(1))
    assert _state(grown) == _state(whole)
    assert grown.without_vector == [item.id for item in items if item.vector is None]
    asked = Asked("Ann oak fern", _vector(3))
    assert [(hit.id, hit.legs) for hit in rank([grown], asked, limit=9)] == [
        (hit.id, hit.legs) for hit in rank([whole], asked, limit=9)
    ]


def _beside(items: list[Item], row: int, step: int) -> Item | None:
    """The item so many places away, if no sitting ends between."""
    low, high = sorted((row, row + step))
    if low < 0 or high >= len(items):
        return None
    pairs = zip(items[low:high], items[low + 1 : high + 1], strict=True)
    together = all(one.group == other.group and abs(one.at - other.at) <= PAUSE_S for one, other in pairs)
    return items[row + step] if together else None


@settings(max_examples=60, deadline=None)
@given(conversations(), st.integers(0, 9))
def test_cosines_are_those_of_the_pooled_vectors(items: list[Item], seed: int) -> None:
    thread, query = Thread(DIMENSIONS, items), _vector(seed)
    weights = Weights(0, 0, 0, 1, 0, 0, 0, 0, 0)
    before = Weights(0, 0, 0, 0, 1, 0, 0, 0, 0)
    hits = {hit.row: hit.score for hit in rank([thread], Asked("nothing", query), limit=99, weights=weights)}
    hits_before = {hit.row: hit.score for hit in rank([thread], Asked("nothing", query), limit=99, weights=before)}

    def cosine(row: int, steps: tuple[int, ...], weight: float) -> float | None:
        own = items[row].vector
        pool = np.zeros(DIMENSIONS) if own is None else own.astype(np.float64)
        for step in steps:
            other = _beside(items, row, step)
            if other is not None and other.vector is not None:
                pool = pool + weight * other.vector
        length = np.linalg.norm(pool)
        return float(pool @ query / length) if length > 1e-6 else None

    for found, steps, weight in ((hits, (-2, -1, 1, 2), NEAR), (hits_before, (-1,), BEFORE)):
        cosines = [cosine(row, steps, weight) for row in range(len(items))]
        known = [each for each in cosines if each is not None]
        filled = [np.mean(known) if each is None else each for each in cosines] if known else [0.0] * len(items)
        expected = standard(np.array(filled, np.float32))
        if np.std(filled) > 1e-3:
            assert [found[row] for row in range(len(items))] == pytest.approx(expected.tolist(), abs=2e-2)


@settings(max_examples=40, deadline=None)
@given(conversations())
def test_sessions_beside_one_another_rank_as_one_whose_silences_part_them(items: list[Item]) -> None:
    apart = [
        Item(item.id, item.text, item.at, item.speaker, f"{number // 4}", item.vector) for number, item in enumerate(items)
    ]
    threads = [Thread(DIMENSIONS, apart[at : at + 4]) for at in range(0, len(apart), 4)]
    one = Thread(DIMENSIONS, apart)
    if any(thread.languages.keys() != {"en"} for thread in (one, *threads)):
        return  # the language of a short text follows from those before it, in its session
    asked = Asked("fern and oak, Ann?", _vector(5), (Span(NOON, NOON + 100),))
    assert [(hit.id, pytest.approx(hit.score, abs=1e-4)) for hit in rank([one], asked, limit=5)] == [
        (hit.id, hit.score) for hit in rank(threads, asked, limit=5)
    ]


def test_what_is_not_allowed_is_not_answered() -> None:
    items = [Item(f"i{number}", f"oak {number}", NOON + number) for number in range(20)]
    thread = Thread(DIMENSIONS, items)
    hits = rank([thread], Asked("oak"), limit=50, allow=lambda each: each.at >= NOON + 15)
    assert sorted(hit.row for hit in hits) == [15, 16, 17, 18, 19]
    assert rank([thread, Thread(DIMENSIONS)], Asked("oak"), limit=0) == []
    assert rank([Thread(DIMENSIONS)], Asked("oak"), limit=3) == []


def test_a_short_answer_is_found_by_what_was_asked_before_it() -> None:
    said = [
        "Lovely weather.",
        "Where did you go on holiday?",
        "Lisbon, with Ben.",
        "Nice.",
        "So, about the shelf.",
        "It is oak.",
    ]
    items = [Item(f"i{number}", text, NOON + number, ("Ann", "Ben")[number % 2]) for number, text in enumerate(said)]
    assert "i2" in {hit.id for hit in rank([Thread(DIMENSIONS, items)], Asked("Which holiday was it?"), limit=3)}


def test_texts_of_other_groups_are_no_neighbours() -> None:
    items = [Item(f"i{number}", text, NOON, "", f"{number}") for number, text in enumerate(["holiday", "Lisbon", "oak"])]
    thread = Thread(DIMENSIONS, items)
    assert thread.places.tolist() == [0, 1 + REACH, 2 + 2 * REACH]
    hit = rank([thread], Asked("holiday"), limit=1)[0]
    assert (hit.id, hit.legs["around"]) == ("i0", pytest.approx(2**0.5, abs=1e-3))


def test_the_newer_of_two_that_say_the_same_comes_first_and_of_equals_the_earlier() -> None:
    same = [Item(f"i{number}", "oak shelf", NOON + number * 86_400, "", f"{number}") for number in range(3)]
    assert [hit.id for hit in rank([Thread(DIMENSIONS, same)], Asked("oak"), limit=3)] == ["i2", "i1", "i0"]
    flat = Weights(recency=0)
    assert [hit.id for hit in rank([Thread(DIMENSIONS, same)], Asked("oak"), limit=2, weights=flat)] == ["i0", "i1"]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, -np.inf]), min_size=1, max_size=30), st.integers(1, 31))
def test_the_best_are_those_of_a_whole_sorting(values: list[float], limit: int) -> None:
    scores = np.array(values, np.float32)
    order = sorted((row for row, value in enumerate(values) if value > -np.inf), key=lambda row: (-values[row], row))
    assert best(scores, limit) == order[:limit]
