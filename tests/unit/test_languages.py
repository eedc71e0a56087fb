"""Questions by words in languages whose words change, are joined or are not separated, and about code.

Each fixture has subjects and aspects, each as a passage and as a question says it: other forms, other order, parts of
compounds. A passage is one subject in one aspect, so every question has 28 that share half of its words.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag.lexical.encoder import encode_chunk, encode_query
from rag.lexical.statistics import CollectionStatistics, Counts

FOLDER = Path(__file__).parent.parent / "fixtures" / "languages"
QUESTIONS = 80


@dataclass(frozen=True)
class Asked:
    text: str
    passage: int


def load(name: str) -> tuple[list[str], list[Asked]]:
    made, rng = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")), random.Random(5)
    passages, questions = [], []
    for in_text, in_question in made["subjects"]:
        for number, (sentence, question) in enumerate(made["aspects"]):
            questions.append(Asked(question.replace("{s}", in_question), len(passages)))
            own = sentence.replace("{s}", in_text).replace("{i}", str(number))
            passages.append("\n".join([own, *rng.sample(made["fillers"], 2)]))
    return passages, rng.sample(questions, QUESTIONS)


@pytest.mark.parametrize("name", ["de", "zh", "ja", "ar", "code"])
def test_nine_of_ten_questions_find_their_passage_among_ten(name: str) -> None:
    passages, questions = load(name)
    assert len(passages) >= 200
    encoded = [encode_chunk("", passage) for passage in passages]
    chunks = [dict(zip(each.sparse.indices, each.sparse.values, strict=True)) for each in encoded]
    statistics = CollectionStatistics((Counts.of_chunks(each.terms for each in encoded),))
    missed = []
    for asked in questions:
        query = encode_query(asked.text, statistics)
        weights = [*zip(query.indices, query.values, strict=True)]
        scores = [sum(weight * chunk.get(index, 0.0) for index, weight in weights) for chunk in chunks]
        best = sorted(range(len(chunks)), key=lambda at: (-scores[at], at))[:10]
        if asked.passage not in best:
            missed.append(asked.text)
    assert len(missed) <= 0.1 * len(questions), missed
