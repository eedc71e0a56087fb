"""One HTTP call with retries. Retried are refusals that the service calls retryable, and, for calls that may be repeated
safely, silence; waiting honours Retry-After and is otherwise exponential with full jitter.

A POST may be repeated because all of its tries carry one idempotency key: the service carries out the first that arrives.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from carrel_client.errors import APIError, TransportError, error_for

FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 20.0
STREAM_SILENCE_S = 45.0  # three heartbeats of the service
_SAFE = ("GET",)  # a DELETE that was carried out answers 404 when it is repeated


class Transport:
    def __init__(self, base_url: str, api_key: str, *, timeout_s: float, max_retries: int) -> None:
        self.max_retries, self._stream_timeout = max_retries, httpx2.Timeout(timeout_s, read=STREAM_SILENCE_S)
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
        headers: Mapping[str, str | None] | None = None,
    ) -> httpx2.Response:
        """Return a 2xx response or raise. `repeatable`: a call whose repetition changes nothing; another POST gets a key."""
        sent = {name: value for name, value in (headers or {}).items() if value is not None}
        if method == "POST" and not repeatable:
            sent["Idempotency-Key"] = uuid.uuid4().hex if idempotency_key is None else idempotency_key
        silence_repeats = repeatable or "Idempotency-Key" in sent or method in _SAFE
        given = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in range(self.max_retries + 1):
            last = attempt == self.max_retries
            try:
                response = self._http.request(method, path, json=json, params=given, files=files, data=data, headers=sent)
            except httpx2.TransportError as error:
                if last or not silence_repeats:
                    raise self._silent(method, path, error) from error
                time.sleep(pause_s(attempt, None))
                continue
            if response.is_success:
                return response
            problem = _problem(response)
            if last or not problem.get("retryable"):
                raise _refused(response)
            time.sleep(pause_s(attempt, response.headers.get("retry-after")))
        raise AssertionError("the loop returns or raises")

    def lines(self, path: str, body: bytes, media_type: str, params: Mapping[str, Any]) -> Generator[str, None, None]:
        """POST, and the lines of the answer as they come. One try; raise as `call` does."""
        headers = {"Content-Type": media_type}
        try:
            with self._http.stream("POST", path, content=body, params=params, headers=headers) as response:
                if not response.is_success:
                    response.read()
                    raise _refused(response)
                yield from filter(None, response.iter_lines())
        except httpx2.TransportError as error:
            raise self._silent("POST", path, error) from error

    def download(self, path: str, params: Mapping[str, Any]) -> Iterator[str]:
        """GET, and the lines of the answer as they come. One try; raise as `call` does."""
        given = {name: value for name, value in params.items() if value is not None}
        try:
            with self._http.stream("GET", path, params=given) as response:
                if not response.is_success:
                    response.read()
                    raise _refused(response)
                yield from filter(None, response.iter_lines())
        except httpx2.TransportError as error:
            raise self._silent("GET", path, error) from error

    async def lines_async(
        self, path: str, body: bytes, media_type: str, params: Mapping[str, Any]
    ) -> AsyncGenerator[str, None]:
        """The same, for an event loop, on a connection of its own."""
        headers = {**self._http.headers, "Content-Type": media_type}
        try:
            async with (
                httpx2.AsyncClient(base_url=self._http.base_url, headers=headers, timeout=self._http.timeout) as http,
                http.stream("POST", path, content=body, params=params) as response,
            ):
                if not response.is_success:
                    await response.aread()
                    raise _refused(response)
                async for line in response.aiter_lines():
                    if line:
                        yield line
        except httpx2.TransportError as error:
            raise self._silent("POST", path, error) from error

    def _silent(self, method: str, path: str, error: Exception) -> TransportError:
        return TransportError(f"{method} {self._http.base_url}{path}: {error or type(error).__name__}")

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Server-sent events as (name, data of JSON) until the service ends the stream. One try; raise as `call` does."""
        accept = {"Accept": "text/event-stream"}
        try:
            with self._http.stream("GET", path, headers=accept, timeout=self._stream_timeout) as response:
                if not response.is_success:
                    response.read()
                    raise _refused(response)
                for event in httpx2.EventSource(response):
                    if event.data:
                        yield event.event, event.json()
        except (httpx2.TransportError, ValueError) as error:
            raise self._silent("GET", path, error) from error


def path_of(base: str, *parts: str) -> str:
    """Ids are quoted: one that holds a slash must not become another path."""
    return "/".join([base, *(quote(part, safe="") for part in parts)])


def pages(transport: Transport, path: str, page_size: int, **params: Any) -> Iterator[Mapping[str, Any]]:
    """The items of a list, fetched page by page."""
    after: str | None = None
    while True:
        page = transport.call("GET", path, params={**params, "after": after, "limit": page_size}).json()
        yield from page["data"]
        after = page["next"]
        if after is None:
            return


def pause_s(attempt: int, retry_after: str | None) -> float:
    """How long to wait before the next try."""
    if retry_after is not None and retry_after.replace(".", "", 1).isdigit():
        return min(float(retry_after), MAX_PAUSE_S)
    return random.uniform(0, min(FIRST_PAUSE_S * 2**attempt, MAX_PAUSE_S))  # noqa: S311  jitter is no secret


def _refused(response: httpx2.Response) -> APIError:
    error = error_for(response.status_code, _problem(response), response.headers.get("x-request-id"))
    error.retry_after = response.headers.get("retry-after")
    return error


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {"code": "unexpected_answer", "detail": response.text[:200]}
    return problem if isinstance(problem, dict) else {}
