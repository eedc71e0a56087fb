"""From settings to the users of the operator's identity provider, and the only way to that provider: two bounded GETs.

The operator named the provider, so it may stand at any address; what it leads to by its discovery document is believed as far
as its certificate goes. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import json
import time
from urllib.parse import urlsplit

from api.wiring.core import Core
from config.errors import FetchFailed, SetupError
from config.settings import Settings
from ingestion.fetch.addresses import PORTS, UrlPolicy
from ingestion.fetch.body import Body
from ingestion.fetch.connections import Connections
from tenants.context import Scope
from tenants.identity.oidc import OidcRules, OidcUsers
from tenants.identity.oidc_keys import SigningKeys

SECONDS = 4.0  #: for the discovery document and the keys: a request waits for them
MAX_BYTES = 256 * 1024
DISCOVERY = "/.well-known/openid-configuration"
HEADERS = {"User-Agent": "carrel-server", "Accept": "application/json", "Connection": "close"}


def build_users(core: Core) -> OidcUsers:
    """Of the issuer that is set. Asks the provider nothing. Raise SetupError saying what to set."""
    settings = core.settings
    documents = ProviderDocuments(settings)
    keys = SigningKeys(
        documents.keys,
        settings.oidc_algorithms,
        fresh_s=settings.oidc_keys_seconds,
        stale_s=settings.oidc_keys_stale_seconds,
    )
    return OidcUsers(_rules(settings), keys, core.registry, core.clock)


def _rules(settings: Settings) -> OidcRules:
    if not settings.oidc_audience:
        raise SetupError("CARREL_OIDC_ISSUER is set: set CARREL_OIDC_AUDIENCE to what its tokens for this service name.")
    return OidcRules(
        issuer=settings.oidc_issuer or "",
        audience=settings.oidc_audience,
        tenant_claim=settings.oidc_tenant_claim,
        subject_claim=settings.oidc_subject_claim,
        scopes_claim=settings.oidc_scopes_claim,
        labels_claim=settings.oidc_labels_claim,
        collections_claim=settings.oidc_collections_claim,
        scopes=frozenset(map(Scope, settings.oidc_default_scopes)),
        labels=_bound(settings.oidc_default_labels),
        collections=_bound(settings.oidc_default_collections),
        max_age_s=settings.oidc_max_age_seconds,
    )


def _bound(names: tuple[str, ...]) -> frozenset[str] | None:
    """`*`, which only the operator can say, is everything."""
    return None if names == ("*",) else frozenset(names)


class ProviderDocuments:
    """What the provider publishes. Raise SetupError for addresses that are not to be asked."""

    def __init__(self, settings: Settings) -> None:
        self._issuer, self._jwks_url = settings.oidc_issuer or "", settings.oidc_jwks_url
        self._allow_http = settings.oidc_allow_http
        first = {"CARREL_OIDC_JWKS_URL": self._jwks_url} if self._jwks_url else {"CARREL_OIDC_ISSUER": self._issuer}
        for name, url in first.items():
            if not self._may_ask(url):
                raise SetupError(
                    f"{name} is no plain https URL. http is for this machine, or anywhere with CARREL_OIDC_ALLOW_HTTP=true."
                )

    def keys(self) -> bytes:
        """The JWK set. Raise CarrelError saying why there is none."""
        deadline = time.monotonic() + SECONDS
        return self._get(self._jwks_url or self._discovered(deadline), deadline)

    def _discovered(self, deadline: float) -> str:
        try:
            document = json.loads(self._get(self._issuer.removesuffix("/") + DISCOVERY, deadline))
            issuer, url = document["issuer"], document["jwks_uri"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise FetchFailed("The discovery document does not name an issuer and its keys.") from error
        if issuer != self._issuer:
            raise FetchFailed("The discovery document is another issuer's.")
        if not isinstance(url, str) or not self._may_ask(url):
            raise FetchFailed("The discovery document leads to keys that are not at a plain https URL.")
        return url

    def _may_ask(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        secret = parts.scheme == "https" or (parts.scheme == "http" and (self._allow_http or _is_here(host)))
        return bool(secret and host and port != 0 and not (parts.username or parts.fragment))

    def _get(self, url: str, deadline: float) -> bytes:
        parts = urlsplit(url)
        policy = UrlPolicy(frozenset({parts.port or PORTS[parts.scheme]}), frozenset({parts.hostname or ""}))
        connections, body = Connections(policy, seconds=SECONDS), Body("", max_bytes=MAX_BYTES)
        with connections.failures(), connections.request("GET", policy.target(url), HEADERS, deadline) as (response, headers):
            if response.status != 200:
                raise FetchFailed(f"The identity provider answered {response.status}.")
            if headers.get("content-encoding", "identity") != "identity":
                raise FetchFailed("The identity provider packed its answer, which was not asked for.")
            for part in response.iter_stream():
                body.add(part)
        return body.content()


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
