"""The `Embedder` of a provider: a call becomes batches, each is sent until it is answered or the call's time is up, and what
was answered is never sent again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from config.errors import CarrelError, ModelUnavailable
from rag.embedding.remote.batches import Batch, plan
from rag.embedding.remote.breaker import Breaker
from rag.embedding.remote.client import ProviderClient
from rag.embedding.remote.concurrency import Aimd
from rag.embedding.remote.gate import Gate
from rag.embedding.remote.model import RemoteModel
from rag.embedding.remote.pacing import Pacer
from rag.embedding.remote.sender import Call, Ended, Sender
from rag.embedding.runtime import Embedding, Matrix, Note, PartlyEmbedded, await_all

WAITING = 64  # batches of jobs that wait at the gate, which knows whose turn it is; more than that wait before it


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    concurrency: int
    timeout_s: float  #: of one request
    deadline_s: float  #: of a call: nothing is sent for it afterwards
    batch_count: int
    batch_tokens: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteCounters:
    """Since the process started."""

    requests: int  #: that the provider can have seen
    resent: int  #: of these, repeated ones
    pressed: int  #: answers 429
    breaker_openings: int
    allowed: int  #: requests that may be under way at once, now


class RemoteEmbedder:
    def __init__(
        self,
        model: RemoteModel,
        client: ProviderClient,
        limits: RemoteLimits,
        *,
        breaker: Breaker | None = None,
        jitter: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self._client, self._limits, self._clock = model, client, limits, clock
        self._aimd, self._breaker = Aimd(limits.concurrency), breaker or Breaker(clock)
        pacer = Pacer(requests_per_minute=limits.requests_per_minute, tokens_per_minute=limits.tokens_per_minute)
        self._sender = Sender(
            client,
            Gate(pacer, self._aimd, clock),
            self._breaker,
            timeout_s=limits.timeout_s,
            jitter=jitter or random.Random(),  # noqa: S311  jitter is no secret
            clock=clock,
        )
        self._pool = ThreadPoolExecutor(max(limits.concurrency, WAITING), "embedding-provider")

    @property
    def counters(self) -> RemoteCounters:
        tally = self._sender.tally
        return RemoteCounters(
            requests=tally.requests,
            resent=tally.resent,
            pressed=tally.pressed,
            breaker_openings=self._breaker.openings,
            allowed=self._aimd.allowed,
        )

    @property
    def state(self) -> str:
        now = self.counters
        breaker = "left alone for a while" if self._breaker.is_open else "answers"
        resent = f"{now.resent} of {now.requests} requests sent again, {now.pressed} answered 429"
        return f"{breaker}; {resent}, left alone {now.breaker_openings} times; {now.allowed} at once"

    def embed(
        self,
        texts: Sequence[str],
        tokens: Sequence[int],
        *,
        tenant: str = "",
        urgent: bool = False,
        note: Note | None = None,
    ) -> Embedding:
        """As `Embedder` says. Also raises ProviderRefused for what no repetition mends."""
        call = Call(self._readable(texts, tokens), tokens, tenant, urgent, self._clock() + self._limits.deadline_s)
        batches = plan(tokens, count=self._limits.batch_count, most_tokens=self._limits.batch_tokens)
        if urgent:  # on the caller's thread: those of the pool are all busy while jobs' batches wait for their turn
            for batch in batches:
                self._send(call, batch)
        else:
            self._send_all(call, batches, note)
        if call.error is not None:
            raise _partly(call, call.error)
        return Embedding(self._matrix(call), call.seconds, call.resent)

    def close(self) -> None:
        """Calls that wait end at once; a request under way ends by its own limit, and nobody waits for it."""
        self._sender.close()
        self._pool.shutdown(wait=False)
        self._client.close()

    def _send_all(self, call: Call, batches: Sequence[Batch], note: Note | None) -> None:
        try:
            sendings = [self._pool.submit(self._send, call, batch) for batch in batches]
        except RuntimeError as error:
            raise ModelUnavailable("The embedding provider is no longer asked: the service stops.") from error
        await_all(sendings, note, lambda: sum(call.tokens[place] for place in [*call.done]))
        for sending in sendings:
            sending.result()

    def _send(self, call: Call, batch: Batch) -> None:
        try:
            self._sender.send(call, batch)
        except Ended:
            pass  # another batch has said why
        except CarrelError as error:
            self._sender.fail(call, error)

    def _readable(self, texts: Sequence[str], tokens: Sequence[int]) -> list[str]:
        most = self.model.fingerprint.max_tokens
        return [self.model.readable(text) if count >= most else text for text, count in zip(texts, tokens, strict=True)]

    def _matrix(self, call: Call) -> Matrix:
        matrix = np.empty((len(call.texts), self.model.fingerprint.dimensions), np.float32)
        for place, vector in call.done.items():
            matrix[place] = vector
        return matrix


def _partly(call: Call, error: CarrelError) -> CarrelError:
    """What was paid for must reach the caller, whatever happened to the rest."""
    if not call.done:
        return error
    partly = PartlyEmbedded(error.detail, call.done, resent=call.resent)
    partly.retry_after_s, partly.__cause__ = error.retry_after_s, error
    return partly
