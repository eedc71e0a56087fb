"""One call from its first try to its end: what is sent, whether and when again, and what an answer means. No I/O.

Retried are refusals that the service calls retryable, and, for calls that may be repeated safely, silence, broken answers and
what proxies say while a service is away. A POST may be repeated because all of its tries carry one idempotency key: the service
carries out the first that arrives. Waiting honours Retry-After and is otherwise exponential with full jitter.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from carrel_client.errors import APIError, CarrelClientError, TransportError, error_for

FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 20.0
USER_AGENT = "carrel-client/0.1.0"
_SAFE = ("GET",)  # a DELETE that was carried out answers 404 when it is repeated
_DOTS = {".": "%2E", "..": "%2E%2E"}  #: that lead elsewhere in a path
_PASSING = (429, 502, 503, 504)  # as a proxy says it, without the service's own word on whether it passes


class Told(TypedDict, total=False):
    """What a call is told. `repeatable`: its repetition changes nothing; another POST gets an idempotency key."""

    json: Any
    params: Mapping[str, Any] | None
    files: Mapping[str, Any] | None
    data: Mapping[str, Any] | None
    headers: Mapping[str, str | None] | None
    repeatable: bool
    idempotency_key: str | None


@dataclass(frozen=True)
class Answer:
    """A response that was read whole."""

    status: int
    headers: Mapping[str, str]  #: names in lower case, or of any case
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """None without content; raise ValueError for what is no object: every answer of the service is one."""
        if self.status == 204:
            return None
        value = json.loads(self.content)
        if not isinstance(value, dict):
            raise ValueError("the answer is no JSON object")
        return value

    @property
    def problem(self) -> Mapping[str, Any]:
        """What a refusal says; without `status` if the service did not say it."""
        try:
            return dict(self.json() or {})
        except ValueError:
            return {"code": "unexpected_answer", "detail": self.text[:200]}


class Exchange:
    """Send `options` in each try, and tell what came of it: `answered` and `broken` say how long to wait before the next."""

    def __init__(self, method: str, url: str, *, max_retries: int, **told: Unpack[Told]) -> None:
        repeatable, key = told.pop("repeatable", False), told.pop("idempotency_key", None)
        headers = {name: value for name, value in (told.pop("headers", None) or {}).items() if value is not None}
        if method == "POST" and not repeatable:
            headers["Idempotency-Key"] = uuid.uuid4().hex if key is None else key
        self.result: Any = None
        self.options: dict[str, Any] = {**told, "headers": headers, "params": given(told.get("params"))}
        self._what, self._left, self._tries = f"{method} {url}", max_retries, 0
        self._repeats = repeatable or "Idempotency-Key" in headers or method in _SAFE

    def answered(self, answer: Answer, *, as_text: bool = False) -> float | None:
        """Seconds to wait before the next try, or None: `result` is the answer. Raise what it refuses."""
        if 200 <= answer.status < 300:
            try:
                self.result = answer.text if as_text else answer.json()
            except ValueError as error:
                return self.broken(error)
            return None
        problem = answer.problem
        passes = problem.get("retryable") or ("status" not in problem and self._repeats and answer.status in _PASSING)
        if not passes or self._left == 0:
            raise refused(answer)
        return self._again(answer.headers.get("retry-after"))

    def broken(self, error: Exception) -> float:
        """Nothing came, or nothing that can be read: seconds to wait before the next try, or raise."""
        if self._left == 0 or not self._repeats:
            raise silent(self._what, error) from error
        return self._again(None)

    def _again(self, retry_after: str | None) -> float:
        self._left, self._tries = self._left - 1, self._tries + 1
        return pause_s(self._tries - 1, retry_after)


def key_of(given: str | None) -> str:
    """As it goes into a header: without the end of the line that a file has. Raise CarrelClientError for none, or no key."""
    key = (given or "").strip()
    if not key:
        raise CarrelClientError("No key: pass api_key=… or set CARREL_API_KEY.")
    if not (key.isascii() and key.isprintable()):
        raise CarrelClientError("The key has characters that no key has.")
    return key


def pause_s(attempt: int, retry_after: str | None) -> float:
    """How long to wait before the next try."""
    if retry_after is not None and retry_after.replace(".", "", 1).isdecimal():
        return min(float(retry_after), MAX_PAUSE_S)
    return random.uniform(0, min(FIRST_PAUSE_S * 2**attempt, MAX_PAUSE_S))  # noqa: S311  jitter is no secret


def path_of(base: str, *parts: str) -> str:
    """Ids are quoted: one that holds a slash, or is nothing but dots, must not become another path."""
    return "/".join([base, *(_DOTS.get(part) or quote(part, safe="") for part in parts)])


def given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Without what is None."""
    return {name: value for name, value in (params or {}).items() if value is not None}


def refused(answer: Answer) -> APIError:
    error = error_for(answer.status, answer.problem, answer.headers.get("x-request-id"))
    error.retry_after = answer.headers.get("retry-after")
    return error


def silent(what: str, error: Exception) -> TransportError:
    return TransportError(f"{what}: {error or type(error).__name__}")
