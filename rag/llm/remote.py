"""A language model at any OpenAI-compatible server: {model, messages, max_tokens} → {choices: [{message}], usage}."""

from __future__ import annotations

import datetime as dt
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from config.errors import Unavailable
from rag.embedding.remote.answers import retry_after_s
from rag.embedding.remote.breaker import Breaker
from rag.embedding.remote.failures import Broken, Pressed, ProviderFailure
from rag.llm.base import Completion, CompletionFailed
from rag.posting import Posting
from rag.tokens import count_tokens

MAX_BYTES, MAX_BYTES_A_TOKEN = 1 << 16, 64  # of an answer
CONNECTIONS = 16
TRIES, FIRST_PAUSE_S = 3, 0.2
AROUND_MESSAGES = 16  # tokens that a chat's form takes, generously
_RETRIED = (408, 409)  # and 5xx


class _Refused(ProviderFailure):
    """No repetition mends it."""


class RemoteLanguageModel:
    """Threads share it. Tokens are counted as o200k beforehand: what the provider counts is known only afterwards."""

    def __init__(self, url: str, api_key: str | None, *, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self._clock = model, clock
        self._posting = Posting(f"{url.rstrip('/')}/chat/completions", api_key, connections=CONNECTIONS, clock=clock)
        self._breaker, self._jitter, self._closed = Breaker(clock), random.Random(), threading.Event()  # noqa: S311  of a pause

    def count_tokens(self, texts: Sequence[str]) -> int:
        return AROUND_MESSAGES + sum(map(count_tokens, texts))

    def complete(self, instruction: str, text: str, *, max_tokens: int, deadline_s: float) -> Completion:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        return self.converse(messages, max_tokens=max_tokens, deadline_s=deadline_s)

    def converse(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int, deadline_s: float) -> Completion:
        """What it says next, as `complete` does."""
        request = {"model": self.name, "messages": [*messages], "max_tokens": max_tokens, "temperature": 0, "stream": False}
        until, began = self._clock() + deadline_s, False
        for attempt in range(TRIES):
            try:
                return self._try(request, max_tokens, until - self._clock())
            except ProviderFailure as failure:
                began = began or failure.reached
                pause_s = max(failure.retry_after_s or 0.0, self._jitter.uniform(0, FIRST_PAUSE_S * 2**attempt))
                last = attempt + 1 == TRIES or isinstance(failure, _Refused) or self._clock() + pause_s >= until
                if last or self._closed.wait(pause_s):
                    raise CompletionFailed(failure.detail, began=began) from failure
            except Unavailable as error:
                raise CompletionFailed("it kept failing, and is left alone for a while", began=began) from error
        raise AssertionError("the last try returns or raises")

    def _try(self, request: dict[str, object], max_tokens: int, left_s: float) -> Completion:
        with self._breaker.request():
            most = MAX_BYTES + MAX_BYTES_A_TOKEN * max_tokens
            status, headers, body = self._posting.post(request, most_bytes=most, timeout_s=left_s)
            if status != 200:
                raise _failure_of(status, headers)
            return _completion_of(body)

    def close(self) -> None:
        self._closed.set()
        self._posting.close()


def _failure_of(status: int, headers: Mapping[str, str]) -> ProviderFailure:
    """Nothing that the provider writes is repeated: its prose may hold the key or the question."""
    detail, after = f"status {status}", retry_after_s(headers, now=dt.datetime.now(dt.UTC))
    if status == 429:
        return Pressed(detail, retry_after_s=after, reached=False)
    if status in _RETRIED or status >= 500:
        return Broken(detail, retry_after_s=after)
    return _Refused(f"{detail}: check CARREL_LLM_URL, CARREL_LLM_MODEL and CARREL_LLM_API_KEY", reached=False)


def _completion_of(body: bytes) -> Completion:
    try:
        answer: Any = json.loads(body)
        text, usage = answer["choices"][0]["message"]["content"], answer.get("usage")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise Broken("the answer is not what was agreed") from error
    if not isinstance(text, str):
        raise Broken("the answer has no text")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    return Completion(text, tokens if type(tokens) is int and tokens >= 0 else None)
