"""The benchmark of recall: its reading and arithmetic, and one small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.harness import BenchmarkError
from carrel_client.recall import Recalled, RecalledTurn
from rag.evaluation.questions import read_dataset

TIME = "1:56 pm on 8 May, 2023"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    said = {"a|1": "Ann: I bought oak.", "a|2": "Ben: Which colour?", "b|1": "a long beginning without a name " * 3 + ": fern"}
    lines = [{"id": key, "text": text, "group": key[0], "session": 1, "time": TIME} for key, text in said.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = [{"id": "q1", "text": "What was bought?", "group": "a", "category": 1}]
    asked += [{"id": "q2", "text": "fern?", "group": "b", "category": 2}, {"id": "q3", "text": "unanswered?", "group": "b"}]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    (tmp_path / "qrels.tsv").write_text("q1\ta|1\t1\nq1\ta|2\t1\nq2\tb|1\t1\n")
    return tmp_path


def test_conversations_are_read_with_speakers_and_times(folder: Path) -> None:
    found = memory.read_conversations(folder)
    assert [(said.id, said.speaker, said.content) for said in found["a"]] == [
        ("a|1", "Ann", "I bought oak."),
        ("a|2", "Ben", "Which colour?"),
    ]
    assert (found["b"][0].speaker, found["b"][0].said_at) == (None, "2023-05-08T13:56:00+00:00")
    assert found["b"][0].content.endswith(": fern")
    assert [said.turn(n)["role"] for n, said in enumerate(found["a"])] == ["user", "assistant"]
    with pytest.raises(BenchmarkError, match="noonish"):
        memory._moment("noonish")


def test_recall_is_told_for_all_and_for_each_category(folder: Path) -> None:
    def answer(*seqs: int) -> Recalled:
        turns = [RecalledTurn("t", "s", seq, "user", None, "", {}, 1, "", 1.0, [], []) for seq in seqs]
        return Recalled(turns, [], {}, [], 0, {})

    dataset, conversations = read_dataset(folder), memory.read_conversations(folder)
    figures = memory._figures(dataset, conversations, [answer(2), answer(1)])
    assert figures == {"recall5": 0.75, "recall10": 0.75, "recall10_cat1": 0.5, "recall10_cat2": 1.0}


@pytest.mark.full
def test_a_small_run(folder: Path) -> None:
    figures = memory.run(folder, "hash", 150).figures
    assert (figures["recall10"], figures["recall10_cat1"], figures["turns"], figures["large_turns"]) == (1.0, 1.0, 3, 150)
    assert all(figures[name] > 0 for name in ("recall_p50_ms", "vector_p50_s", "large_cold_ms", "large_p50_ms"))  # type: ignore[operator]
