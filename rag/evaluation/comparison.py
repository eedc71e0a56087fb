"""Two rankings of the same questions side by side: figures, differences, chance, and where the second loses most. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.evaluation.metrics import FIGURES, figures_of, score
from rag.evaluation.questions import Judged
from rag.evaluation.significance import p_value

Rankings = Mapping[str, Sequence[str]]  #: external ids, best first, by the question's id


@dataclass(frozen=True, slots=True)
class Difference:
    """Of the second side to the first."""

    gain: float
    p: float  #: that chance alone would do as much


@dataclass(frozen=True, slots=True)
class Loss:
    id: str
    text: str
    ndcg10: tuple[float, ...]  #: of each side
    found: tuple[str, ...]  #: the first documents of the last side
    relevant: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    questions: int
    sides: tuple[Mapping[str, float], ...]
    differences: Mapping[str, Difference]  #: by figure; empty for one side
    worst: tuple[Loss, ...]  #: of two sides, where the second is behind; of one, where it finds least
    categories: Mapping[str, tuple[Mapping[str, float], ...]]


def evaluate(questions: Sequence[Judged], rankings: Sequence[Rankings], *, worst: int = 10) -> Evaluation:
    """`rankings`: of one side or of two."""
    qrels = {question.id: question.relevant for question in questions}
    each = [[figures_of(side[question.id], question.relevant) for question in questions] for side in rankings]
    differences = {}
    if len(each) == 2:
        for name in FIGURES:
            one, other = ([figures[name] for figures in side] for side in each)
            gain = (sum(other) - sum(one)) / max(1, len(questions))
            differences[name] = Difference(gain, p_value(one, other))
    return Evaluation(
        questions=len(questions),
        sides=tuple(score(side, qrels) for side in rankings),
        differences=differences,
        worst=tuple(_worst(questions, rankings, [[one["ndcg10"] for one in side] for side in each], worst)),
        categories=_by_category(questions, rankings),
    )


def _worst(questions: Sequence[Judged], rankings: Sequence[Rankings], ndcgs: list[list[float]], count: int) -> list[Loss]:
    def lost(at: int) -> float:
        return (ndcgs[0][at] if len(ndcgs) == 2 else 1.0) - ndcgs[-1][at]

    behind = sorted((at for at in range(len(questions)) if lost(at) > 0), key=lambda at: (-lost(at), questions[at].id))
    return [
        Loss(
            questions[at].id,
            questions[at].text,
            tuple(side[at] for side in ndcgs),
            tuple(rankings[-1][questions[at].id][:3]),
            tuple(questions[at].relevant)[:3],
        )
        for at in behind[:count]
    ]


def _by_category(questions: Sequence[Judged], rankings: Sequence[Rankings]) -> dict[str, tuple[Mapping[str, float], ...]]:
    found: dict[str, tuple[Mapping[str, float], ...]] = {}
    for category in sorted({question.category for question in questions} - {""}):
        qrels = {question.id: question.relevant for question in questions if question.category == category}
        found[category] = tuple(score({name: side[name] for name in qrels}, qrels) for side in rankings)
    return found
