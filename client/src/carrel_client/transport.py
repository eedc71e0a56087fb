"""One HTTP call with retries. Retried are refusals that the service calls retryable, and, for calls that may be repeated
safely, silence; waiting honours Retry-After and is otherwise exponential with full jitter.

A POST may be repeated because all of its tries carry one idempotency key: the service carries out the first that arrives.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx2

from carrel_client.errors import TransportError, error_for

FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 20.0
_SAFE = ("GET",)  # a DELETE that was carried out answers 404 when it is repeated


class Transport:
    def __init__(self, base_url: str, api_key: str, *, timeout_s: float, max_retries: int) -> None:
        self._max_retries = max_retries
        self._http = httpx2.Client(
            base_url=base_url.rstrip("/"),
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "carrel-client/0.1.0"},
            timeout=timeout_s,
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        repeatable: bool = False,
        idempotency_key: str | None = None,
    ) -> httpx2.Response:
        """Return a 2xx response or raise. `repeatable`: a call whose repetition changes nothing; another POST gets a key."""
        headers = {}
        if method == "POST" and not repeatable:
            headers["Idempotency-Key"] = uuid.uuid4().hex if idempotency_key is None else idempotency_key
        silence_repeats = repeatable or bool(headers) or method in _SAFE
        given = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in range(self._max_retries + 1):
            last = attempt == self._max_retries
            try:
                response = self._http.request(method, path, json=json, params=given, files=files, data=data, headers=headers)
            except httpx2.TransportError as error:
                if last or not silence_repeats:
                    raise TransportError(f"{method} {self._http.base_url}{path}: {error or type(error).__name__}") from error
                time.sleep(_pause(attempt, None))
                continue
            if response.is_success:
                return response
            problem = _problem(response)
            if last or not problem.get("retryable"):
                raise error_for(response.status_code, problem, response.headers.get("x-request-id"))
            time.sleep(_pause(attempt, response.headers.get("retry-after")))
        raise AssertionError("the loop returns or raises")


def _pause(attempt: int, retry_after: str | None) -> float:
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), MAX_PAUSE_S)
    return random.uniform(0, min(FIRST_PAUSE_S * 2**attempt, MAX_PAUSE_S))  # noqa: S311  jitter is no secret


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {"code": "unexpected_answer", "detail": response.text[:200]}
    return problem if isinstance(problem, dict) else {}
