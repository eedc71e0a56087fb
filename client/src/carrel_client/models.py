"""What the service answers, as frozen values. Fields that a newer service adds are passed over."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from carrel_client.errors import CarrelClientError

T = TypeVar("T", bound="Model")


@dataclass(frozen=True)
class Model:
    @classmethod
    def parse(cls: type[T], data: Mapping[str, Any]) -> T:
        known = {known.name for known in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in data.items() if name in known})
        except TypeError as error:
            raise CarrelClientError(f"The answer is no {cls.__name__}: {error}") from error


@dataclass(frozen=True)
class Progress(Model):
    documents_done: int = 0
    documents_total: int = 1
    pages: int = 0
    chunks_done: int = 0
    chunks_total: int = 0  #: 0 until the document is split
    tokens_done: int = 0
    tokens_total: int = 0
    fraction: float = 0.0  #: 0 to 1; an ended job is at 1, however it ended
    eta_seconds: float | None = None  #: None while it is unknown


@dataclass(frozen=True)
class Job(Model):
    id: str
    kind: str
    state: str  #: queued, running, succeeded, failed or cancelled
    stage: str
    document_id: str
    chunks_total: int
    chunks_done: int
    tokens_charged: int
    tokens_cached: int
    error_code: str | None
    error_detail: str | None
    created_at: str
    updated_at: str
    version_id: str | None = None
    retry_of: str | None = None  #: the job that this one repeats
    finished_at: str | None = None  #: when all was done, and what it left was removed
    outcome: str | None = None  #: linked or skipped, of a near-duplicate that is not embedded
    waits_for: list[str] = field(default_factory=list)  #: jobs that it runs after, while one of them has not ended
    after_policy: str = "all_succeeded"
    progress: Progress = Progress()

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Job:
        return super().parse({**data, "progress": Progress.parse(data.get("progress", {}))})

    @property
    def finished(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")

    def same_as(self, other: Job) -> bool:
        """Whether nothing but the estimate differs, which changes with time alone."""
        progress = dataclasses.replace(self.progress, eta_seconds=other.progress.eta_seconds)
        return dataclasses.replace(self, progress=progress) == other


@dataclass(frozen=True)
class Event(Model):
    id: str
    type: str  #: noun and verb, as "document.live"
    subject: str  #: id of what changed
    at: str
    data: dict[str, Any]


@dataclass(frozen=True)
class NearDuplicate(Model):
    """The document that another nearly repeats."""

    document_id: str
    similarity: float  #: 1 is equal
    linked: bool = False  #: whether the other has no chunks of its own, and is found through this one


@dataclass(frozen=True)
class Document(Model):
    id: str
    external_id: str
    collection: str
    state: str  #: queued, live, failed, cancelled or skipped
    version: int
    title: str
    source: str | None
    media_type: str
    attributes: dict[str, Any]
    labels: list[str]
    bytes: int
    chars: int
    pages: int
    created_at: str
    profile: str = "standard"  #: under which this version was brought
    chunking: dict[str, Any] = field(default_factory=dict)  #: its sizes in tokens, and its splitter
    warnings: list[dict[str, str]] = field(default_factory=list)  #: what reading found: each has a `code` and a `detail`
    etag: str | None = None  #: of its newest version, for `if_match`
    near_duplicate_of: NearDuplicate | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Document:
        near = data.get("near_duplicate_of")
        return super().parse({**data, "near_duplicate_of": None if near is None else NearDuplicate.parse(near)})


@dataclass(frozen=True)
class BulkResult(Model):
    """What became of one document of a bulk stream."""

    line: int  #: its place in what was given, from 1
    status: int  #: 202 accepted, 200 live already, else refused
    document_id: str | None = None
    version: int | None = None
    job_id: str | None = None  #: None where nothing is to be waited for
    problem: dict[str, Any] | None = None  #: why it was refused


@dataclass(frozen=True)
class Collection(Model):
    id: str
    name: str
    documents: int
    space: str
    placement: str
    created_at: str
    profile: str = "standard"
    near_duplicates: str = "keep"  #: or link, or skip
    near_threshold: float = 0.9
    semantic_cache: bool = False  #: whether near questions share answers
    semantic_threshold: float = 0.95
    keep_versions_days: int = 0  #: how long replaced versions can be asked for, with `as_of`
    #: Of its documents, as far as they are known: {"year": {"kind": "number", "declared": True}}.
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement(Model):
    """Where a collection's vectors are to lie; `settled`: whether they do."""

    collection: str
    placement: str
    chosen: bool
    settled: bool
    points: int
    indexed: int | None = None  #: of them, how many its graph leads to; None: the service does not say


@dataclass(frozen=True)
class Profile(Model):
    """How the documents of a collection are processed."""

    name: str
    chunking: dict[str, Any]  #: chunk_tokens, context_tokens, overlap_tokens, splitter and parent_tokens
    priority: str  #: high, normal or low
    rerank: bool
    rewrite: str  #: none, multi_query, hyde or decompose
    fusion: dict[str, Any] = field(default_factory=dict)  #: method, weights and candidates of queries


@dataclass(frozen=True)
class UsageAmounts(Model):
    """Tokens, texts and micro-dollars."""

    charged: int = 0
    cached: int = 0
    deduplicated: int = 0
    hits: int = 0  #: texts whose vectors were known
    cost_micro_usd: int = 0
    saved_micro_usd: int = 0  #: what cached and deduplicated tokens would have cost


@dataclass(frozen=True)
class UsageDay(UsageAmounts):
    day: str = ""
    operation: str = ""


@dataclass(frozen=True)
class UsageGroup(UsageAmounts):
    """None where it was not grouped by."""

    day: str | None = None
    operation: str | None = None
    key: str | None = None
    collection: str | None = None


@dataclass(frozen=True)
class BudgetLimit(Model):
    """Tokens, or micro-dollars."""

    limit: int | None = None
    soft: bool = False  #: passing it is told and refuses nothing
    used: int = 0
    held: int = 0
    remaining: int | None = None
    per_hour: int = 0  #: burn rate: of the day since midnight, of the month in the last seven days
    override_until: str | None = None


@dataclass(frozen=True)
class Budget(Model):
    """One kind of tokens in the present month or day, in UTC."""

    kind: str  #: embedding or llm
    span: str  #: month or day
    period: str
    tokens: BudgetLimit = BudgetLimit()
    micro_usd: BudgetLimit = BudgetLimit()
    step: int = 0  #: the last of 50, 75, 90 and 100 percent that is reached
    exhausted_at: str | None = None  #: the hour in which a limit is reached if it goes on like this

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Budget:
        limits = {name: BudgetLimit.parse(data.get(name, {})) for name in ("tokens", "micro_usd")}
        return super().parse({**data, **limits})


@dataclass(frozen=True)
class CacheHoldings(Model):
    """Of a tenant, in the cache of embeddings."""

    vectors: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Usage(Model):
    month: str
    limit: int | None
    used: int
    held: int
    remaining: int | None
    days: list[UsageDay]  #: by day and operation, oldest first
    total: UsageAmounts = UsageAmounts()
    cost_micro_usd: int = 0  #: of what is used
    cache: CacheHoldings = CacheHoldings()
    budgets: list[Budget] = field(default_factory=list)  #: of each kind of tokens, this month and this day
    groups: list[UsageGroup] = field(default_factory=list)  #: as was asked for with `group_by`

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Usage:
        days = [UsageDay.parse(day) for day in data.get("days", ())]
        total, cache = UsageAmounts.parse(data.get("total", {})), CacheHoldings.parse(data.get("cache", {}))
        budgets = [Budget.parse(budget) for budget in data.get("budgets", ())]
        groups = [UsageGroup.parse(group) for group in data.get("groups", ())]
        parsed = {"days": days, "total": total, "cache": cache, "budgets": budgets, "groups": groups}
        return super().parse({**data, **parsed})


@dataclass(frozen=True)
class Estimate(Model):
    """What bringing a document now would charge: of `tokens`, what is neither cached nor repeated."""

    media_type: str
    characters: int
    pages: int
    chunks: int
    tokens: int
    cached_tokens: int
    deduplicated_tokens: int
    tokens_to_embed: int
    price: int  #: micro-dollars for a million tokens
    cost_micro_usd: int
    remaining_tokens: int | None  #: of the month's budget; None without a limit
    within_budget: bool


@dataclass(frozen=True)
class Tenant(Model):
    id: str
    name: str
    monthly_tokens: int | None
    created_at: str
    plan: str | None = None  #: None is the service's default
    metadata: dict[str, str] = field(default_factory=dict)
    state: str = "active"  #: active, suspended or deleting
    reads: bool = True  #: whether it may ask and read


@dataclass(frozen=True)
class Key(Model):
    id: str
    tenant_id: str | None
    name: str
    scopes: list[str]
    collections: list[str] | None
    labels: list[str] | None
    created_at: str
    revoked_at: str | None
    read_only: bool = False
    allowed_addresses: list[str] | None = None  #: networks it may be used from; None is any
    replaces: str | None = None  #: the key that it was made for by rotation
    expires_at: str | None = None
    last_used_at: str | None = None  #: to the minute


@dataclass(frozen=True)
class NewKey(Key):
    secret: str = ""  #: shown this once


@dataclass(frozen=True)
class Token(Model):
    token: str
    expires_at: str
    scopes: list[str]
    subject: str | None = None  #: the end user it was made for
