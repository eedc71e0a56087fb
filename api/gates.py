"""Puts together what decides who comes into an api process and how much at once."""

from __future__ import annotations

from api.middleware import Gates
from api.middleware.authenticate import TrustedProxies
from api.middleware.bulkheads import Bulkheads
from api.middleware.limit_rate import RatesInForce
from api.upkeep import Task, Upkeep
from api.wiring import Core
from tenants.guesses import Guesses
from tenants.identity import Identifier
from tenants.keys import KeyRing
from tenants.rates import OperationClass, Rates
from tenants.shared_rates import EXCHANGE_S, RateExchange
from tenants.tokens import TokenSigner

LIMITS_FRESH_MS = 60_000  #: of what changes without telling; the identifier's looks tell of the rest within a second
NOTE_USED_S = 60.0


def build_gates(core: Core, keys: KeyRing, tokens: TokenSigner) -> Gates:
    settings = core.settings
    identifier = Identifier(core.database, keys, tokens, core.clock)
    identifier.on_change = core.limits.forget
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


def build_upkeep(core: Core, gates: Gates, keys: KeyRing) -> Upkeep:
    tasks = [Task("last use of keys", lambda: keys.note_used(gates.identifier.take_used()), NOTE_USED_S)]
    if core.settings.rate_sharing == "database":
        exchange = RateExchange(core.database, core.clock, gates.rates.rates)
        tasks.append(Task("rate limits", exchange.run_once, EXCHANGE_S))
    return Upkeep(tasks)
