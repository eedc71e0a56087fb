"""Fetches a URL without being led astray: every redirect begins anew, as a URL whose address is checked like the first."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from urllib.parse import urljoin

import httpcore2

from config.errors import FetchFailed, SiteUnavailable, TooLarge, UrlRefused
from ingestion.fetch.addresses import Target, UrlPolicy
from ingestion.fetch.body import Body, media_type
from ingestion.fetch.connections import Connections, Resolve, resolve, retry_after_s

MAX_REDIRECTS = 5
REDIRECTS, PASSING = (301, 302, 303, 307, 308), (429, 502, 503, 504)
HEADERS = {
    "User-Agent": "carrel/0.1 (document fetch)",
    "Accept": "text/html, text/markdown, text/plain, application/pdf, application/xhtml+xml, */*;q=0.1",
    "Accept-Encoding": "gzip",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Fetched:
    content: bytes
    media_type: str
    url: str  #: where the redirects led


class Fetcher:
    """`seconds` for all of a fetch, redirects included; `tls` for tests, else the system's authorities."""

    def __init__(
        self,
        policy: UrlPolicy,
        *,
        max_bytes: int,
        seconds: float,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.policy, self._max_bytes = policy, max_bytes
        self._connections = Connections(policy, seconds=seconds, resolve=resolve, tls=tls)

    def fetch(self, url: str) -> Fetched:
        """Raise UrlRefused, FetchFailed, TooLarge, UnsupportedMedia, or SiteUnavailable if it may go better later."""
        deadline = time.monotonic() + self._connections.seconds
        target = self.policy.target(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._connections.failures():
                answer = self._get(target, deadline)
            if isinstance(answer, Fetched):
                return answer
            target = answer
        raise FetchFailed(f"The site redirects more than {MAX_REDIRECTS} times.")

    def _get(self, target: Target, deadline: float) -> Fetched | Target:
        """The document, or where else to look for it."""
        with self._connections.request("GET", target, HEADERS, deadline) as (response, headers):
            if response.status in REDIRECTS and "location" in headers:
                return self._redirected(target, headers["location"])
            _require_success(response.status, headers)
            content = self._content(response, headers)
        return Fetched(content, media_type(headers.get("content-type", ""), target.path, content), target.url)

    def _redirected(self, target: Target, location: str) -> Target:
        try:
            following = self.policy.target(urljoin(target.url, location))
        except (UrlRefused, ValueError) as error:
            reason = error.detail if isinstance(error, UrlRefused) else "The URL cannot be parsed."
            raise UrlRefused(f"The site redirects to a URL that is refused: {reason}", field="url") from error
        if (target.scheme, following.scheme) == ("https", "http"):
            raise UrlRefused("The site redirects from https to http.", field="url")
        return following

    def _content(self, response: httpcore2.Response, headers: dict[str, str]) -> bytes:
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self._max_bytes:
            raise TooLarge(f"A document has at most {self._max_bytes} bytes.", field="url", limit=self._max_bytes)
        body = Body(headers.get("content-encoding", "").strip().lower(), max_bytes=self._max_bytes)
        for part in response.iter_stream():
            body.add(part)
        return body.content()


def _require_success(status: int, headers: dict[str, str]) -> None:
    if status in PASSING:
        raise SiteUnavailable(f"The site answered {status}.", retry_after_s=retry_after_s(headers))
    if status != 200:
        raise FetchFailed(f"The site answered {status}.")
