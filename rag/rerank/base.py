"""What a reranker is, and how it fails. A failure never fails a question: it is answered in the order it had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RerankFailed(Exception):
    """`began`: whether work on it may have begun, which is charged."""

    def __init__(self, detail: str, *, began: bool) -> None:
        super().__init__(detail)
        self.began = began


class Reranker(Protocol):
    @property
    def name(self) -> str: ...

    def count_tokens(self, query: str, texts: Sequence[str]) -> int:
        """What all pairs of the question and a text have together: what is charged."""

    def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        """How well each text answers, 0 to 1. Raise RerankFailed at the latest when the deadline has passed."""

    def close(self) -> None: ...
