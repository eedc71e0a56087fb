"""The last steps of a question, after its candidates were found: rerank → diversity → as many as asked → neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.database import Database
from rag.arranging.diversity import diverse
from rag.arranging.wishes import MAX_POOL
from rag.rerank.stage import Reranking
from rag.retrieval.hydration import Moment, with_neighbours, with_parents
from rag.retrieval.question import Passage, Question
from rag.store.base import TenantVectors
from rag.types import Meter, Reader


@dataclass(frozen=True, slots=True)
class Arranged:
    passages: list[Passage]
    rerank_tokens: int = 0  #: charged
    degraded: tuple[str, ...] = ()  #: steps that were wanted and left out


@dataclass(frozen=True, slots=True)
class Arranger:
    database: Database
    scope: Reader
    meter: Meter

    def arrange(
        self,
        question: Question,
        found: Sequence[Passage],
        vectors: TenantVectors,
        reranking: Reranking | None,
        *,
        charge_id: str,
    ) -> Arranged:
        """`reranking`: None where none is wanted. Of a plain question the first are taken, and nothing else is done."""
        passages, tokens, most = [*found], 0, MAX_POOL
        degraded: tuple[str, ...] = ()
        if reranking is not None:
            looked_at = max(reranking.candidates, question.top_k)
            reranked = reranking.apply(self.meter, question.text, passages[:looked_at], charge_id=charge_id)
            passages, tokens = [*reranked.passages, *passages[looked_at:]], reranked.charged
            degraded = () if reranked.done else ("rerank",)
            most = looked_at if reranked.done else MAX_POOL  # scores of a reranker are not compared with others
        if question.wishes.mmr is not None:
            pool, rest = passages[:most], passages[most:]
            known = vectors.vectors([passage.id for passage in pool])
            limit = len(pool) if question.wishes.group else question.top_k
            passages = diverse(pool, known, question.wishes.mmr, limit) + rest
        return Arranged(self._widened(question, _first(passages, question)), tokens, degraded)

    def _widened(self, question: Question, passages: list[Passage]) -> list[Passage]:
        before, after = question.wishes.before, question.wishes.after
        if not (before or after) and all(passage.parent is None for passage in passages):
            return passages
        with self.database.read(self.scope) as session:
            passages = with_parents(session, passages)
            if not (before or after):
                return passages
            moment = Moment(question.as_of)
            return with_neighbours(session, self.scope, passages, question.filter, before=before, after=after, moment=moment)


def _first(passages: Sequence[Passage], question: Question) -> list[Passage]:
    """As many as were asked for: passages, or documents with their passages together, in the order of the best ones."""
    if question.wishes.group is None:
        return [*passages[: question.top_k]]
    groups: dict[str, list[Passage]] = {}
    for passage in passages:
        groups.setdefault(passage.document_id, []).append(passage)
    return [passage for group in [*groups.values()][: question.top_k] for passage in group]
