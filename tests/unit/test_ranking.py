"""How two rankings become one."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.ranking import SUPPORTED, Fusion, Leg, Ranked, fuse, supported
from rag.store.base import Hit, Vector, in_order


def leg(name: str, scores: dict[str, float], *, cut_off: bool = False) -> Leg:
    return Leg(name, in_order([Hit(chunk, score, "doc") for chunk, score in scores.items()]), cut_off)  # type: ignore[arg-type]


def order(legs: list[Leg], fusion: Fusion | None = None, *, unspaced: bool = False) -> list[str]:
    return [ranked.id for ranked in fuse(legs, fusion or Fusion(), unspaced=unspaced)]


def test_scores_are_fused_by_the_formula() -> None:
    [first, second] = fuse([leg("dense", {"a": 0.8, "b": 0.5}), leg("lexical", {"a": 2.0, "b": 8.0})], Fusion())
    assert (first.id, second.id) == ("b", "a")
    assert first.score == pytest.approx(0.7 * 1.5 / 1.8 + 0.3)
    assert second.score == pytest.approx(0.7 + 0.3 * 2 / 8)
    assert (second.places["lexical"].rank, second.places["lexical"].score) == (2, 2.0)


def test_questions_without_blanks_weigh_the_legs_otherwise() -> None:
    legs = [leg("dense", {"a": 0.9, "b": 0.3}), leg("lexical", {"a": 6.5, "b": 10.0})]
    assert order(legs) == ["a", "b"]
    assert order(legs, Fusion(unspaced_dense_weight=0.2), unspaced=True) == ["b", "a"]


def test_what_one_leg_lacks_counts_there_as_its_last_hit_if_it_was_cut_off() -> None:
    dense, lexical = {"a": 0.9, "b": 0.4}, {"c": 4.0, "a": 1.0}
    [score] = [
        each.score for each in fuse([leg("dense", dense, cut_off=True), leg("lexical", lexical)], Fusion()) if each.id == "c"
    ]
    assert score == pytest.approx(0.7 * 1.4 / 1.9 + 0.3)
    [score] = [
        each.score for each in fuse([leg("dense", dense), leg("lexical", lexical, cut_off=True)], Fusion()) if each.id == "b"
    ]
    assert score == pytest.approx(0.7 * 1.4 / 1.9 + 0.3 / 4)


def test_ranks_are_fused_by_their_weights() -> None:
    legs = [leg("dense", {"a": 0.9, "b": 0.8}), leg("lexical", {"b": 5.0, "c": 4.0})]
    fused = fuse(legs, Fusion(method="rrf", dense_weight=0.5))
    assert [each.id for each in fused] == ["b", "a", "c"]
    assert fused[0].score == pytest.approx(0.5 * 61 / 62 + 0.5)
    assert order(legs, Fusion(method="rrf", dense_weight=1.0))[0] == "a"


def test_one_leg_alone_keeps_its_scores_and_none_is_nothing() -> None:
    assert [(each.id, each.score) for each in fuse([leg("lexical", {"a": 1.5, "b": 2.5})], Fusion())] == [
        ("b", 2.5),
        ("a", 1.5),
    ]
    assert fuse([], Fusion()) == []
    assert order([leg("dense", {}), leg("lexical", {"a": 1.0})]) == ["a"]
    assert order([leg("dense", {"a": -1.0}), leg("lexical", {})]) == ["a"]


_HITS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.25, 0.5, 1.0]))


@given(_HITS, _HITS, st.sampled_from(["score", "rrf"]), st.booleans())
def test_every_candidate_is_ranked_once_and_ties_go_by_id(
    dense: dict[str, float], lexical: dict[str, float], method: str, cut_off: bool
) -> None:
    legs = [leg("dense", dense, cut_off=cut_off), leg("lexical", lexical, cut_off=cut_off)]
    fused = fuse(legs, Fusion(method=method))  # type: ignore[arg-type]
    assert sorted(each.id for each in fused) == sorted({*dense, *lexical})
    assert fused == sorted(fused, key=lambda each: (-each.score, each.id))
    assert all(0 <= each.score <= 1 + 1e-9 for each in fused)


def ranked(scores: dict[str, float]) -> list[Ranked]:
    return [Ranked(chunk, score, {}) for chunk, score in sorted(scores.items(), key=lambda each: (-each[1], each[0]))]


def at(degrees: float) -> Vector:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def test_what_lies_among_good_candidates_passes_what_lies_alone() -> None:
    angles = {"best": 0, "near": 3, "nearby": 6, "close": 354, "n5": 9, "n6": 351, "alone": 90}
    scores = {"best": 0.9, "alone": 0.8, "near": 0.79, "nearby": 0.7, "close": 0.6, "n5": 0.6, "n6": 0.6}
    before = ranked(scores)
    after = supported(before, {chunk: at(angle) for chunk, angle in angles.items()}, 0.25)
    assert [each.id for each in before][:3] == ["best", "alone", "near"]
    assert [each.id for each in after][:3] == ["best", "near", "alone"]
    assert {each.id: each.fused for each in after} == scores
    two = supported(ranked({"a": 0.8, "b": 0.4}), {"a": at(0), "b": at(60)}, 0.25)
    assert [each.score for each in two] == [pytest.approx(0.75 * 0.8 + 0.25 * 0.4), pytest.approx(0.75 * 0.4 + 0.25 * 0.8)]


def test_a_candidate_has_the_mean_of_its_five_nearest() -> None:
    scores = {"a": 1.0, "b": 0.8, "c": 0.6, "d": 0.4, "e": 0.2, "f": 0.0}
    after = supported(ranked(scores | {"far": 0.9}), {**dict.fromkeys(scores, at(0)), "far": at(90)}, 0.5)
    assert {each.id: each.score for each in after}["a"] == pytest.approx(0.5 * 1.0 + 0.5 * (0.8 + 0.6 + 0.4 + 0.2 + 0.0) / 5)


def test_who_has_no_vector_or_stands_too_far_behind_keeps_its_score() -> None:
    before = ranked({f"c{number:03}": 1 - number / 100 for number in range(SUPPORTED + 5)})
    vectors = {each.id: at(number) for number, each in enumerate(before) if number != 3}
    kept = {each.id: each.score for each in supported(before, vectors, 0.5) if each.fused is None}
    assert kept == {each.id: each.score for each in (before[3], *before[SUPPORTED:])}
    assert supported(before, {}, 0.5) == before
    assert supported(before, {"c000": at(0)}, 0.5) == before


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0]), max_size=40), st.randoms(use_true_random=False))
def test_support_keeps_every_candidate_within_the_scores_and_ties_by_id(scores: list[float], random: Random) -> None:
    before = ranked({f"c{number:02}": score for number, score in enumerate(scores)})
    vectors = {each.id: at(random.choice([0, 0, 45, 90, 180])) for each in before}
    after = supported(before, vectors, 0.25)
    assert sorted(each.id for each in after) == sorted(each.id for each in before)
    assert all(min(scores) - 1e-9 <= each.score <= max(scores) + 1e-9 for each in after)
    assert after == sorted(after, key=lambda each: (-each.score, each.id))
