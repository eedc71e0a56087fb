"""What every embedding model offers, and the fingerprint that names its space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from config.errors import Unavailable
from rag.store.base import Space, Vector

Matrix = npt.NDArray[np.float32]

#: Told now and then, by the thread that waits for a call of `embed`, how many of its tokens are embedded.
Note = Callable[[int], None]
BEAT_S = 0.5  # how often, at most: half of what people are promised

#: Padded tokens in one call of a model on a CPU: from 1,024 to 4,096 the speed is the same within 5 %.
CPU_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that decides what a vector means. Two models with one name and other weights are two spaces."""

    weights_sha256: str
    pooling: str
    normalised: bool
    max_tokens: int
    precision: str
    dimensions: int  #: fewer than the model's own, if its vectors are cut (Matryoshka)
    query_prompt: str = ""  #: read by the model before each question
    document_prompt: str = ""  #: read by the model before each chunk

    def describe(self) -> dict[str, Any]:
        """Prompts only where there are any: a space is named by this, and most models have none."""
        known = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in known.items() if value != "" or not name.endswith("_prompt")}

    @property
    def space(self) -> Space:
        text = json.dumps(self.describe(), sort_keys=True)
        return Space("sp_" + hashlib.blake2b(text.encode(), digest_size=10).hexdigest(), self.dimensions)


def unit_rows(matrix: Matrix, dimensions: int | None = None) -> Matrix:
    """Rows cut to their first `dimensions` (Matryoshka), and of length 1.

    In fp32: a model that normalises in its own bf16 leaves lengths 0.3 % off, and scores with them.
    """
    cut = np.asarray(matrix, np.float32)[:, :dimensions]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), np.float32)


class EmbeddingModel(Protocol):
    """What is known of a model, wherever it runs. Any thread may ask."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> Fingerprint: ...

    @property
    def where(self) -> str:
        """What runs it and why, for people."""

    @property
    def tokenizer_json(self) -> str: ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens the model will read of each text: what is charged."""


class EmbeddingRuntime(EmbeddingModel, Protocol):
    """A model loaded in this process. `embed` is called by one thread at a time."""

    @property
    def batch_tokens(self) -> int:
        """Padded tokens that one call does best with."""

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors, shape (len(texts), dimensions), float32."""


@dataclass(frozen=True, slots=True)
class Embedding:
    vectors: Matrix  #: unit vectors in the order of the texts, shape (len(texts), dimensions)
    seconds: float = 0.0  #: that the model took, without the wait for it
    resent: int = 0  #: requests that a provider was sent again


class PartlyEmbedded(Unavailable):
    """Some of the texts were embedded, and have cost what they cost; the others were not."""

    def __init__(self, detail: str, done: Mapping[int, Vector], *, resent: int = 0) -> None:
        super().__init__(detail)
        self.done, self.resent = done, resent  #: vectors by the text's place in the call


def await_all(futures: Sequence[Future[Any]], note: Note | None, embedded: Callable[[], int]) -> None:
    """`embedded`: how many tokens are by now."""
    while wait(futures, None if note is None else BEAT_S).not_done:
        if note is not None:
            note(embedded())


class Embedder(Protocol):
    """Batches what any number of threads ask for, and answers each of them."""

    @property
    def model(self) -> EmbeddingModel: ...

    @property
    def state(self) -> str:
        """How it does at the moment, for people; empty if there is nothing to say."""

    def embed(
        self,
        texts: Sequence[str],
        tokens: Sequence[int],
        *,
        tenant: str = "",
        urgent: bool = False,
        note: Note | None = None,
    ) -> Embedding:
        """`tokens`: of each text. `tenant`: for whom; those who wait take turns, by tokens. `urgent`: somebody waits for the
        answer to a question; jobs give way to it. `note` must not raise: what is embedded has to be paid for.

        Blocks. Raises Unavailable for what passes (PartlyEmbedded if some texts were done), ModelUnavailable once closed.
        """

    def close(self) -> None: ...
