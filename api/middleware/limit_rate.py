"""Lets nobody ask faster than its key, its tenant and the class of the operation may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.paths import STREAMED, class_of
from api.problems import problem_response
from config.errors import RateLimited
from tenants.identity.authenticator import Identity
from tenants.limits.plans import Limits, LimitsInForce
from tenants.limits.rates import KEY_BURST_S, OperationClass, Rate, Rates

BYTES_PER_TOKEN = 4  #: about; what is brought is not read yet when it is weighed


@dataclass(frozen=True, slots=True)
class RatesInForce:
    """`weight`: tokens that count as one request more. `of_class`: requests a second of one tenant, by class."""

    rates: Rates
    limits: LimitsInForce
    key_per_second: float
    of_class: Mapping[str, float]
    weight: int

    async def limits_of(self, identity: Identity) -> Limits | None:
        if identity.tenant is None:
            return None
        tenant_id = identity.tenant.tenant_id
        return self.limits.kept(tenant_id) or await to_thread.run_sync(self.limits.of, tenant_id)

    def holding(self, identity: Identity, limits: Limits | None, kind: OperationClass) -> list[Rate]:
        """Those that a request must keep to."""
        per_second, key_id = self.key_per_second, identity.principal.key_id
        held = [Rate(f"key {key_id}", "key", per_second, per_second * KEY_BURST_S)]
        if identity.tenant is None or limits is None:
            return held
        tenant_id = identity.tenant.tenant_id
        if (most := limits.requests_per_second) is not None:
            held.append(Rate(f"tenant {tenant_id}", "tenant", most, limits.burst or max(most, 1.0)))
        if (most := self.of_class.get(kind)) is not None:
            held.append(Rate(f"{kind} {tenant_id}", f"tenant-{kind}", most, max(most, 1.0)))
        return held


class LimitRate:
    def __init__(self, app: ASGIApp, rates: RatesInForce) -> None:
        self.app, self._rates = app, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity: Identity | None = scope.get("state", {}).get("identity")
        if identity is None:
            await self.app(scope, receive, send)
            return
        limits = scope["state"]["limits"] = await self._rates.limits_of(identity)
        held = self._rates.holding(identity, limits, class_of(scope["method"], scope["path"]))
        try:
            left = self._rates.rates.take(held)
        except RateLimited as error:
            scope["state"]["throttled"] = True
            await problem_response(error)(scope, receive, send)
            return
        policies = ", ".join(rate.told() for rate in held).encode()
        told = [(b"ratelimit-policy", policies), (b"ratelimit", left.told().encode())]

        async def send_wrapper(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *told]
            await send(message)

        try:
            await self.app(scope, receive, send_wrapper)
        finally:
            if tokens := _tokens(scope):
                self._rates.rates.charge(held, tokens / self._rates.weight)


def _tokens(scope: Scope) -> float:
    """What the request turned out to be about: tokens that were embedded, or about what its body has."""
    if (embedded := scope["state"].get("tokens")) is not None:
        return float(embedded)
    if scope["path"] in STREAMED or scope["method"] in ("GET", "HEAD"):
        return 0.0
    return float(scope["state"].get("body_bytes", 0) / BYTES_PER_TOKEN)
