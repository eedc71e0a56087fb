"""The tables of tenancy. Times are Unix milliseconds, amounts are tokens of the embedding model, costs are picodollars."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from config.database import TenantOwned


class Tenant(SQLModel, table=True):
    __tablename__ = "tenants"

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    cache_salt: bytes
    monthly_tokens: int | None = Field(default=None, sa_type=sa.BigInteger)  #: over the plan's; None: as the plan says
    plan: str | None = None  #: None: the service's default
    details: dict[str, str] = Field(default_factory=dict, sa_column=sa.Column("metadata", sa.JSON, nullable=False))
    suspended_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    suspended_reads: bool = False  #: whether it may read while it is suspended
    deleted_at: int | None = Field(default=None, sa_type=sa.BigInteger)  #: when its deletion was asked for; nothing is let in
    #: When anything was changed that decides what it may do: plan, limits, suspension, deletion. Who keeps that looks here.
    changed_at: int = Field(default=0, sa_type=sa.BigInteger, index=True)
    created_at: int = Field(sa_type=sa.BigInteger)


class LimitOverride(TenantOwned, table=True):
    """One limit of a tenant that is not its plan's, as the operator set it."""

    __tablename__ = "limit_overrides"

    tenant_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)  #: a field of `config.plans.Plan`
    value: str  #: as JSON; null is no limit. In a JSON column SQLite would make a number of "9", which is then not read
    until: int | None = Field(default=None, sa_type=sa.BigInteger)  #: from then on `afterwards` holds, or the plan's limit
    afterwards: str | None = None  #: as `value`; what was set for the tenant before, and holds again
    reason: str = ""
    created_at: int = Field(sa_type=sa.BigInteger)


class QuotaUse(TenantOwned, table=True):
    """What a tenant has of what its plan counts. Equal to the sums over its rows: `ingestion.repair.quotas` says which."""

    __tablename__ = "quota_use"

    tenant_id: str = Field(primary_key=True)
    documents: int = Field(default=0, sa_type=sa.BigInteger)
    chunks: int = Field(default=0, sa_type=sa.BigInteger)
    bytes: int = Field(default=0, sa_type=sa.BigInteger)
    collections: int = Field(default=0, sa_type=sa.BigInteger)
    sessions: int = Field(default=0, sa_type=sa.BigInteger)
    closed: bool = False  #: whether nothing is added any more: the tenant is being deleted


class TenantDeletion(SQLModel, table=True):
    """A tenant's deletion and, once it is done, its receipt: the operator's, for the tenant is gone by then."""

    __tablename__ = "tenant_deletions"

    id: str = Field(primary_key=True)
    tenant_id: str = Field(unique=True)
    name: str
    state: str = "running"  #: running or done
    step: str = ""  #: the last that was finished
    before: dict[str, int] = Field(default_factory=dict, sa_type=sa.JSON)  #: rows by table, and files, when it began
    after: dict[str, int] = Field(default_factory=dict, sa_type=sa.JSON)  #: the same when it was done
    requested_at: int = Field(sa_type=sa.BigInteger)
    finished_at: int | None = Field(default=None, sa_type=sa.BigInteger)


class ApiKey(SQLModel, table=True):
    """Only a hash of the secret is stored. Operator keys have no tenant, and no tenant key is without one."""

    __tablename__ = "api_keys"

    id: str = Field(primary_key=True)  #: also the visible prefix of the key
    tenant_id: str | None = Field(default=None, index=True)
    name: str
    secret_sha256: bytes
    scopes: list[str] = Field(sa_type=sa.JSON)
    collections: list[str] | None = Field(default=None, sa_type=sa.JSON)
    labels: list[str] | None = Field(default=None, sa_type=sa.JSON)
    read_only: bool = False  #: whatever its scopes, it changes nothing
    allowed_addresses: list[str] | None = Field(default=None, sa_type=sa.JSON)  #: networks it may be used from; None: any
    replaces: str | None = None  #: the key that it was made for by rotation
    created_at: int = Field(sa_type=sa.BigInteger)
    expires_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    revoked_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    last_used_at: int | None = Field(default=None, sa_type=sa.BigInteger)  #: written late: `tenants.identity.keys`
    #: When it was last made to allow less. Who keeps what it allows looks here.
    changed_at: int = Field(default=0, sa_type=sa.BigInteger, index=True)


class RateBucket(SQLModel, table=True):
    """How far ahead of the clock a rate limit's bucket is, of all api processes together: `tenants.limits.shared_rates`."""

    __tablename__ = "rate_buckets"

    id: str = Field(primary_key=True)
    ahead_until: int = Field(sa_type=sa.BigInteger, index=True)  #: Unix ms at which the bucket is whole again


class BudgetWindow(TenantOwned, table=True):
    """What a tenant used and holds of one kind of tokens in one UTC day or month: the sums over its ledger entries."""

    __tablename__ = "budget_windows"

    tenant_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)  #: embedding or llm
    period: str = Field(primary_key=True)  #: "2026-11", or "2026-11-21"
    used: int = Field(default=0, sa_type=sa.BigInteger)
    held: int = Field(default=0, sa_type=sa.BigInteger)
    cost: int = Field(default=0, sa_type=sa.BigInteger)  #: of what is used
    held_cost: int = Field(default=0, sa_type=sa.BigInteger)  #: of what is held, at the price of its entry


class LedgerEntry(TenantOwned, table=True):
    """One spending. States: held → started → settled; released; unsettled (charged after its worker was lost)."""

    __tablename__ = "ledger"
    __table_args__ = (
        sa.Index("ix_ledger_state_lease", "state", "lease_until"),
        sa.Index(
            "ix_ledger_part_of",
            "tenant_id",
            "part_of",
            sqlite_where=sa.column("part_of").is_not(None),
            postgresql_where=sa.column("part_of").is_not(None),
        ),
    )

    tenant_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    day: str  #: in UTC, in which it was reserved: it belongs to this day's windows, whenever it ends
    operation: str
    key: str = ""  #: of whoever asked for it, by id
    collection: str = ""  #: by name; empty where there are several or none
    state: str
    tokens: int  #: reserved while open, charged once settled
    price: int = Field(default=0, sa_type=sa.BigInteger)  #: picodollars a token, as it was when the entry was made
    cost: int = Field(default=0, sa_type=sa.BigInteger)  #: tokens at that price, once they are charged
    part_of: str | None = None  #: the hold of which this was charged before the rest was given back
    epoch: int = 0  #: of the job's owner that reserved last: an earlier one can neither start nor settle
    lease_until: int | None = Field(default=None, sa_type=sa.BigInteger)
    created_at: int = Field(sa_type=sa.BigInteger)


class UsageDay(TenantOwned, table=True):
    """Tokens a tenant, UTC day, operation, key and collection: charged (the sum over the day's ledger entries), and what cache
    and deduplication saved; and what both are worth."""

    __tablename__ = "usage_days"

    tenant_id: str = Field(primary_key=True)
    day: str = Field(primary_key=True)
    operation: str = Field(primary_key=True)
    key: str = Field(primary_key=True, default="")
    collection: str = Field(primary_key=True, default="")
    charged: int = Field(default=0, sa_type=sa.BigInteger)
    cached: int = Field(default=0, sa_type=sa.BigInteger)
    deduplicated: int = Field(default=0, sa_type=sa.BigInteger)
    hits: int = Field(default=0, sa_type=sa.BigInteger)  #: texts whose vector was known
    cost: int = Field(default=0, sa_type=sa.BigInteger)  #: of what was charged
    saved_cost: int = Field(
        default=0, sa_type=sa.BigInteger
    )  #: of what was cached and deduplicated, at the price of the moment


class Event(TenantOwned, table=True):
    """A change of state, written in the transaction that made it. A tenant's numbers rise in the order of its commits."""

    __tablename__ = "events"
    __table_args__ = (sa.Index("ix_events_tenant_seq", "tenant_id", "seq"), {"sqlite_autoincrement": True})

    seq: int | None = Field(
        default=None, sa_column=sa.Column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    )
    tenant_id: str
    id: str = Field(unique=True)
    at: int = Field(sa_type=sa.BigInteger)
    type: str  #: noun and verb, as "document.live"
    subject: str  #: id of what changed
    data: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)  #: ids, states and counts; never content


class IdempotencyRecord(SQLModel, table=True):
    """The first result of a request that came with an `Idempotency-Key`, for whoever repeats it."""

    __tablename__ = "idempotency_records"
    __table_args__ = (
        sa.Index(
            "ix_idempotency_records_session_id",
            "session_id",
            sqlite_where=sa.column("session_id").is_not(None),
            postgresql_where=sa.column("session_id").is_not(None),
        ),
    )

    owner: str = Field(primary_key=True)  #: the tenant's id, or "operator"
    route: str = Field(primary_key=True)  #: method and path as they were called
    key: str = Field(primary_key=True)
    tenant_id: str | None = Field(default=None, index=True)
    body_sha256: bytes
    claim: str  #: names the request that runs; only it may write the result
    lease_until: int = Field(sa_type=sa.BigInteger)  #: after it, a claim without a result can be taken over
    status: int | None = None  #: HTTP status of the result; None while it is worked out
    response: bytes | None = None  #: its body, sealed
    #: Of whom and of which session the request and its result tell, so that they go with them.
    subject: str | None = None
    session_id: str | None = None
    created_at: int = Field(sa_type=sa.BigInteger, index=True)


class TenantSecret(TenantOwned, table=True):
    """A secret that a tenant entrusted to the service, sealed for this tenant and name."""

    __tablename__ = "tenant_secrets"

    tenant_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    sealed: bytes
    created_at: int = Field(sa_type=sa.BigInteger)
    updated_at: int = Field(sa_type=sa.BigInteger)
