"""What every embedding model offers, and the fingerprint that names its space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rag.store.base import Space

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that decides what a vector means. Two models with one name and other weights are two spaces."""

    weights_sha256: str
    pooling: str
    normalised: bool
    max_tokens: int
    precision: str
    dimensions: int

    def describe(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def space(self) -> Space:
        text = json.dumps(self.describe(), sort_keys=True)
        return Space("sp_" + hashlib.blake2b(text.encode(), digest_size=10).hexdigest(), self.dimensions)


class EmbeddingRuntime(Protocol):
    """A loaded model. `embed` is called by one thread at a time; the rest by any."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> Fingerprint: ...

    @property
    def tokenizer_json(self) -> str: ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens the model will read of each text: what is charged."""

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors, shape (len(texts), dimensions), float32."""
