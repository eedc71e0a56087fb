"""What a language model is, and how it fails. A failure never fails a question: it is searched for as it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class CompletionFailed(Exception):
    """`began`: whether work on it may have begun, which is charged."""

    def __init__(self, detail: str, *, began: bool) -> None:
        super().__init__(detail)
        self.began = began


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    tokens: int | None  #: of prompt and answer, as the provider counted them; None if it did not say


class LanguageModel(Protocol):
    @property
    def name(self) -> str: ...

    def count_tokens(self, texts: Sequence[str]) -> int:
        """About what these have together, with what goes around them."""

    def complete(self, instruction: str, text: str, *, max_tokens: int, deadline_s: float) -> Completion:
        """What it says to `text` when told `instruction`. Raise CompletionFailed at the latest when the deadline has passed."""

    def close(self) -> None: ...
