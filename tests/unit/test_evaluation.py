"""Figures of rankings, the test of their difference, and the files that judged questions come from."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import pytest

from config.errors import InvalidInput
from rag.evaluation import questions
from rag.evaluation.comparison import evaluate
from rag.evaluation.metrics import FIGURES, figures_of, score
from rag.evaluation.questions import Judged, read_dataset, read_questions
from rag.evaluation.significance import p_value


def test_figures_are_those_of_a_worked_example() -> None:
    figures = figures_of(["x", "b", "a", "y"], {"a": 2, "b": 1, "c": 1})
    ideal = 3 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert figures["ndcg10"] == pytest.approx((1 / math.log2(3) + 3 / math.log2(4)) / ideal)
    assert (figures["recall5"], figures["recall100"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert figures["mrr10"] == 1 / 2
    assert figures_of([], {"a": 1}) == dict.fromkeys(FIGURES, 0.0)
    assert figures_of(["a"], {"a": 1}) == dict.fromkeys(FIGURES, 1.0)
    late = [f"x{n}" for n in range(10)] + ["a"]
    found = figures_of(late, {"a": 1})
    assert (found["ndcg10"], found["recall10"], found["mrr10"], found["recall100"]) == (0, 0, 0, 1)


def test_figures_of_many_are_means() -> None:
    found = score({"1": ["a"], "2": ["b"]}, {"1": {"a": 1}, "2": {"a": 1}})
    assert found == dict.fromkeys(FIGURES, 0.5)
    assert score({}, {}) == dict.fromkeys(FIGURES, 0.0)


def test_the_p_value_is_that_of_all_permutations() -> None:
    chance = random.Random(3)
    one = [chance.random() for _ in range(10)]
    other = [value + chance.uniform(-0.1, 0.3) for value in one]
    differences = [a - b for a, b in zip(one, other, strict=True)]
    seen = abs(sum(differences))
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=10)
    ]
    exact = sum(total >= seen - 1e-9 for total in sums) / len(sums)
    assert p_value(one, other) == pytest.approx(exact, abs=0.015)
    assert p_value(one, other) == p_value(one, other) == p_value(other, one)


def test_equal_sides_differ_by_nothing_and_clear_gains_are_no_chance() -> None:
    assert p_value([0.5] * 40, [0.5] * 40) == 1.0
    assert p_value([], []) == 1.0
    assert p_value([0.1] * 40, [0.3] * 40) < 0.001
    assert p_value([0.0, 1.0] * 30, [1.0, 0.0] * 30) > 0.5


def test_under_no_difference_few_are_called_significant() -> None:
    chance = random.Random(5)
    found = [
        p_value([chance.random() for _ in range(40)], [chance.random() for _ in range(40)], permutations=400)
        for _ in range(200)
    ]
    assert sum(p < 0.05 for p in found) / 200 < 0.1
    assert sum(p < 0.5 for p in found) / 200 == pytest.approx(0.5, abs=0.12)


def test_two_sides_are_compared_and_the_worst_losses_are_named() -> None:
    asked = [Judged(str(n), f"question {n}", {"a": 1}, category="odd" if n % 2 else "even") for n in range(10)]
    good = {each.id: ["a"] for each in asked}
    bad = {each.id: ["b", "a"] if each.id in "37" else ["a"] for each in asked} | {"5": ["b"]}
    result = evaluate(asked, [good, bad], worst=2)
    assert [side["ndcg10"] for side in result.sides] == [1.0, pytest.approx((7 + 2 / math.log2(3)) / 10)]
    assert result.differences["mrr10"].gain == pytest.approx(-0.2)
    assert [loss.id for loss in result.worst] == ["5", "3"]
    assert result.worst[0].found == ("b",)
    assert [side["mrr10"] for side in result.categories["even"]] == [1.0, 1.0]
    alone = evaluate(asked, [bad])
    assert alone.differences == {}
    assert [loss.id for loss in alone.worst] == ["5", "3", "7"]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_dataset_is_read_and_what_has_no_answer_is_left_out(tmp_path: Path) -> None:
    lines(tmp_path / "corpus.jsonl", {"id": "a", "title": "A", "text": "x", "group": "g"}, {"id": "b", "text": "y"})
    lines(tmp_path / "queries.jsonl", {"id": "1", "text": "one"}, {"id": "2", "text": "two"}, {"id": "3", "text": "three"})
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n3\tb\t-1\n2\tb\t1\n")
    dataset = read_dataset(tmp_path)
    assert dataset.qrels == {"1": {"a": 2}, "2": {"b": 1}}
    assert [(each.id, each.title, each.group) for each in dataset.documents()] == [("a", "A", "g"), ("b", "", "")]
    assert dataset.groups() == ["", "g"]


def test_questions_are_read_with_answers_of_either_form(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "q.jsonl",
        {"id": 1, "text": "one", "relevant": ["a", "b"]},
        {"id": 2, "text": "two", "relevant": {"a": 3, "b": 0}, "category": "c"},
        {"id": 3, "text": "three", "relevant": {"a": 0}},
        {"id": 4, "text": "four", "relevant": []},
    )
    first, second = read_questions(file)
    assert (first.id, first.relevant, second.relevant, second.category) == ("1", {"a": 1, "b": 1}, {"a": 3}, "c")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": 1, "text": "one"}, "line 1: 'relevant' is missing"),
        ({"id": 1, "text": " ", "relevant": ["a"]}, "line 1: a question has 1 to"),
        ({"id": 1, "text": "one", "relevant": 7}, "line 1"),
        ({"id": 1, "text": "one", "relevant": {"a": "much"}}, "line 1"),
        ({"id": 1, "text": "one", "relevant": {"a": 2000}}, "line 1: a relevance is at most 100"),
        ({"id": 1, "text": "one", "relevant": {"a": float("inf")}}, "line 1: a relevance is at most 100"),
        (["id"], "line 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_questions(lines(tmp_path / "q.jsonl", row))


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MAX_QUESTIONS", 2)
    rows = [{"id": n, "text": "one", "relevant": ["a"]} for n in range(9)]
    assert len(read_questions(lines(tmp_path / "q.jsonl", *rows[:2]))) == 2
    with pytest.raises(InvalidInput, match="at most"):
        read_questions(lines(tmp_path / "q.jsonl", *rows))
    with pytest.raises(InvalidInput, match="two questions have one id"):
        read_questions(lines(tmp_path / "q.jsonl", rows[0], rows[0]))
    with pytest.raises(InvalidInput, match="no question"):
        read_questions(lines(tmp_path / "q.jsonl"))
    (tmp_path / "qrels.tsv").write_text("1\ta\t2000\n")
    with pytest.raises(InvalidInput, match=r"qrels.tsv, line 1: a relevance"):
        read_dataset(tmp_path)
    (tmp_path / "qrels.tsv").write_text("1 a 1\n")
    with pytest.raises(InvalidInput, match=r"qrels.tsv, line 1"):
        read_dataset(tmp_path)
