"""Sends one batch until it is answered or its call ends: turn, breaker, request; then the pause before the next try."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from config.errors import CarrelError, ModelUnavailable, ProviderRefused, Unavailable
from rag.embedding.remote.batches import Batch, halves
from rag.embedding.remote.breaker import Breaker
from rag.embedding.remote.client import ProviderClient
from rag.embedding.remote.failures import Broken, Pressed, ProviderFailure, TooMuch
from rag.embedding.remote.gate import Gate
from rag.embedding.runtime import Matrix
from rag.store.base import Vector

FIRST_PAUSE_S, MAX_PAUSE_S = 0.4, 10.0


class Ended(Exception):
    """The call has ended early; its other batches need not be sent."""


@dataclass(slots=True)
class Call:
    """One call of `embed`: what is done of it, and why it ended early. Its batches are on threads of their own."""

    texts: Sequence[str]
    tokens: Sequence[int]
    tenant: str
    urgent: bool
    deadline: float
    done: dict[int, Vector] = field(default_factory=dict)  #: by place
    seconds: float = 0.0  #: that the answers took
    resent: int = 0
    failure: str = "it had no room"  #: the last one
    error: CarrelError | None = None


@dataclass(slots=True)
class Tally:
    requests: int = 0
    resent: int = 0
    pressed: int = 0


class Sender:
    def __init__(
        self,
        client: ProviderClient,
        gate: Gate,
        breaker: Breaker,
        *,
        timeout_s: float,
        jitter: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self._client, self._gate, self._breaker = client, gate, breaker
        self._timeout_s, self._jitter, self._clock = timeout_s, jitter, clock
        self._lock = threading.Lock()  # of the tally, and of every call
        self.tally, self.closed = Tally(), False

    def send(self, call: Call, batch: Batch, *, halve: bool = True) -> None:
        """Fill in `call.done`. Raise Ended, or the CarrelError that ends the call."""
        reached, attempt = False, 0
        while True:
            try:
                vectors, seconds = self._try(call, batch, again=reached)
            except TooMuch as failure:
                return self._send_halves(call, batch, failure, halve=halve)
            except (Pressed, Broken) as failure:
                reached = reached or failure.reached
                self._pause(call, failure, attempt)
                attempt += 1
            else:
                with self._lock:
                    call.done.update(zip(batch, vectors, strict=True))
                    call.seconds += seconds
                return None

    def fail(self, call: Call, error: CarrelError) -> None:
        """End the call: its batches that wait are not sent, those under way are kept."""
        with self._lock:
            call.error = call.error or error
        self._gate.wake()

    def close(self) -> None:
        self.closed = True
        self._gate.wake()

    def _try(self, call: Call, batch: Batch, *, again: bool) -> tuple[Matrix, float]:
        tokens = sum(call.tokens[place] for place in batch)
        check, whose = (lambda: self._check(call)), call.tenant
        with self._gate.turn(tokens, tenant=whose, urgent=call.urgent, deadline=call.deadline, check=check):
            with self._breaker.request():
                began, reached, pressed = self._clock(), True, False
                try:
                    texts = [call.texts[place] for place in batch]
                    # A job's request that is under way at the deadline is awaited: given up, it would be paid for twice.
                    left = call.deadline - began if call.urgent else self._timeout_s
                    vectors = self._client.embed(texts, timeout_s=min(self._timeout_s, left))
                except ProviderFailure as failure:
                    reached, pressed = failure.reached, isinstance(failure, Pressed)
                    raise
                finally:
                    self._count(call, reached=reached, again=again and reached, pressed=pressed)
                return vectors, self._clock() - began

    def _send_halves(self, call: Call, batch: Batch, failure: TooMuch, *, halve: bool) -> None:
        """Once: a provider that takes no halves either has another limit than batches can keep to."""
        if len(batch) > 1 and halve:
            for half in halves(batch):
                self.send(call, half, halve=False)
            return
        advice = (
            "CARREL_EMBEDDING_BATCH_COUNT and CARREL_EMBEDDING_BATCH_TOKENS"
            if len(batch) > 1
            else ("CARREL_EMBEDDING_MAX_TOKENS, and set CARREL_EMBEDDING_TOKENIZER to the model's own")
        )
        raise ProviderRefused(
            f"To the embedding provider a request of {len(batch)} texts is too large ({failure.detail}): lower {advice}."
        ) from failure

    def _check(self, call: Call) -> None:
        if self.closed:
            raise ModelUnavailable("The embedding provider is no longer asked: the service stops.")
        if call.error is not None:
            raise Ended
        if self._clock() >= call.deadline:
            raise _late(call, 1.0)
        self._breaker.check()

    def _pause(self, call: Call, failure: ProviderFailure, attempt: int) -> None:
        """At least what the provider asks for, and never nothing again and again: full jitter on a doubling time."""
        jittered = self._jitter.uniform(0, min(FIRST_PAUSE_S * 2 ** min(attempt, 10), MAX_PAUSE_S))
        pause_s = max(jittered, failure.retry_after_s or 0.0)
        until, call.failure = self._clock() + pause_s, failure.detail
        if until >= call.deadline:
            raise _late(call, pause_s) from failure
        self._gate.pause(until, lambda: self._check(call))

    def _count(self, call: Call, *, reached: bool, again: bool, pressed: bool) -> None:
        with self._lock:
            call.resent += again
            self.tally.requests += reached
            self.tally.resent += again
            self.tally.pressed += pressed


def _late(call: Call, retry_after_s: float) -> Unavailable:
    detail = f"The embedding provider did not do its work in time: {call.failure}."
    return Unavailable(detail, retry_after_s=max(retry_after_s, 1.0))
