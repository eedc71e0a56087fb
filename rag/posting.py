"""One JSON request to a provider outside, bounded in time and bytes."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2

from rag.embedding.remote.failures import Broken

CONNECT_S = 10.0
#: Raised before a byte of the request has left.
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Posting:
    """Threads share it, and its connections."""

    def __init__(self, url: str, api_key: str | None, *, connections: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self.clock = url, clock
        self._http = httpx2.Client(
            headers={"User-Agent": "carrel-server"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    def post(self, request: dict[str, object], *, most_bytes: int, timeout_s: float) -> tuple[int, httpx2.Headers, bytes]:
        """Status, headers and body of the answer. Raise Broken for none, half of one, or one that is too long."""
        until, left = self.clock() + timeout_s, max(timeout_s, 0.001)
        timeout, body = httpx2.Timeout(left, connect=min(left, CONNECT_S)), bytearray()
        try:
            with self._http.stream("POST", self._url, json=request, timeout=timeout) as response:
                for part in response.iter_bytes():
                    body += part
                    if len(body) > most_bytes:
                        raise Broken(f"the answer has more than {most_bytes} bytes")
                    if self.clock() > until:  # httpx's own limit is on each silence, and a slow drip is none
                        raise Broken("the answer took too long", timed_out=True)
                return response.status_code, response.headers, bytes(body)
        except httpx2.TimeoutException as error:
            raise Broken("no answer in time", timed_out=True, reached=not isinstance(error, _NOT_SENT)) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Broken(f"the connection failed: {type(error).__name__}", reached=not isinstance(error, _NOT_SENT)) from error
        except RuntimeError as error:  # `close` came between
            raise Broken("the client is closed", reached=False) from error

    def close(self) -> None:
        self._http.close()
