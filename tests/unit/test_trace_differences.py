"""Two answers side by side: which passages are the same, and figures that can be reckoned by hand."""

from __future__ import annotations

import random

import pytest

from rag.traces.difference import RBO_P, Place, difference, rank_biased_overlap


def place(name: str, rank: int, *, document: str = "doc", start: int = 0, end: int = 10, score: float = 0.5) -> Place:
    return Place(name, document, start, end, score, rank)


def test_equal_answers_are_no_difference_and_every_change_is_one() -> None:
    one, two = place("a", 1), place("b", 2, start=10, end=20)
    assert difference([one, two], [one, two]).is_empty
    assert difference([], []).is_empty
    swapped = difference([one, two], [place("b", 1, start=10, end=20), place("a", 2)])
    assert [(row.change, row.shared) for row in swapped.rows] == [("moved", 1.0), ("moved", 1.0)]
    assert (swapped.is_empty, swapped.overlaps[5], swapped.shared) == (False, 1.0, 1.0)
    scored = difference([one], [place("a", 1, score=0.5 + 1e-15)])
    assert (scored.is_empty, scored.count("same")) == (False, 1)
    assert 0 < scored.score_difference < 1e-12
    lost = difference([one, two], [one])
    assert [row.change for row in lost.rows] == ["same", "gone"]
    assert (lost.overlaps[5], lost.shared, lost.is_empty) == (0.5, 0.5, False)


def test_what_was_cut_otherwise_is_paired_by_document_and_shared_text() -> None:
    then = [place("old", 1, start=0, end=100), place("elsewhere", 2, document="other", start=0, end=100)]
    now = [place("new-b", 1, start=50, end=100), place("new-a", 2, start=0, end=40), place("far", 3, start=200, end=300)]
    found = difference(then, now)
    assert [(row.change, row.then and row.then.id, row.now and row.now.id) for row in found.rows] == [
        ("overlaps", "old", "new-b"),
        ("came", None, "new-a"),
        ("gone", "elsewhere", None),
        ("came", None, "far"),
    ]
    assert found.rows[0].shared == 0.5
    assert found.shared == pytest.approx(90 / 300)
    assert found.overlaps[5] == pytest.approx(1 / 3)
    assert found.score_difference == 0.0
    assert not found.is_empty


def test_a_passage_that_is_there_is_paired_with_itself_before_anything_else() -> None:
    found = difference([place("a", 1), place("b", 2)], [place("b", 1), place("c", 2)])
    assert [(row.change, row.then and row.then.id) for row in found.rows] == [("moved", "b"), ("overlaps", "a")]


def test_rank_biased_overlap_is_what_the_paper_says() -> None:
    assert rank_biased_overlap("abc", "abc") == pytest.approx(1.0)
    assert rank_biased_overlap("abc", "xyz") == 0.0
    assert (rank_biased_overlap("", ""), rank_biased_overlap("a", "")) == (1.0, 0.0)
    # by hand: agreements 0, 1, 1 at depths 1 to 3
    p = RBO_P
    assert rank_biased_overlap("abc", "bac") == pytest.approx((1 - p) / p * (p**2 + p**3) + p**3)
    # of unequal lengths: `ab` is the beginning of `abcd`, and nothing speaks against it
    assert rank_biased_overlap("ab", "abcd") == pytest.approx(1.0)
    assert rank_biased_overlap("ab", "xyab") == rank_biased_overlap("xyab", "ab")
    first, last = rank_biased_overlap("abcdefgh", "xbcdefgh"), rank_biased_overlap("abcdefgh", "abcdefgx")
    assert first < last < 1


def test_measures_stay_within_bounds_whatever_is_compared() -> None:
    chance = random.Random(2026)
    for _ in range(200):
        sides = []
        for side in "xy":
            names = chance.sample("abcdefghij", chance.randrange(8))
            sides.append(
                [
                    place(
                        chance.choice((name, name + side)),
                        rank,
                        document=chance.choice("mn"),
                        start=(start := chance.randrange(50)),
                        end=start + chance.randrange(1, 50),
                    )
                    for rank, name in enumerate(names, 1)
                ]
            )
        found = difference(*sides)
        assert sorted(row.then.rank for row in found.rows if row.then) == [*range(1, len(sides[0]) + 1)]
        assert sorted(row.now.rank for row in found.rows if row.now) == [*range(1, len(sides[1]) + 1)]
        assert all(0 <= value <= 1 for value in (found.rbo, found.shared, *found.overlaps.values()))
        assert difference(sides[0], sides[0]).is_empty
