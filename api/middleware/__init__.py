"""The request's way in, as pure ASGI (three BaseHTTPMiddleware would cost 72 % of the throughput).

    request id → drain → audit → identity → rate → bulkhead → body limit → route

Deny by default: without an identity nothing but PUBLIC is reached, and no body is read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from api.middleware.audit import Audit, event_of
from api.middleware.authenticate import Authenticate, TrustedProxies
from api.middleware.body import LimitBody
from api.middleware.bulkheads import Bulkhead, Bulkheads
from api.middleware.limit_rate import LimitRate, RatesInForce
from api.middleware.paths import ASKING, PUBLIC, STREAMED, class_of
from api.middleware.request_id import Drain, RequestId
from api.openai.errors import OpenAIErrors
from tenants.audit.record import AuditLog
from tenants.identity.authenticator import Identifier
from tenants.identity.guesses import Guesses

__all__ = ["ASKING", "PUBLIC", "STREAMED", "Gates", "class_of", "event_of", "stack"]


@dataclass(frozen=True, slots=True)
class Gates:
    """What decides who comes in, and when."""

    identifier: Identifier
    guesses: Guesses
    proxies: TrustedProxies
    rates: RatesInForce
    bulkheads: Bulkheads


def stack(app: ASGIApp, gates: Gates, *, draining: threading.Event, audit: AuditLog, max_body: int) -> Any:
    """The middlewares around `app`, outermost first in the order of the module's docstring."""
    inner = LimitRate(Bulkhead(LimitBody(app, max_body), gates.bulkheads), gates.rates)
    identified = Authenticate(inner, gates.identifier, gates.guesses, gates.proxies)
    return OpenAIErrors(RequestId(Drain(Audit(identified, audit), draining)))
