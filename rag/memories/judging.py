"""Which known memories new facts contradict, as a language model says: it is asked about few, and chooses among those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.llm.rewriting import Rewriting
from rag.memories.agreement import SOME_COSINE, Verdict, compare
from rag.memories.extraction import contradicted
from rag.memories.placing import Embedded, Known, Place
from rag.memories.values import Fact
from rag.memories.wording import wording
from rag.types import Scope

MAX_JUDGED = 4  # facts of one call; the others go by their words
MAX_SHOWN = 5  # known memories, the nearest


@dataclass(frozen=True, slots=True)
class Judged:
    against: Sequence[tuple[str, ...]]  #: of each fact, the memories that it contradicts
    charged: int = 0
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judging:
    llm: Rewriting
    scope: Scope
    place: Place  #: what is known; nothing is changed in it

    def of(self, facts: Sequence[Fact], embedded: Sequence[Embedded], charge_id: str) -> Judged:
        against: list[tuple[str, ...]] = [()] * len(facts)
        charged, asked, left_out = 0, 0, False
        for at, (fact, vector) in enumerate(zip(facts, embedded, strict=True)):
            shown = self._unsure_of(fact, vector)
            if not shown:
                continue
            asked += 1
            if asked > MAX_JUDGED:
                left_out = True
                break
            texts, name = [each.text for each in shown], f"{charge_id}:{at}"
            places, tokens = contradicted(self.llm, self.scope, fact.text, texts, charge_id=name)
            charged += tokens
            left_out = left_out or places is None
            against[at] = tuple(shown[place].id for place in places or ())
        return Judged(against, charged, ("judge",) if left_out else ())

    def _unsure_of(self, fact: Fact, embedded: Embedded) -> list[Known]:
        """What is near to a fact that has no key, is not the same, and is not contradicted by its words already."""
        if fact.key is not None or self.place.same(fact, embedded) is not None:
            return []
        mine, near = wording(fact.text), list[tuple[float, str]]()
        for other in self.place.known.values():
            cosine = embedded.cosine(other)
            unsure = other.key is None and cosine is not None and cosine >= SOME_COSINE and other.span.holds(self.place.at)
            if unsure and cosine is not None and compare(wording(other.text), mine) is not Verdict.CONTRADICTS:
                near.append((-cosine, other.id))
        return [self.place.known[name] for _, name in sorted(near)[:MAX_SHOWN]]
