"""Puts together what decides who comes into an api process and how much at once."""

from __future__ import annotations

from collections.abc import Sequence

from api.middleware import Gates
from api.middleware.authenticate import TrustedProxies
from api.middleware.bulkheads import Bulkheads
from api.middleware.limit_rate import RatesInForce
from api.processes.upkeep import Task, Upkeep
from api.wiring.core import Core
from config.errors import SetupError
from tenants.identity.authenticator import Identifier
from tenants.identity.guesses import Guesses
from tenants.identity.keys import KeyRing
from tenants.identity.oidc import OidcUsers
from tenants.identity.tokens import TokenSigner
from tenants.limits.rates import OperationClass, Rates
from tenants.limits.shared_rates import EXCHANGE_S, RateExchange

LIMITS_FRESH_MS = 60_000  #: of what changes without telling; the identifier's looks tell of the rest within a second
NOTE_USED_S = 60.0


def build_gates(core: Core, keys: KeyRing, tokens: TokenSigner) -> Gates:
    settings = core.settings
    identifier = Identifier(core.database, keys, tokens, core.clock, _users(core))
    identifier.on_change.append(core.limits.forget)
    core.limits.fresh_ms = LIMITS_FRESH_MS
    places = {
        OperationClass.ADMIN: settings.concurrent_admin,
        OperationClass.QUERY: settings.concurrent_queries,
        OperationClass.READ: settings.concurrent_reads,
        OperationClass.INGEST: settings.concurrent_ingests,
    }
    return Gates(
        identifier,
        Guesses(settings.bad_keys_per_minute),
        TrustedProxies(settings.trusted_proxies),
        RatesInForce(
            Rates(), core.limits, settings.requests_per_second, settings.class_requests_per_second, settings.rate_tokens
        ),
        Bulkheads(places, room=settings.waiting_requests, wait_s=settings.waiting_seconds),
    )


def _users(core: Core) -> OidcUsers | None:
    """None without CARREL_OIDC_ISSUER."""
    if core.settings.oidc_issuer is None:
        if core.settings.oidc_audience is not None or core.settings.oidc_jwks_url is not None:
            raise SetupError("CARREL_OIDC_AUDIENCE or _JWKS_URL is set: set CARREL_OIDC_ISSUER to whose tokens are meant.")
        return None
    from api.wiring.identity_provider import build_users  # noqa: PLC0415  a client of HTTP, for those who use it only

    return build_users(core)


def build_upkeep(core: Core, gates: Gates, keys: KeyRing, more: Sequence[Task]) -> Upkeep:
    tasks = [*more, Task("last use of keys", lambda: keys.note_used(gates.identifier.take_used()), NOTE_USED_S)]
    if core.settings.rate_sharing == "database":
        exchange = RateExchange(core.database, core.clock, gates.rates.rates)
        tasks.append(Task("rate limits", exchange.run_once, EXCHANGE_S))
    return Upkeep(tasks)
