"""The outbox: every change of state becomes an event in the transaction that makes it, so neither exists without the other."""

from __future__ import annotations

from sqlalchemy.orm import Session

from config.clock import Clock
from config.database import add_last
from config.ids import new_id
from tenants.tables import Event


def emit(session: Session, clock: Clock, tenant_id: str, event: str, subject: str, **data: object) -> None:
    """`event` is noun and verb ("document.live"), `subject` the id of what changed; `data` holds ids and counts only."""
    row = Event(tenant_id=tenant_id, id=new_id("evt"), at=clock(), type=event, subject=subject, data=data)
    add_last(session, row)
