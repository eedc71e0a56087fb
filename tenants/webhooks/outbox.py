"""The sender's side of webhooks: events become deliveries, deliveries are tried, and what came of each is written down.

Whoever sends for an endpoint holds its lease. Every transaction begins with the endpoint's row and compares the lease's
epoch, so that one who was silent too long changes nothing any more. Nothing says that a try has begun: one that was cut off
is made again, under the same id.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from config.ids import new_id
from tenants.context import TenantContext
from tenants.events import DAY_MS, emit
from tenants.tables import Event
from tenants.webhooks.rules import (
    FAILING,
    GONE,
    MAX_ASKED_S,
    MOST_AHEAD_MS,
    TEST,
    Outcome,
    gives_up,
    is_ahead,
    next_try,
    pause_ms,
    wants,
)
from tenants.webhooks.tables import WebhookDelivery, WebhookEndpoint

PAGE = 200  # events that become deliveries in one transaction
MAX_PENDING = 1_000  # deliveries of an endpoint; what follows stays in the outbox until there is room
MOST_PAUSE_MS = 1000 * MAX_ASKED_S
IDLE_MS = 5_000  # how long an endpoint with neither room nor anything due is left alone
PURGE_ROWS, PURGE_PAGES = 1_000, 1_000  # in one transaction, and in one call


@dataclass(frozen=True, slots=True)
class Ready:
    """An endpoint that there is something to do for."""

    tenant_id: str
    endpoint_id: str


@dataclass(frozen=True, slots=True)
class SendLease:
    context: TenantContext
    endpoint_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be sent now, and where to."""

    url: str
    delivery: WebhookDelivery


class WebhookOutbox:
    def __init__(self, database: Database, clock: Clock, *, lease_s: float, chance: random.Random) -> None:
        """`lease_s` must be longer than a try takes; `chance` spreads the tries."""
        self._database, self.clock, self._lease_ms, self._chance = database, clock, round(lease_s * 1000), chance

    def ready(self, limit: int) -> list[Ready]:
        """Of all tenants, those first that were served longest ago."""
        now = self.clock()
        free = (
            col(WebhookEndpoint.disabled_reason).is_(None),
            _has_come(col(WebhookEndpoint.lease_until), now, self._lease_ms),
            _has_come(col(WebhookEndpoint.resume_at), now, MOST_PAUSE_MS),
        )
        due = (_PENDING.where(within) for within in _due(now))
        waits = sa.or_(col(WebhookEndpoint.replay_until).is_not(None), _NEW_EVENTS, *due)
        statement = select(col(WebhookEndpoint.tenant_id), col(WebhookEndpoint.id)).where(*free, waits)
        with self._database.system_read() as session:
            rows = session.execute(statement.order_by(col(WebhookEndpoint.served_at), col(WebhookEndpoint.id)).limit(limit))
            return [Ready(*row) for row in rows]

    def claim(self, context: TenantContext, endpoint_id: str) -> SendLease | None:
        """The lease, for one of those who want it at the same moment."""
        now = self.clock()
        with self._database.write(context) as session:
            endpoint = session.scalars(_endpoint(endpoint_id)).one_or_none()
            if endpoint is None or endpoint.disabled_reason is not None or is_ahead(endpoint.lease_until, now, self._lease_ms):
                return None
            endpoint.epoch, endpoint.served_at = endpoint.epoch + 1, now
            endpoint.lease_until = now + self._lease_ms
            return SendLease(context, endpoint_id, endpoint.epoch)

    def release(self, lease: SendLease, *, idle: bool) -> None:
        """`idle`: nothing could be done for it."""
        now = self.clock()
        with self._database.write(lease.context) as session:
            if endpoint := _owned(session, lease):
                endpoint.lease_until = 0
                if idle:
                    paused = endpoint.resume_at if is_ahead(endpoint.resume_at, now, MOST_PAUSE_MS) else 0
                    endpoint.resume_at = max(paused, now + IDLE_MS)

    def place(self, lease: SendLease) -> bool:
        """Make a page of events into deliveries, and note in the same transaction how far that is; whether there were any."""
        with self._database.write(lease.context) as session:
            endpoint = _owned(session, lease)
            if endpoint is None or _pending(session, endpoint) >= MAX_PENDING:
                return False
            if endpoint.replay_until is not None:
                events = _page(session, endpoint.replay_after or 0, endpoint.replay_until)
                self._deliver(session, endpoint, events, again=True)
                endpoint.replay_after = events[-1].seq if events else endpoint.replay_until
                if len(events) < PAGE:
                    endpoint.replay_after = endpoint.replay_until = None
                return True
            events = _page(session, endpoint.last_seq, None)
            self._deliver(session, endpoint, events, again=False)
            if events:
                endpoint.last_seq = events[-1].seq or 0
            return bool(events)

    def _deliver(self, session: Session, endpoint: WebhookEndpoint, events: Sequence[Event], *, again: bool) -> None:
        window_ms = 1000 * endpoint.coalesce_seconds
        now, wanted = self.clock(), [event for event in events if wants(endpoint.events, event.type)]
        known = _known(session, endpoint, [event.id for event in wanted])
        gathered = {} if again or not window_ms else _gathered(session, endpoint, wanted, now)
        for event in wanted:
            former, same = known.get(event.id), gathered.get((event.type, event.subject))
            if former is not None:
                if again:
                    send_again(former, now)
            elif same is not None:
                same.event_id, same.seq, same.at, same.data = event.id, event.seq or 0, event.at, event.data
                same.coalesced += 1
            else:
                delivery = _delivery(endpoint, event, now if again else max(now, min(event.at, now) + window_ms), now)
                session.add(delivery)
                if window_ms and not again:
                    gathered[event.type, event.subject] = delivery

    def next(self, lease: SendLease) -> Due | None:
        """What is due first. None too if the endpoint is another's by now, disabled, deleted or left alone."""
        now = self.clock()
        with self._database.read(lease.context) as session:
            wanted = select(WebhookEndpoint).where(col(WebhookEndpoint.id) == lease.endpoint_id)
            endpoint = session.scalars(wanted).one_or_none()
            if endpoint is None or endpoint.epoch != lease.epoch or endpoint.disabled_reason is not None:
                return None
            if is_ahead(endpoint.resume_at, now, MOST_PAUSE_MS):
                return None
            order = col(WebhookDelivery.due_at), col(WebhookDelivery.seq)
            due = (_of(endpoint.id, "pending").where(within).order_by(*order).limit(1) for within in _due(now))
            delivery = next((found for one in due if (found := session.scalars(one).first()) is not None), None)
        return None if delivery is None else Due(endpoint.url, delivery)

    def record(self, lease: SendLease, sent: WebhookDelivery, outcome: Outcome) -> None:
        """Of a try that was made; nothing, if another holds the lease by now: what joined the delivery since is its to send."""
        now = self.clock()
        with self._database.write(lease.context) as session:
            endpoint = _owned(session, lease)
            if endpoint is None:
                return
            own = _of(endpoint.id, "pending").where(col(WebhookDelivery.id) == sent.id)
            if delivery := session.scalars(own).one_or_none():
                self._tried(delivery, outcome, now)
            endpoint.lease_until = now + self._lease_ms
            if outcome.error is None:
                endpoint.failures, endpoint.failing_since, endpoint.last_success_at = 0, None, now
            else:
                self._failed(session, endpoint, outcome, now)

    def _tried(self, delivery: WebhookDelivery, outcome: Outcome, now: int) -> None:
        delivery.attempts += 1
        delivery.last_status, delivery.last_error = outcome.status, outcome.error
        if outcome.error is None:
            delivery.state, delivery.finished_at = "delivered", now
            return
        given_up = outcome.gone or delivery.type == TEST
        again = None if given_up else next_try(delivery.attempts, now, self._chance)
        if again is None:
            delivery.state, delivery.finished_at = "failed", now
        else:
            delivery.due_at = again

    def _failed(self, session: Session, endpoint: WebhookEndpoint, outcome: Outcome, now: int) -> None:
        endpoint.failures += 1
        endpoint.failing_since = endpoint.failing_since or now
        endpoint.resume_at = now + pause_ms(endpoint.failures, outcome.retry_after_s)
        if outcome.gone or gives_up(endpoint.failures, now - endpoint.failing_since):
            disable(session, self.clock, endpoint, GONE if outcome.gone else FAILING)

    def purge(self, older_than_days: int) -> int:
        """Delete old deliveries of all tenants that have ended, or that wait for a disabled endpoint; return how many."""
        before, purged = self.clock() - older_than_days * DAY_MS, 0
        disabled = select(col(WebhookEndpoint.id)).where(col(WebhookEndpoint.disabled_at) < before)
        some = select(col(WebhookDelivery.id)).limit(PURGE_ROWS)
        ended = some.where(col(WebhookDelivery.finished_at) < before)
        left = some.where(col(WebhookDelivery.endpoint_id).in_(disabled))
        for _ in range(PURGE_PAGES):
            with self._database.system_write() as session:
                old = session.scalars(ended).all() or session.scalars(left).all()
                session.execute(sa.delete(WebhookDelivery).where(col(WebhookDelivery.id).in_(old)), execution_options=_NO_SYNC)
            purged += len(old)
            if not old:
                break
        return purged


def disable(session: Session, clock: Clock, endpoint: WebhookEndpoint, reason: str) -> None:
    endpoint.disabled_reason, endpoint.disabled_at = reason, clock()
    endpoint.replay_after = endpoint.replay_until = None
    emit(session, clock, endpoint.tenant_id, "webhook.disabled", endpoint.id, reason=reason)


def send_again(delivery: WebhookDelivery, now: int) -> None:
    """From the start, and under the same id; one that waits to be sent anyway stays as it is."""
    if delivery.state != "pending":
        delivery.state, delivery.attempts, delivery.due_at, delivery.finished_at = "pending", 0, now, None


_NO_SYNC = {"synchronize_session": False}
_NEW_EVENTS = sa.exists().where(
    col(Event.tenant_id) == col(WebhookEndpoint.tenant_id), col(Event.seq) > col(WebhookEndpoint.last_seq)
)
_PENDING = sa.exists().where(
    col(WebhookDelivery.endpoint_id) == col(WebhookEndpoint.id), col(WebhookDelivery.state) == "pending"
)


def _has_come(moment: Any, now: int, most_ms: int) -> sa.ColumnElement[bool]:
    """As `is_ahead` says it."""
    return sa.or_(moment <= now, moment > now + most_ms)


def _due(now: int) -> tuple[sa.ColumnElement[bool], ...]:
    """The same of deliveries, as two ranges of their index."""
    return col(WebhookDelivery.due_at) <= now, col(WebhookDelivery.due_at) > now + MOST_AHEAD_MS


def _endpoint(endpoint_id: str) -> SelectOfScalar[WebhookEndpoint]:
    """Held until the transaction ends."""
    return select(WebhookEndpoint).where(col(WebhookEndpoint.id) == endpoint_id).with_for_update()


def _owned(session: Session, lease: SendLease) -> WebhookEndpoint | None:
    """None if another holds the lease by now, or the endpoint is gone."""
    endpoint = session.scalars(_endpoint(lease.endpoint_id)).one_or_none()
    return endpoint if endpoint is not None and endpoint.epoch == lease.epoch else None


def _of(endpoint_id: str, state: str) -> SelectOfScalar[WebhookDelivery]:
    return select(WebhookDelivery).where(col(WebhookDelivery.endpoint_id) == endpoint_id, col(WebhookDelivery.state) == state)


def _pending(session: Session, endpoint: WebhookEndpoint) -> int:
    own = (col(WebhookDelivery.endpoint_id) == endpoint.id, col(WebhookDelivery.state) == "pending")
    return session.scalar(select(sa.func.count()).select_from(WebhookDelivery).where(*own)) or 0


def _page(session: Session, after: int, until: int | None) -> list[Event]:
    statement = select(Event).where(col(Event.seq) > after).order_by(col(Event.seq)).limit(PAGE)
    return [*session.scalars(statement if until is None else statement.where(col(Event.seq) <= until))]


def _known(session: Session, endpoint: WebhookEndpoint, events: Sequence[str]) -> dict[str, WebhookDelivery]:
    own = (col(WebhookDelivery.endpoint_id) == endpoint.id, col(WebhookDelivery.event_id).in_(events))
    return {row.event_id: row for row in session.scalars(select(WebhookDelivery).where(*own))} if events else {}


def _gathered(
    session: Session, endpoint: WebhookEndpoint, events: Sequence[Event], now: int
) -> dict[tuple[str, str], WebhookDelivery]:
    """Deliveries that later events may join: not tried yet, and not due yet."""
    open_ = (col(WebhookDelivery.attempts) == 0, col(WebhookDelivery.due_at).between(now + 1, now + MOST_AHEAD_MS))
    about = col(WebhookDelivery.subject).in_({event.subject for event in events})
    rows = session.scalars(_of(endpoint.id, "pending").where(*open_, about))
    return {(row.type, row.subject): row for row in rows}


def _delivery(endpoint: WebhookEndpoint, event: Event, due_at: int, now: int) -> WebhookDelivery:
    return WebhookDelivery(
        id=new_id("dlv"),
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        event_id=event.id,
        seq=event.seq or 0,
        type=event.type,
        subject=event.subject,
        at=event.at,
        data=event.data,
        due_at=due_at,
        created_at=now,
    )
