"""What can be asked for after fusion, and its bounds. A question that asks for nothing costs nothing here."""

from __future__ import annotations

from dataclasses import dataclass

from config.errors import InvalidInput
from rag.filters import Filter

MAX_BOOSTS, MAX_WEIGHT, MAX_NEIGHBOURS, MAX_PER_DOCUMENT = 8, 0.5, 5, 100
#: Candidates that are reordered: beyond a hundred, what follows has little left to say.
POOL, POOL_FACTOR, MAX_POOL = 40, 4, 100


@dataclass(frozen=True, slots=True)
class Boost:
    """Added to the score of passages whose document's attributes meet the filter."""

    filter: Filter
    weight: float


@dataclass(frozen=True, slots=True)
class Recency:
    """Adds `weight` to what was brought just now, half of it to what was brought `half_life_days` ago, and so on."""

    weight: float
    half_life_days: float


@dataclass(frozen=True, slots=True)
class Wishes:
    min_relevance: float | None = None  #: calibrated, 0 to 1
    boosts: tuple[Boost, ...] = ()
    recency: Recency | None = None
    collapse: bool = False  #: of several nearly equal texts, the best alone
    per_document: int | None = None  #: passages of one document at most
    mmr: float | None = None  #: 1: by score alone; 0: each as unlike the others as can be
    before: int = 0  #: neighbours that are added to each passage
    after: int = 0
    group: int | None = None  #: `top_k` counts documents, each with so many passages at most

    def __post_init__(self) -> None:
        if len(self.boosts) > MAX_BOOSTS:
            raise InvalidInput(f"At most {MAX_BOOSTS} boosts.", field="boosts", limit=MAX_BOOSTS)
        weights = [boost.weight for boost in self.boosts] + ([self.recency.weight] if self.recency else [])
        if not all(abs(weight) <= MAX_WEIGHT for weight in weights):
            raise InvalidInput(f"A boost's weight is −{MAX_WEIGHT} to {MAX_WEIGHT}.", field="boosts", limit=MAX_WEIGHT)

    @property
    def cap(self) -> int | None:
        caps = [cap for cap in (self.per_document, self.group) if cap is not None]
        return min(caps, default=None)

    @property
    def reorders(self) -> bool:
        return bool(self.boosts) or self.recency is not None or self.mmr is not None

    def depth(self, top_k: int, *, reranks: int = 0, tuned: bool = False) -> int:
        """Candidates to be looked for, to have `top_k` in the end. `reranks`: those that a reranker looks at;
        `tuned`: whether what collections are tuned to reorders them."""
        pool = min(MAX_POOL, max(POOL, POOL_FACTOR * top_k)) if self.reorders or tuned else 0
        return max(top_k, pool, reranks)


NONE = Wishes()
