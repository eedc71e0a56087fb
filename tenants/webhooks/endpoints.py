"""A tenant's webhooks: where its events are to be sent. Knows nothing of sending: that is the outbox's and the worker's.

An endpoint is told what happens from its making on. While it is disabled nothing is gathered for it; what happened
meanwhile can be replayed for as long as the events are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Conflict, InvalidInput, NotFound
from config.ids import new_id
from tenants.context import TenantContext
from tenants.events import emit
from tenants.limits.quotas import hold
from tenants.secrets import Secrets
from tenants.tables import Event
from tenants.webhooks.outbox import disable, send_again
from tenants.webhooks.rules import BY_REQUEST, MAX_ENDPOINTS, MAX_OVERLAP_HOURS, TEST, check
from tenants.webhooks.signing import SigningSecret, dumped, loaded, new_secret, rotated, signed_headers
from tenants.webhooks.tables import WebhookDelivery, WebhookEndpoint

HOUR_MS = 3600 * 1000
DELETED_ROWS = 1_000  # deliveries in one transaction
SCANNED = 5_000  # deliveries that one page of a list by state looks at


@dataclass(frozen=True, slots=True)
class NewWebhook:
    row: WebhookEndpoint
    secret: str  #: shown this once


Record = Callable[[Session, NewWebhook], None]


class Webhooks:
    def __init__(self, database: Database, clock: Clock, secrets: Secrets, check_url: Callable[[str], object]) -> None:
        """`check_url` raises InvalidInput for a URL that nothing would be sent to."""
        self.database, self.clock, self.secrets, self.check_url = database, clock, secrets, check_url

    def for_tenant(self, context: TenantContext) -> TenantWebhooks:
        return TenantWebhooks(self, context)


class TenantWebhooks:
    def __init__(self, parts: Webhooks, context: TenantContext) -> None:
        self._database, self._clock, self._check_url = parts.database, parts.clock, parts.check_url
        self._context, self._secrets = context, parts.secrets.for_tenant(context)

    def create(
        self,
        *,
        url: str,
        events: Sequence[str],
        description: str = "",
        coalesce_seconds: int = 0,
        record: Record | None = None,
    ) -> NewWebhook:
        """`record` writes something of the new webhook in its transaction, last."""
        check(events, description, coalesce_seconds)
        self._check_url(url)
        tenant_id, now, secret = self._context.tenant_id, self._clock(), new_secret()
        with self._database.write(self._context) as session:
            hold(session, tenant_id)
            if (session.scalar(select(sa.func.count()).select_from(WebhookEndpoint)) or 0) >= MAX_ENDPOINTS:
                raise InvalidInput(f"A tenant has at most {MAX_ENDPOINTS} webhooks.", limit=MAX_ENDPOINTS)
            row = WebhookEndpoint(
                id=new_id("whk"),
                tenant_id=tenant_id,
                url=url,
                description=description,
                events=list(events),
                coalesce_seconds=coalesce_seconds,
                last_seq=_newest(session),
                created_at=now,
                updated_at=now,
            )
            session.add(row)
            self._secrets.keep(session, _secret_of(row.id), dumped([secret]))
            emit(session, self._clock, tenant_id, "webhook.created", row.id)
            new = NewWebhook(row, secret.secret)
            if record is not None:
                record(session, new)
        return new

    def get(self, webhook_id: str) -> WebhookEndpoint:
        """Raise NotFound."""
        with self._database.read(self._context) as session:
            return _found(session, webhook_id)

    def list(self, *, after: str | None, limit: int) -> list[WebhookEndpoint]:
        statement = select(WebhookEndpoint).order_by(col(WebhookEndpoint.id)).limit(limit)
        if after is not None:
            statement = statement.where(col(WebhookEndpoint.id) > after)
        with self._database.read(self._context) as session:
            return [*session.scalars(statement)]

    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        coalesce_seconds: int | None = None,
        enabled: bool | None = None,
    ) -> WebhookEndpoint:
        """Change what is given. Raise NotFound or InvalidInput."""
        if url is not None:
            self._check_url(url)
        with self._database.write(self._context) as session:
            row = _found(session, webhook_id, held=True)
            row.url = row.url if url is None else url
            row.events = row.events if events is None else list(events)
            row.description = row.description if description is None else description
            row.coalesce_seconds = row.coalesce_seconds if coalesce_seconds is None else coalesce_seconds
            check(row.events, row.description, row.coalesce_seconds)
            row.updated_at = self._clock()
            if enabled is True and row.disabled_reason is not None:
                _enable(session, row)
            emit(session, self._clock, row.tenant_id, "webhook.updated", row.id)
            if enabled is False and row.disabled_reason is None:
                disable(session, self._clock, row, BY_REQUEST)
        return row

    def delete(self, webhook_id: str) -> WebhookEndpoint:
        """With all that was or is to be sent to it. Raise NotFound."""
        with self._database.write(self._context) as session:  # nothing is sent from here on
            row = _found(session, webhook_id, held=True)
            row.disabled_reason, row.epoch = row.disabled_reason or BY_REQUEST, row.epoch + 1
        some = select(col(WebhookDelivery.id)).where(col(WebhookDelivery.endpoint_id) == webhook_id).limit(DELETED_ROWS)
        while True:
            with self._database.write(self._context) as session:
                ids = session.scalars(some).all()
                session.execute(sa.delete(WebhookDelivery).where(col(WebhookDelivery.id).in_(ids)), execution_options=_NO_SYNC)
                if len(ids) == DELETED_ROWS:
                    continue
                row = _found(session, webhook_id, held=True)
                session.delete(row)
                self._secrets.drop(session, _secret_of(row.id))
                emit(session, self._clock, row.tenant_id, "webhook.deleted", row.id)
                return row

    def rotate(self, webhook_id: str, *, overlap_hours: int) -> NewWebhook:
        """A new secret; the present one signs beside it for so long. Raise NotFound or InvalidInput."""
        if not 0 <= overlap_hours <= MAX_OVERLAP_HOURS:
            raise InvalidInput(f"At most {MAX_OVERLAP_HOURS} hours.", field="overlap_hours", limit=MAX_OVERLAP_HOURS)
        name, now = _secret_of(webhook_id), self._clock()
        with self._database.write(self._context) as session:
            row = _found(session, webhook_id, held=True)
            kept = rotated(loaded(self._secrets.within(session, name)), now, overlap_hours * HOUR_MS)
            self._secrets.keep(session, name, dumped(kept))
            row.updated_at = now
            emit(session, self._clock, row.tenant_id, "webhook.rotated", row.id)
        return NewWebhook(row, kept[0].secret)

    def signed(self, webhook_id: str, *, message_id: str, body: bytes) -> dict[str, str]:
        """The headers that show a receiver whose message it is. Raise NotFound or CannotOpen."""
        kept: list[SigningSecret] = loaded(self._secrets.get(_secret_of(webhook_id)))
        return signed_headers(kept, message_id=message_id, at=self._clock(), body=body)

    def test(self, webhook_id: str) -> WebhookDelivery:
        """Send an event that says nothing, once, whatever events are wanted. Raise NotFound or Conflict."""
        now = self._clock()
        with self._database.write(self._context) as session:
            row = _enabled(session, webhook_id)
            delivery = WebhookDelivery(
                id=new_id("dlv"),
                tenant_id=row.tenant_id,
                endpoint_id=row.id,
                event_id=new_id("evt"),
                type=TEST,
                subject=row.id,
                at=now,
                data={},
                due_at=now,
                created_at=now,
            )
            session.add(delivery)
            row.resume_at = min(row.resume_at, now)
        return delivery

    def deliveries(
        self, webhook_id: str, *, state: str | None = None, after: str | None = None, limit: int
    ) -> tuple[Sequence[WebhookDelivery], str | None]:
        """Newest first, and where to go on: of a state that is rare a page may have fewer, or none, although others follow.
        Raise NotFound.
        """
        newest, end = col(WebhookDelivery.id).desc(), None
        own = [col(WebhookDelivery.endpoint_id) == webhook_id, *([] if after is None else [col(WebhookDelivery.id) < after])]
        statement = select(WebhookDelivery).where(*own).order_by(newest).limit(limit)
        with self._database.read(self._context) as session:
            _found(session, webhook_id)
            if state is not None:
                scanned = select(col(WebhookDelivery.id)).where(*own).order_by(newest)
                end = session.scalars(scanned.offset(SCANNED - 1).limit(1)).first()
                statement = statement.where(col(WebhookDelivery.state) == state)
            if end is not None:
                statement = statement.where(col(WebhookDelivery.id) >= end)
            rows = [*session.scalars(statement)]
        return rows, rows[-1].id if len(rows) == limit else end

    def replay_one(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Raise NotFound or Conflict. One that waits to be sent is answered as it is."""
        own = (col(WebhookDelivery.endpoint_id) == webhook_id, col(WebhookDelivery.id) == delivery_id)
        with self._database.write(self._context) as session:
            row = _found(session, webhook_id, held=True)
            delivery = session.scalars(select(WebhookDelivery).where(*own)).one_or_none()
            if delivery is None:
                raise NotFound("There is no such delivery.")
            _require_enabled(row)
            send_again(delivery, self._clock())
        return delivery

    def replay(self, webhook_id: str, *, since: int, until: int | None) -> WebhookEndpoint:
        """Send the events of `since` ≤ time < `until` again, as far as they are kept and wanted now.

        Raise NotFound, Conflict while another replay is under way, or InvalidInput.
        """
        if until is not None and until <= since:
            raise InvalidInput("`until` lies after `since`.", field="until")
        within = [col(Event.at) >= since, *([] if until is None else [col(Event.at) < until])]
        with self._database.write(self._context) as session:
            row = _enabled(session, webhook_id)
            if row.replay_until is not None:
                raise Conflict("A replay of this webhook is under way.")
            seqs = sa.select(sa.func.min(col(Event.seq)), sa.func.max(col(Event.seq))).select_from(Event)
            first, last = session.execute(seqs.where(*within, col(Event.seq) <= row.last_seq)).one()
            if first is not None:
                row.replay_after, row.replay_until = first - 1, last
        return row


_NO_SYNC = {"synchronize_session": False}


def _secret_of(webhook_id: str) -> str:
    return f"webhook.{webhook_id}"


def _newest(session: Session) -> int:
    """Number of the tenant's newest event: whatever commits after this has a higher one."""
    return session.scalar(select(sa.func.max(col(Event.seq))).select_from(Event)) or 0


def _found(session: Session, webhook_id: str, *, held: bool = False) -> WebhookEndpoint:
    """`held` until the transaction ends."""
    statement = select(WebhookEndpoint).where(col(WebhookEndpoint.id) == webhook_id)
    row = session.scalars(statement.with_for_update() if held else statement).one_or_none()
    if row is None:
        raise NotFound("There is no such webhook.")
    return row


def _enabled(session: Session, webhook_id: str) -> WebhookEndpoint:
    row = _found(session, webhook_id, held=True)
    _require_enabled(row)
    return row


def _require_enabled(row: WebhookEndpoint) -> None:
    if row.disabled_reason is not None:
        raise Conflict("The webhook is disabled: enable it first.")


def _enable(session: Session, row: WebhookEndpoint) -> None:
    row.disabled_reason = row.disabled_at = row.failing_since = None
    row.failures, row.resume_at, row.last_seq = 0, 0, _newest(session)
