"""A rerank endpoint as Cohere, Jina and many local servers offer it:
{model, query, documents, top_n} → {results: [{index, relevance_score}]}."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from config.errors import Unavailable
from rag.embedding.remote.breaker import Breaker
from rag.embedding.remote.failures import Broken
from rag.posting import Posting
from rag.rerank.base import RerankFailed
from rag.tokens import count_tokens

MAX_BYTES, MAX_BYTES_A_TEXT = 1 << 16, 1 << 16  # of an answer: some servers send the texts back
CONNECTIONS = 16


class RemoteReranker:
    """Tokens are counted as o200k: what the provider counts is not known beforehand, and a budget must be."""

    def __init__(self, url: str, api_key: str | None, *, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = model
        self._posting = Posting(url, api_key, connections=CONNECTIONS, clock=clock)
        self._breaker = Breaker(clock)

    def count_tokens(self, query: str, texts: Sequence[str]) -> int:
        return count_tokens(query) * len(texts) + sum(map(count_tokens, texts))

    def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        request = {"model": self.name, "query": query, "documents": list(texts), "top_n": len(texts)}
        most = MAX_BYTES + MAX_BYTES_A_TEXT * len(texts)
        try:
            with self._breaker.request():
                status, _, body = self._posting.post(request, most_bytes=most, timeout_s=deadline_s)
                if status != 200:
                    # Refused before any work, as far as a status says; a server's own error may have come after it.
                    raise Broken(f"status {status}", reached=status >= 500)
                return _scores_of(body, len(texts))
        except Unavailable as error:  # left alone for a while
            raise RerankFailed("it kept failing, and is left alone for a while", began=False) from error
        except Broken as error:
            raise RerankFailed(error.detail, began=error.reached) from error

    def close(self) -> None:
        self._posting.close()


def _scores_of(body: bytes, count: int) -> list[float]:
    """Of each text, in the order they were sent. Raise Broken for anything but one score of each."""
    try:
        results: Any = json.loads(body)["results"]
        found = {int(item["index"]): float(item["relevance_score"]) for item in results}
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise Broken("the answer is not what was agreed") from error
    if len(results) != count or found.keys() != set(range(count)) or not all(map(math.isfinite, found.values())):
        raise Broken("the answer does not score each text once")
    return [min(1.0, max(0.0, found[place])) for place in range(count)]
