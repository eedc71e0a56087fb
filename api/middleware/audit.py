"""Puts each request that changes, retrieves or is denied on record."""

from __future__ import annotations

import logging
import time
from typing import Any

from anyio import CancelScope, to_thread
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.paths import RETRIEVALS
from config.errors import Unauthenticated
from tenants.audit.record import AuditLog, Event
from tenants.identity.authenticator import Identity

log = logging.getLogger(__name__)

_DENIALS_LOGGED = RateLimitItemPerMinute(60)
UNANSWERED = 500  # what is on record of a request that ended without an answer
THROTTLED_EVERY_S, MAX_THROTTLED = 10.0, 10_000


class Audit:
    """Writes the entry before the answer leaves: what was acknowledged is on record."""

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self.app, self._audit = app, audit
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._throttled = _Throttled()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        recorded = False

        async def send_wrapper(message: Message) -> None:
            nonlocal recorded
            if message["type"] == "http.response.start":
                recorded = True
                await self._record(scope, int(message["status"]))
            await send(message)

        try:
            await self.app(scope, receive, send_wrapper)
        finally:
            if not recorded:  # it ended without an answer: by an error, or because its client went away
                with CancelScope(shield=True):
                    await self._record(scope, UNANSWERED)

    async def _record(self, scope: Scope, status: int) -> None:
        identity: Identity | None = scope["state"].get("identity")
        if identity is None:
            if status == Unauthenticated.status and self._limiter.hit(_DENIALS_LOGGED, "denials"):
                client = (scope.get("client") or ("unknown",))[0]
                log.warning("denied without identity", extra={"path": scope["path"][:200], "address": client})
            return
        denied = status in (401, 402, 403, 429)
        if scope["method"] in ("GET", "HEAD") and not denied and not RETRIEVALS.fullmatch(scope["path"]):
            return
        if scope["state"].get("audited") == status:  # its entry was written with what it changed
            return
        detail = scope["state"].get("audit", {})
        if scope["state"].get("throttled"):
            unrecorded = self._throttled.count(identity.principal.key_id)
            if unrecorded is None:
                return
            detail = {"refused_before": unrecorded}
        event = event_of(scope, status, detail)
        intent = scope["state"].get("audit_intent")
        await to_thread.run_sync(lambda: self._audit.append(event, intent=intent))


def event_of(scope: Scope, status: int, detail: dict[str, Any]) -> Event:
    """What the audit record tells of a request that has an identity."""
    identity: Identity = scope["state"]["identity"]
    route = getattr(scope.get("route"), "path", scope["path"][:200])
    return Event(
        request_id=scope["state"]["request_id"],
        principal=identity.principal,
        tenant_id=identity.tenant.tenant_id if identity.tenant else None,
        action=f"{scope['method']} {route}",
        target=_target(scope, identity)[:500],
        status=status,
        detail=detail,
    )


def _target(scope: Scope, identity: Identity) -> str:
    """The path, whose ids are no content; the name of a subject is: the record outlives its erasure."""
    subject = scope.get("path_params", {}).get("subject")
    if subject is None or identity.tenant is None:
        return str(scope["path"])
    return str(scope["route"].path_format).replace("{subject}", identity.tenant.pseudonym(subject))


class _Throttled:
    """Refusals for coming too often, by key: one in ten seconds is put on record and says how many came before it. One
    each would make of ten times the permitted rate ten times the writing."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}

    def count(self, key_id: str) -> int | None:
        """How many were not recorded since the last that was; None: nor is this one."""
        now = time.monotonic()
        due, count = self._seen.get(key_id, (0.0, 0))
        if now < due:
            self._seen[key_id] = [due, count + 1]
            return None
        if len(self._seen) >= MAX_THROTTLED:
            self._seen.clear()
        self._seen[key_id] = [now + THROTTLED_EVERY_S, 0]
        return int(count)
