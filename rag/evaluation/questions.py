"""Judged questions as they are written in files, and their bounds. Reads files; knows no service."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from config.errors import InvalidInput
from rag.evaluation.metrics import Qrels, Relevant
from rag.types import MAX_QUESTION_CHARS

MAX_QUESTIONS, MAX_DOCUMENTS, MAX_RELEVANT, MAX_GROUPS = 10_000, 1_000_000, 1_000, 100
MAX_RELEVANCE = 100  # its gain is 2 to the power of it
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judged:
    """A question with the documents that answer it."""

    id: str
    text: str
    relevant: Relevant
    group: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A document of a data set."""

    id: str
    title: str
    text: str
    group: str = ""


@dataclass(frozen=True)
class Dataset:
    folder: Path
    questions: list[Judged]

    @property
    def qrels(self) -> Qrels:
        return {question.id: question.relevant for question in self.questions}

    def documents(self) -> Iterator[Text]:
        """Read from the file as they are taken."""
        return _lines(self.folder / "corpus.jsonl", _text, MAX_DOCUMENTS)

    def groups(self) -> list[str]:
        groups: set[str] = set()
        for document in self.documents():
            groups.add(document.group)
            if len(groups) > MAX_GROUPS:
                raise InvalidInput(f"corpus.jsonl: at most {MAX_GROUPS} groups.", limit=MAX_GROUPS)
        return sorted(groups)


def read_dataset(folder: Path) -> Dataset:
    """Of `corpus.jsonl`, `queries.jsonl` and `qrels.tsv`; questions without a relevant document are left out."""
    qrels = _read_qrels(folder / "qrels.tsv")

    def question(line: Mapping[str, Any]) -> Judged:
        return _judged(line, qrels.get(str(line["id"]), {}))

    questions = _lines(folder / "queries.jsonl", question, 10 * MAX_QUESTIONS)
    return Dataset(folder, _bounded([each for each in questions if each.relevant], "queries.jsonl"))


def read_questions(file: Path) -> list[Judged]:
    """Of JSON lines `{id, text, relevant}`; `relevant` is a list of external ids, or an object of relevances. Questions
    without a relevant document are left out."""
    found = _lines(file, lambda line: _judged(line, relevant_of(line["relevant"])), MAX_QUESTIONS + 1)
    return _bounded([each for each in found if each.relevant], file.name)


def relevant_of(given: Any) -> dict[str, int]:
    found = given if isinstance(given, dict) else dict.fromkeys(given, 1)
    if len(found) > MAX_RELEVANT:
        raise ValueError(f"at most {MAX_RELEVANT} relevant documents")
    if not all(float(relevance) <= MAX_RELEVANCE for relevance in found.values()):
        raise ValueError(f"a relevance is at most {MAX_RELEVANCE}")
    return {str(document): int(relevance) for document, relevance in found.items() if int(relevance) > 0}


def _bounded(questions: list[Judged], name: str) -> list[Judged]:
    if not questions:
        raise InvalidInput(f"{name}: there is no question with a relevant document.")
    if len(questions) > MAX_QUESTIONS:
        raise InvalidInput(f"{name}: at most {MAX_QUESTIONS} questions.", limit=MAX_QUESTIONS)
    if len({question.id for question in questions}) < len(questions):
        raise InvalidInput(f"{name}: two questions have one id.")
    return questions


def _judged(line: Mapping[str, Any], relevant: Relevant) -> Judged:
    text = str(line["text"])
    if not text.strip() or len(text) > MAX_QUESTION_CHARS:
        raise ValueError(f"a question has 1 to {MAX_QUESTION_CHARS} characters")
    return Judged(str(line["id"]), text, relevant, str(line.get("group", "")), str(line.get("category", "")))


def _text(line: Mapping[str, Any]) -> Text:
    return Text(str(line["id"]), str(line.get("title", "")), str(line["text"]), str(line.get("group", "")))


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip("\n").split("\t")
            if len(parts) != 3:
                raise InvalidInput(f"{path.name}, line {number}: query, document and relevance, with tabs between them.")
            query, document, relevance = parts
            if relevance.lstrip("-").isdigit() and int(relevance) > 0:  # else a heading, or judged irrelevant
                if int(relevance) > MAX_RELEVANCE:
                    raise InvalidInput(f"{path.name}, line {number}: a relevance is at most {MAX_RELEVANCE}.")
                qrels[query][document] = int(relevance)
                if len(qrels[query]) > MAX_RELEVANT:
                    raise InvalidInput(f"{path.name}, line {number}: at most {MAX_RELEVANT} relevant documents a question.")
    return qrels


def _lines(path: Path, read: Callable[[Mapping[str, Any]], T], limit: int) -> Iterator[T]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if number > limit:
                raise InvalidInput(f"{path.name}: at most {limit} lines.", limit=limit)
            try:
                yield read(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise InvalidInput(f"{path.name}, line {number}: {missing}") from error
