"""The tables of webhooks: where a tenant wants its events sent, and what is or was to be sent there."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned


class WebhookEndpoint(TenantOwned, table=True):
    """Its secrets are sealed in `tenant_secrets`. `disabled_reason` None is enabled."""

    __tablename__ = "webhook_endpoints"

    id: str = Field(primary_key=True)
    url: str
    description: str
    events: list[str] = Field(sa_type=sa.JSON)  #: globs of types
    coalesce_seconds: int = 0  #: how long events of one type about one subject are gathered into one; 0: not
    disabled_reason: str | None = None
    disabled_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    last_seq: int = Field(sa_type=sa.BigInteger)  #: events up to this number have become deliveries
    replay_after: int | None = Field(default=None, sa_type=sa.BigInteger)  #: of events that are to be sent again: from here
    replay_until: int | None = Field(default=None, sa_type=sa.BigInteger)  #: to here
    failures: int = 0  #: tries that failed one after another
    failing_since: int | None = Field(default=None, sa_type=sa.BigInteger)  #: the first of them
    last_success_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    resume_at: int = Field(default=0, sa_type=sa.BigInteger)  #: nothing is done for it before
    epoch: int = 0  #: of whoever sends: an earlier one can change nothing any more
    lease_until: int = Field(default=0, sa_type=sa.BigInteger)  #: until then one sends; 0: nobody
    served_at: int = Field(default=0, sa_type=sa.BigInteger)  #: when one last began to: who waited longest goes first
    created_at: int = Field(sa_type=sa.BigInteger)
    updated_at: int = Field(sa_type=sa.BigInteger)


class WebhookDelivery(TenantOwned, table=True):
    """One event for one endpoint, with what is sent of it. States: pending → delivered or failed."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.Index("ix_webhook_deliveries_tenant_endpoint", "tenant_id", "endpoint_id", "id"),
        sa.Index("ix_webhook_deliveries_due", "endpoint_id", "state", "due_at", "seq"),
        sa.UniqueConstraint("endpoint_id", "event_id"),
    )

    id: str = Field(primary_key=True)
    tenant_id: str
    endpoint_id: str = Field(foreign_key="webhook_endpoints.id")
    event_id: str  #: what receivers know it by
    seq: int = Field(default=0, sa_type=sa.BigInteger)  #: the event's number: first tries go out in its order
    type: str
    subject: str
    at: int = Field(sa_type=sa.BigInteger)
    data: dict[str, Any] = Field(sa_type=sa.JSON)
    state: str = "pending"
    coalesced: int = 0  #: earlier events that this one stands for too
    attempts: int = 0
    due_at: int = Field(sa_type=sa.BigInteger)
    last_status: int | None = None  #: what the receiver answered last; None: nothing
    last_error: str | None = None
    created_at: int = Field(sa_type=sa.BigInteger)
    finished_at: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
