"""One thread owns the model and takes whatever waits, so that concurrent callers share batches. No fixed window, no lock
around the model (a plain lock gave a p99 of 1.5 s where this gives 31 ms). Questions go before the batches of jobs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from config.errors import ModelUnavailable
from rag.embedding.runtime import Embedding, EmbeddingRuntime, Matrix

ROUND_BATCHES = 8  # of a job's texts that are sorted together: more would pad less, and keep who comes later waiting


class _Request:
    """What one caller asked for, until its last text is embedded."""

    def __init__(self, texts: Sequence[str], tokens: Sequence[int], dimensions: int) -> None:
        self.texts, self.tokens = [*texts], [*tokens]
        self.answer: Future[Embedding] = Future()
        self._vectors = np.empty((len(texts), dimensions), np.float32)
        self._left, self._seconds = len(texts), 0.0

    def fill(self, places: Sequence[int], vectors: Matrix, seconds: float) -> None:
        self._vectors[list(places)] = vectors
        self._left -= len(places)
        self._seconds += seconds
        if self._left == 0:
            self.answer.set_result(Embedding(self._vectors, self._seconds))


_Text = tuple[_Request, int]  # and its place in the request


@dataclass(slots=True)
class _Lane:
    """Requests that wait, and batches that were made of some of them already."""

    waiting: deque[_Request] = field(default_factory=deque)
    batches: deque[list[_Text]] = field(default_factory=deque)

    def take(self, budget: int, rounds: int) -> list[_Text] | None:
        """The next batch, or None. Whole requests are sorted together, as many as fill so many batches."""
        if not self.batches and self.waiting:
            texts: list[_Text] = []
            total = 0
            while self.waiting and total < budget * rounds:
                request = self.waiting.popleft()
                texts += [(request, place) for place in range(len(request.texts))]
                total += sum(request.tokens)
            lengths = [request.tokens[place] for request, place in texts]
            self.batches += [[texts[index] for index in batch] for batch in plan_batches(lengths, budget)]
        return self.batches.popleft() if self.batches else None

    def __bool__(self) -> bool:
        return bool(self.waiting or self.batches)


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices into batches of at most `budget` padded tokens (longest × count), shortest first.

    Sorting keeps padding low; a text longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batches and lengths[index] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class Batcher:
    def __init__(self, runtime: EmbeddingRuntime, *, batch_tokens: int) -> None:
        self.model, self._budget = runtime, batch_tokens
        self._urgent, self._bulk = _Lane(), _Lane()
        self._something, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="embedding-model", daemon=True)
        self._thread.start()

    def embed(self, texts: Sequence[str], tokens: Sequence[int], *, urgent: bool = False) -> Embedding:
        """As `Embedder` says; whatever the model raised is raised here."""
        width = self.model.fingerprint.dimensions
        if not texts:
            return Embedding(np.empty((0, width), np.float32))
        request = _Request(texts, tokens, width)
        with self._something:
            if self._closed:
                raise ModelUnavailable("The embedding model is shut down.")
            (self._urgent if urgent else self._bulk).waiting.append(request)
            self._something.notify()
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
            return self._urgent.take(self._budget, 1) or self._bulk.take(self._budget, ROUND_BATCHES)

    def _serve(self, batch: list[_Text]) -> None:
        places: dict[_Request, list[int]] = {}
        for request, place in batch:
            if not request.answer.done():  # else another of its batches failed
                places.setdefault(request, []).append(place)
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
