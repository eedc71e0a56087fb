"""Finds out who asks, and from where. Whoever guesses keys is answered 429 before long."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.middleware.paths import PUBLIC
from api.problems import problem_response
from config.errors import CarrelError, Unauthenticated
from tenants.identity.authenticator import REFUSED, Identifier, Identity
from tenants.identity.guesses import Guesses

NOWHERE = "unknown"  #: the address of a caller that has none, as on a Unix socket
MAX_FORWARDED = 20  #: entries of the header that are looked at, from the right


class TrustedProxies:
    """Whose word is taken for where a request came from: `X-Forwarded-For` counts only as far as these wrote it."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network, strict=False) for network in networks)

    def caller(self, scope: Scope) -> str:
        """The nearest address that is not a trusted proxy's."""
        peer = str((scope.get("client") or (NOWHERE,))[0])
        if not self._networks or not self._trusts(peer):
            return peer
        listed = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
        for entry in reversed(listed[-MAX_FORWARDED:]):
            named = entry.strip()
            if not _is_address(named):
                break
            peer = named
            if not self._trusts(named):
                break
        return peer

    def _trusts(self, address: str) -> bool:
        return _is_address(address) and any(ipaddress.ip_address(address) in network for network in self._networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Authenticate:
    """Resolves the bearer credential once; everything behind it reads `request.state.identity` and `.address`."""

    def __init__(self, app: ASGIApp, identifier: Identifier, guesses: Guesses, proxies: TrustedProxies) -> None:
        self.app, self._identifier, self._guesses, self._proxies = app, identifier, guesses, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self.app(scope, receive, send)
            return
        scheme, _, credential = Headers(scope=scope).get("authorization", "").partition(" ")
        address = scope["state"]["address"] = self._proxies.caller(scope)
        try:
            if scheme.lower() != "bearer" or not credential:
                raise Unauthenticated(REFUSED)
            known = self._identifier.known(credential.strip(), address)
            scope["state"]["identity"] = known or await self._identify(credential.strip(), address)
        except CarrelError as error:
            await problem_response(error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _identify(self, credential: str, address: str) -> Identity:
        self._guesses.admit(address)
        try:
            return await to_thread.run_sync(self._identifier.identify, credential, address)
        except Unauthenticated:
            self._guesses.wrong(address)
            raise
