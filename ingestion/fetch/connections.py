"""The only way to a socket of others: each connection goes to an address that was checked a moment before, and to no other.

The backend below resolves the name itself, refuses the name if any of its addresses is not permitted, and connects to one of
them by number; TLS is still verified against the name. There are no proxies, no cookies and no credentials.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpcore2

from config.errors import FetchFailed, SiteUnavailable, UrlRefused
from ingestion.fetch.addresses import Target, UrlPolicy

MAX_ADDRESSES = 4  # of one name that are tried
CONNECT_S = 10.0

#: The addresses of a host, in the order to try them. Empty: there is no such name. Raise SiteUnavailable if nobody can say.
Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """By the system's resolver, which has time limits of its own (usually 5 s a server, tried twice)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise SiteUnavailable("The site's name cannot be looked up at the moment.") from error
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Connections:
    """`seconds` for all of a request, what it leads to included; `tls` for tests, else the system's authorities."""

    def __init__(
        self, policy: UrlPolicy, *, seconds: float, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        self.policy, self.seconds, self._resolve, self._tls = policy, seconds, resolve, tls

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Raise what fails in here as FetchFailed, or as SiteUnavailable if it may go better later."""
        try:
            yield
        except httpcore2.ProtocolError as error:
            raise FetchFailed("The site's answer is no valid HTTP, or was cut off.") from error
        except (httpcore2.ConnectTimeout, httpcore2.NetworkError) as error:
            raise SiteUnavailable("The connection to the site failed.") from error
        except httpcore2.TimeoutException as error:
            raise FetchFailed(f"The site took too long: it has {self.seconds:g} s.") from error

    @contextmanager
    def request(
        self, method: str, target: Target, headers: Mapping[str, str], deadline: float, body: bytes | None = None
    ) -> Iterator[tuple[httpcore2.Response, dict[str, str]]]:
        """The answer, whose body is still to come, and its headers by their names in lower case."""
        backend = CheckedBackend(self.policy, self._resolve, deadline)
        url = httpcore2.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        sent = [("Host", target.authority), *headers.items()]
        with httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool:
            with pool.stream(method, url, headers=sent, content=body) as response:
                named = {name.decode("ascii").lower(): value.decode(errors="replace") for name, value in response.headers}
                yield response, named


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What the site asks to be left alone for; as a date it is not understood."""
    after = headers.get("retry-after", "")
    return float(after) if after.isdecimal() and len(after) < 6 else None


class CheckedBackend(httpcore2.NetworkBackend):
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
