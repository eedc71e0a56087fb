"""One request to an OpenAI-compatible server, and its answer. The only file that knows its protocol."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence

from rag.embedding.remote.answers import failure_of, vectors_of
from rag.embedding.runtime import Matrix
from rag.posting import Posting

MAX_BYTES, MAX_BYTES_A_TEXT = 1 << 20, 1 << 19  # of an answer: 16,384 numbers of 32 characters for each text


class ProviderClient:
    """Threads share it, and its connections. `dimensions` is sent only with `ask_dimensions`: not every server knows it."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        model: str,
        dimensions: int,
        ask_dimensions: bool,
        connections: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dimensions = dimensions
        self._request = {"model": model, "encoding_format": "base64"}
        self._asked = {"dimensions": dimensions} if ask_dimensions else {}
        self._posting = Posting(f"{url.rstrip('/')}/embeddings", api_key, connections=connections, clock=clock)

    def embed(self, texts: Sequence[str], *, timeout_s: float) -> Matrix:
        """Unit vectors of the texts. Raise a ProviderFailure, or a CarrelError for what no repetition mends."""
        request, most = {**self._request, "input": list(texts), **self._asked}, MAX_BYTES + MAX_BYTES_A_TEXT * len(texts)
        status, headers, body = self._posting.post(request, most_bytes=most, timeout_s=timeout_s)
        if status != 200:
            raise failure_of(status, headers, body, now=dt.datetime.now(dt.UTC))
        return vectors_of(body, len(texts), self._dimensions)

    def close(self) -> None:
        self._posting.close()
