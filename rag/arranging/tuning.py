"""What collections are tuned to: it holds for their passages whether a question asks for it or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import InvalidInput
from rag.arranging.wishes import Boost, Recency, Wishes
from rag.filters import parse


@dataclass(frozen=True, slots=True)
class Tuning:
    dense_weight: float | None  #: of fusion; None: as the profile says
    wishes: Wishes  #: boosts and recency, added to those of the question

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Tuning:
        """Raise InvalidInput for what no question could ask for either."""
        recency, weight = parameters.get("recency"), parameters.get("dense_weight")
        if weight is not None and not 0 <= weight <= 1:
            raise InvalidInput("`dense_weight` is 0 to 1.", field="dense_weight", limit=1)
        wishes = Wishes(
            boosts=tuple(Boost(parse(boost["filter"]), boost["weight"]) for boost in parameters.get("boosts", ())),
            recency=None if recency is None else Recency(recency["weight"], recency["half_life_days"]),
        )
        return cls(weight, wishes)
