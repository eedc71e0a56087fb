"""One request to an OpenAI-compatible server, and its answer. The only file that knows HTTP."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence

import httpx2

from rag.embedding.remote.answers import failure_of, vectors_of
from rag.embedding.remote.failures import Broken
from rag.embedding.runtime import Matrix

CONNECT_S = 10.0
MAX_BYTES, MAX_BYTES_A_TEXT = 1 << 20, 1 << 19  # of an answer: 16,384 numbers of 32 characters for each text
#: Raised before a byte of the request has left.
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


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
        self._url, self._clock, self._dimensions = f"{url.rstrip('/')}/embeddings", clock, dimensions
        self._request = {"model": model, "encoding_format": "base64"}
        self._asked = {"dimensions": dimensions} if ask_dimensions else {}
        self._http = httpx2.Client(
            headers={"User-Agent": "carrel-server"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    def embed(self, texts: Sequence[str], *, timeout_s: float) -> Matrix:
        """Unit vectors of the texts. Raise a ProviderFailure, or a CarrelError for what no repetition mends."""
        until = self._clock() + timeout_s
        status, headers, body = self._post({**self._request, "input": list(texts), **self._asked}, len(texts), until)
        if status != 200:
            raise failure_of(status, headers, body, now=dt.datetime.now(dt.UTC))
        return vectors_of(body, len(texts), self._dimensions)

    def close(self) -> None:
        self._http.close()

    def _post(self, request: dict[str, object], count: int, until: float) -> tuple[int, httpx2.Headers, bytes]:
        left = max(until - self._clock(), 0.001)
        timeout = httpx2.Timeout(left, connect=min(left, CONNECT_S))
        most, body = MAX_BYTES + MAX_BYTES_A_TEXT * count, bytearray()
        try:
            with self._http.stream("POST", self._url, json=request, timeout=timeout) as response:
                for part in response.iter_bytes():
                    body += part
                    if len(body) > most:
                        raise Broken(f"the answer has more than {most} bytes")
                    if self._clock() > until:  # httpx's own limit is on each silence, and a slow drip is none
                        raise Broken("the answer took too long", timed_out=True)
                return response.status_code, response.headers, bytes(body)
        except httpx2.TimeoutException as error:
            raise Broken("no answer in time", timed_out=True, reached=not isinstance(error, _NOT_SENT)) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Broken(f"the connection failed: {type(error).__name__}", reached=not isinstance(error, _NOT_SENT)) from error
        except RuntimeError as error:  # `close` came between
            raise Broken("the client is closed", reached=False) from error
