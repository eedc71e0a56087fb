"""Fetches a URL without being led astray: each connection goes to an address that was checked a moment before, and to no other.

The backend below is the only way to a socket. It resolves the name itself, refuses the name if any of its addresses is not
permitted, and connects to one of them by number; TLS is still verified against the name. There are no proxies, no cookies
and no credentials, and every redirect begins anew. The only file that imports httpcore2.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpcore2

from config.errors import FetchFailed, SiteUnavailable, TooLarge, UrlRefused
from ingestion.fetch.addresses import Target, UrlPolicy
from ingestion.fetch.body import Body, media_type

MAX_REDIRECTS = 5
MAX_ADDRESSES = 4  # of one name that are tried
CONNECT_S = 10.0
REDIRECTS, PASSING = (301, 302, 303, 307, 308), (429, 502, 503, 504)
HEADERS = {
    "User-Agent": "carrel/0.1 (document fetch)",
    "Accept": "text/html, text/markdown, text/plain, application/pdf, application/xhtml+xml, */*;q=0.1",
    "Accept-Encoding": "gzip",
    "Connection": "close",
}

#: The addresses of a host, in the order to try them. Empty: there is no such name. Raise SiteUnavailable if nobody can say.
Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Fetched:
    content: bytes
    media_type: str
    url: str  #: where the redirects led


def resolve(host: str, port: int) -> list[str]:
    """By the system's resolver, which has time limits of its own (usually 5 s a server, tried twice)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise SiteUnavailable("The site's name cannot be looked up at the moment.") from error
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


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
        self.policy, self._max_bytes, self._seconds = policy, max_bytes, seconds
        self._resolve, self._tls = resolve, tls

    def fetch(self, url: str) -> Fetched:
        """Raise UrlRefused, FetchFailed, TooLarge, UnsupportedMedia, or SiteUnavailable if it may go better later."""
        deadline = time.monotonic() + self._seconds
        target = self.policy.target(url)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = self._get(target, deadline)
            except (httpcore2.ConnectTimeout, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
                raise _failure(error) from error
            except httpcore2.TimeoutException as error:
                raise FetchFailed(f"The site took too long: it has {self._seconds:g} s.") from error
            if isinstance(answer, Fetched):
                return answer
            target = answer
        raise FetchFailed(f"The site redirects more than {MAX_REDIRECTS} times.")

    def _get(self, target: Target, deadline: float) -> Fetched | Target:
        """The document, or where else to look for it."""
        backend = _CheckedBackend(self.policy, self._resolve, deadline)
        url = httpcore2.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        with httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool:
            with pool.stream("GET", url, headers=[("Host", target.authority), *HEADERS.items()]) as response:
                headers = {name.decode("ascii").lower(): value.decode(errors="replace") for name, value in response.headers}
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


class _CheckedBackend(httpcore2.NetworkBackend):
    """Of one request. Connects only to addresses that the policy permits, and lets nothing last beyond the deadline."""

    def __init__(self, policy: UrlPolicy, resolve: Resolve, deadline: float) -> None:
        self._policy, self._resolve, self._deadline = policy, resolve, deadline
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        failure: Exception = httpcore2.ConnectError()
        for address in self._addresses(host, port)[:MAX_ADDRESSES]:
            try:
                stream = self._sockets.connect_tcp(address, port, min(CONNECT_S, _left(self._deadline)))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        """Refuse the name for one address that is not permitted: a name that mixes them is made to be misread."""
        found = [host] if _is_literal(host) else self._resolve(host, port)
        if not found or not all(self._policy.permits(host, ipaddress.ip_address(address)) for address in found):
            # One answer for both: nobody is to learn which names exist inside.
            raise UrlRefused("The URL does not lead to a public address.", field="url")
        return found


class _TimedStream(httpcore2.NetworkStream):
    """A socket of which every operation gets what is left until the deadline, not the same time again and again."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            wrapped = self._stream.start_tls(ssl_context, server_hostname, min(CONNECT_S, _left(self._deadline)))
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise FetchFailed("The site's certificate is not valid for its name, or not trusted.") from error
            raise
        return _TimedStream(wrapped, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout()
    return left


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _require_success(status: int, headers: dict[str, str]) -> None:
    if status in PASSING:
        after = headers.get("retry-after", "")
        wait = float(after) if after.isdecimal() and len(after) < 6 else None
        raise SiteUnavailable(f"The site answered {status}.", retry_after_s=wait)
    if status != 200:
        raise FetchFailed(f"The site answered {status}.")


def _failure(error: Exception) -> FetchFailed | SiteUnavailable:
    if isinstance(error, httpcore2.ProtocolError):
        return FetchFailed("The site's answer is no valid HTTP, or was cut off.")
    return SiteUnavailable("The connection to the site failed.")
