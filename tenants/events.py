"""The outbox: every change of state becomes an event in the transaction that makes it, so neither exists without the other."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database, HasTenant, add_last
from config.errors import InvalidInput
from config.ids import ID_LENGTH, new_id
from tenants.tables import Event
from tenants.webhooks.tables import WebhookEndpoint

PREFIX = re.compile(r"[a-z_]{1,32}(\.[a-z_]{0,32})?")
DAY_MS = 24 * 3600 * 1000
#: What `emit_once` says, of a day or a month. That it was said is known by the event itself: it is kept for as long as it could
#: be said again.
ONCE = ("budget.warned", "budget.exhausted", "usage.unusual")
ONCE_KEPT_DAYS = 32
PURGE_ROWS, PURGE_PAGES = 1_000, 1_000  # in one transaction, and in one call
SCANNED = 5_000  # events that one page of a list by type looks at


def emit(session: Session, clock: Clock, tenant_id: str, event: str, subject: str, **data: object) -> None:
    """`event` is noun and verb ("document.live"), `subject` the id of what changed; `data` holds ids and counts only."""
    row = Event(tenant_id=tenant_id, id=new_id("evt"), at=clock(), type=event, subject=subject, data=data)
    add_last(session, row)


def emit_once(database: Database, clock: Clock, scope: HasTenant, event: str, subject: str, **data: object) -> None:
    """In a transaction of its own: one event of this type, of ONCE, about this subject, however often and by whomever it is
    said."""
    said = hashlib.sha256(f"{scope.tenant_id} {event} {subject}".encode()).hexdigest()
    name = f"evt_{said[:ID_LENGTH]}"
    with database.read(scope) as session:
        if session.scalar(select(col(Event.seq)).where(col(Event.id) == name)):
            return
    with suppress(IntegrityError):  # somebody else said it at the same moment
        with database.write(scope) as session:
            row = Event(tenant_id=scope.tenant_id, id=name, at=clock(), type=event, subject=subject, data=data)
            add_last(session, row)


class EventLog:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def for_tenant(self, scope: HasTenant) -> TenantEvents:
        return TenantEvents(self._database, scope)

    def purge(self, older_than_days: int) -> int:
        """Delete old events of all tenants but those that a webhook still needs, in short transactions; return how many."""
        now, purged = self._clock(), 0
        before = now - older_than_days * DAY_MS
        free = _FREE.where(sa.or_(col(Event.type).not_in(ONCE), col(Event.at) < now - ONCE_KEPT_DAYS * DAY_MS))
        for _ in range(PURGE_PAGES):
            with self._database.system_write() as session:
                # In the order of their numbers, which is that of their times but for writers that overtook one another.
                oldest = session.execute(free.order_by(col(Event.seq)).limit(PURGE_ROWS)).all()
                old = [seq for seq, at in oldest if at < before]
                session.execute(sa.delete(Event).where(col(Event.seq).in_(old)), execution_options=_NO_SYNC)
            purged += len(old)
            if len(old) < PURGE_ROWS:
                break
        return purged


class TenantEvents:
    def __init__(self, database: Database, scope: HasTenant) -> None:
        self._database, self._scope = database, scope

    def list(self, *, type: str | None = None, after: str | None = None, limit: int) -> tuple[list[Event], str | None]:
        """Up to `limit` events in the order of their commits, and where to go on: of a type that is rare a page may have fewer,
        or none, although others follow.

        `type` is a whole type or its beginning ("document."), `after` an event's id: numbers would count other tenants' events.
        """
        if type is not None and not PREFIX.fullmatch(type):
            raise InvalidInput("A type is a word, a dot and a word, or the beginning of that, as `document.`.", field="type")
        end = None
        with self._database.read(self._scope) as session:
            behind = col(Event.seq) > (0 if after is None else self._number(session, after))
            statement = select(Event).where(behind).order_by(col(Event.seq)).limit(limit + 1)
            if type is not None:
                statement = statement.where(col(Event.type).startswith(type, autoescape=True))
                scanned = select(col(Event.seq), col(Event.id)).where(behind).order_by(col(Event.seq))
                end = session.execute(scanned.offset(SCANNED - 1).limit(1)).first()
            if end is not None:
                statement = statement.where(col(Event.seq) <= end.seq)
            rows = [*session.scalars(statement)]
        if len(rows) > limit:
            return rows[:limit], rows[limit - 1].id
        return rows, None if end is None else end.id

    def _number(self, session: Session, event_id: str) -> int:
        number = session.scalar(select(col(Event.seq)).where(col(Event.id) == event_id))
        if number is None:
            raise InvalidInput("There is no such event any more; begin again without `since`.", field="since")
        return int(number)


_NO_SYNC = {"synchronize_session": False}
#: Events that have become deliveries wherever they are to be delivered, and are not to be sent again.
_FREE = select(col(Event.seq), col(Event.at)).where(
    ~sa.exists().where(
        col(WebhookEndpoint.tenant_id) == col(Event.tenant_id),
        col(WebhookEndpoint.disabled_reason).is_(None),
        sa.or_(
            col(Event.seq) > col(WebhookEndpoint.last_seq),
            col(Event.seq).between(col(WebhookEndpoint.replay_after) + 1, col(WebhookEndpoint.replay_until)),
        ),
    )
)
