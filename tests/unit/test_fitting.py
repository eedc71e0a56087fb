"""Judgments from opinions and stored questions, their division, and the search for better parameters."""

from __future__ import annotations

import pytest

from config.errors import InvalidInput
from rag.arranging.tuning import Tuning
from rag.evaluation.fitting import Attribute, Parameters, fit, telling
from rag.evaluation.judgments import judged, split, vote_of
from rag.evaluation.questions import Judged

POLICY: Attribute = ("kind", "policy")


def test_opinions_are_weighed_and_the_last_word_of_each_person_counts() -> None:
    def vote(document: str, useful: bool | None = None, rating: int | None = None, subject: str | None = None) -> object:
        return vote_of("How  long?", document, useful=useful, rating=rating, subject=subject)

    votes = [
        *(vote("good", True), vote("good", True), vote("good", False)),
        *(vote("even", True), vote("even", False)),
        *(vote("changed", False, subject="ann"), vote("changed", True, subject="ann")),
        *(vote("loud", True, subject="bob") for _ in range(9)),
        *(vote("loud", False, subject=name) for name in ("ann", "cat")),
        *(vote("middling", rating=3), vote("rated", rating=5), vote("poor", rating=2)),
    ]
    [found] = judged(votes, [])  # type: ignore[arg-type]
    assert found.relevant == {"good": 1, "changed": 1, "rated": 1}
    assert found.text == "How  long?"


def test_a_stored_question_judges_over_opinions_and_what_nothing_answers_is_no_question() -> None:
    votes = [vote_of("how long?", "a", useful=True, rating=None, subject=None)]
    votes += [vote_of("who?", "a", useful=False, rating=None, subject=None)]
    [found] = judged(votes, [Judged("1", "How long?", {"a": 3, "b": 1})])
    assert found.relevant == {"a": 3, "b": 1}


def test_a_question_is_always_on_the_same_side() -> None:
    questions = judged([], [Judged(str(n), f"question {n}", {"a": 1}) for n in range(200)])
    fitted, held_out = split(questions)
    assert 70 < len(fitted) < 130
    assert len(fitted) + len(held_out) == 200
    again = split([Judged("other", question.text.upper(), {"b": 1}) for question in reversed(fitted)])
    assert (len(again[0]), again[1]) == (len(fitted), [])


def test_the_attributes_that_tell_are_found() -> None:
    passages = [({"kind": "policy", "page": 7, "lang": "en"}, True)] * 20 + [({"kind": "draft", "lang": "en"}, False)] * 20
    assert telling(passages) == [("kind", "draft"), POLICY]
    assert telling([({"kind": "policy"}, True)] * 4) == []
    assert telling([]) == []


def test_the_search_finds_what_is_best_and_changes_nothing_for_nothing() -> None:
    def value(tried: Parameters) -> float:
        boost = dict(tried.boosts).get(POLICY, 0.0)
        weight = 0.7 if tried.dense_weight is None else tried.dense_weight
        return 1 - abs(boost - 0.1) - abs(weight - 0.35) - (0.1 if tried.recency else 0.0)

    found = fit(value, [("kind", "draft"), POLICY])
    assert found == Parameters(dense_weight=0.35, boosts=((POLICY, 0.1),))
    assert fit(lambda _: 0.5, [POLICY]) == Parameters()


def test_what_is_found_is_what_a_collection_can_be_tuned_to() -> None:
    found = Parameters(0.5, ((POLICY, 0.1),), (0.05, 30.0))
    tuning = Tuning.of(found.as_fields())
    assert tuning.dense_weight == 0.5
    assert tuning.wishes.recency is not None
    assert [boost.weight for boost in tuning.wishes.boosts] == [0.1]
    assert Tuning.of(Parameters().as_fields()) == Tuning.of({})
    for wrong in (
        {"dense_weight": 2},
        {"boosts": [{"filter": {"key": "k", "op": "like", "value": 1}, "weight": 0.1}]},
        {"boosts": [{"filter": {"key": "k", "op": "eq", "value": 1}, "weight": 9}]},
    ):
        with pytest.raises(InvalidInput):
            Tuning.of(wrong)
