"""How two rankings become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.ranking import Fusion, Leg, fuse
from rag.store.base import Hit, in_order


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
