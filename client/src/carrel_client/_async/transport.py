"""The wire for an event loop: sends what an exchange says, waits as it says, and gives streams line by line."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Unpack

import httpx2

from carrel_client._async import world
from carrel_client.exchange import USER_AGENT, Answer, Exchange, Told, given, refused, silent
from carrel_client.streams import STREAM_SILENCE_S, EventDecoder, Lines
from carrel_client.tls import trusted

MAX_SHOWN = 500  #: characters of a URL in an error


class AsyncTransport:
    """Of one key. `http`: connections that it does not close."""

    def __init__(
        self, base_url: str, api_key: str, *, timeout_s: float, max_retries: int, http: httpx2.AsyncClient | None = None
    ) -> None:
        self.max_retries, self.timeout_s = max_retries, timeout_s
        self._base_url, self._api_key = base_url.rstrip("/"), api_key
        self._headers = {"Authorization": f"Bearer {api_key}", "User-Agent": USER_AGENT}
        self._http, self._owns = http or httpx2.AsyncClient(verify=trusted()), http is None

    def with_options(self, *, timeout_s: float | None, max_retries: int | None) -> AsyncTransport:
        """Another one, on the same connections."""
        return AsyncTransport(
            self._base_url,
            self._api_key,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            max_retries=self.max_retries if max_retries is None else max_retries,
            http=self._http,
        )

    async def close(self) -> None:
        if self._owns:
            await self._http.aclose()

    async def call(self, method: str, path: str, **told: Unpack[Told]) -> Any:
        """The JSON of a 2xx answer; raise APIError or TransportError."""
        return await self._exchange(method, path, told, as_text=False)

    async def text(self, method: str, path: str, **told: Unpack[Told]) -> str:
        """The same, of an answer that is no JSON."""
        text: str = await self._exchange(method, path, told, as_text=True)
        return text

    async def _exchange(self, method: str, path: str, told: Told, *, as_text: bool) -> Any:
        url = self._base_url + path
        exchange = Exchange(method, url, max_retries=self.max_retries, **told)
        options = {**exchange.options, "headers": {**self._headers, **exchange.options["headers"]}}
        while True:
            try:
                response = await self._http.request(method, url, timeout=self.timeout_s, **options)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                pause: float | None = exchange.broken(error)
            except httpx2.InvalidURL as error:
                raise silent(f"{method} {url[:MAX_SHOWN]}", error) from error
            else:
                answer = Answer(response.status_code, response.headers, response.content)
                pause = exchange.answered(answer, as_text=as_text)
            if pause is None:
                return exchange.result
            await world.sleep(pause)

    async def lines(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float | None = None,
        media_type: str = "",
        empty: bool = False,
    ) -> AsyncGenerator[str, None]:
        """The lines of an answer of this media type as they come, `empty` ones or not. One try; raise as `call` does."""
        lines, url = Lines(), self._base_url + path
        sent: dict[str, Any] = {"content": content, "params": given(params), "headers": {**self._headers, **(headers or {})}}
        sent["timeout"] = httpx2.Timeout(self.timeout_s, read=silence_s or self.timeout_s)
        try:
            async with self._http.stream(method, url, **sent) as response:
                if not response.is_success:
                    raise refused(Answer(response.status_code, response.headers, await response.aread()))
                if not response.headers.get("content-type", "").startswith(media_type):
                    raise ValueError(f"the answer is no {media_type}")
                async for piece in response.aiter_bytes():
                    for line in lines.fed(piece):
                        if line or empty:
                            yield line
                for line in lines.ended():
                    yield line
        except (httpx2.TransportError, httpx2.DecodingError, httpx2.InvalidURL, ValueError) as error:
            raise silent(f"{method} {url[:MAX_SHOWN]}", error) from error

    async def events(self, path: str) -> AsyncGenerator[tuple[str, Any], None]:
        """Server-sent events as (name, data of JSON), and HEARTBEAT, until the service ends the stream. One try."""
        decoder, kind = EventDecoder(), "text/event-stream"
        answer = self.lines("GET", path, headers={"Accept": kind}, silence_s=STREAM_SILENCE_S, media_type=kind, empty=True)
        try:
            async with aclosing(answer) as lines:
                async for line in lines:
                    if (event := decoder.line(line)) is not None:
                        yield event
        except ValueError as error:
            raise silent(f"GET {self._base_url}{path}", error) from error


async def pages(transport: AsyncTransport, path: str, page_size: int, **params: Any) -> AsyncIterator[Mapping[str, Any]]:
    """The items of a list, fetched page by page."""
    after: str | None = None
    while True:
        page = await transport.call("GET", path, params={**params, "after": after, "limit": page_size})
        for item in page["data"]:
            yield item
        after = page["next"]
        if after is None:
            return
