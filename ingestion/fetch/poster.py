"""Sends a message to a URL that a tenant chose: to a checked address, at once, without following where the answer leads."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ingestion.fetch.addresses import UrlPolicy
from ingestion.fetch.connections import Connections, Resolve, resolve, retry_after_s

HEADERS = {"User-Agent": "carrel/0.1 (webhooks)", "Content-Type": "application/json", "Accept": "*/*", "Connection": "close"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    retry_after_s: float | None  #: what the receiver asks to be left alone for


class Poster:
    """`seconds` for all of a message; `resolve` and `tls` for tests."""

    def __init__(
        self, policy: UrlPolicy, *, seconds: float, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        self.policy = policy
        self._connections = Connections(policy, seconds=seconds, resolve=resolve, tls=tls)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raise UrlRefused, FetchFailed or SiteUnavailable. Of the answer only its head is read, which the parser bounds."""
        deadline = time.monotonic() + self._connections.seconds
        target, sent = self.policy.target(url), {**HEADERS, "Content-Length": str(len(body)), **headers}
        with self._connections.failures():
            with self._connections.request("POST", target, sent, deadline, body) as (response, named):
                return Answer(response.status, retry_after_s(named))
