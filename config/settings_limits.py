"""Settings of what tenants get by default, and of what is kept for them how long."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from config.settings_types import MAX_TOKENS, ClassRates


class LimitSettings(BaseModel):
    result_cache_mb: int = Field(
        32, ge=0, le=65536, description="Memory in MiB that an API process keeps answers in, shared by tenants; 0 keeps none."
    )
    profiles_file: Path | None = Field(
        None, description="TOML file of the operator's own profiles for collections, over those that are built in."
    )
    plans_file: Path | None = Field(
        None, description="TOML file of the operator's own plans for tenants, over those that are built in."
    )
    default_plan: str = Field("enterprise", description="Plan of tenants that were given none; `enterprise` limits nothing.")
    monthly_tokens: int | None = Field(
        None, ge=0, le=MAX_TOKENS, description="Embedding tokens a month for a new tenant; none is no limit."
    )
    memories_per_subject: int = Field(
        1_000, ge=1, le=20_000, description="Memories of one subject; each search and each new fact looks at all of them."
    )
    events_keep_days: int = Field(30, ge=1, le=3650, description="Days that a tenant's events are kept for.")
    audit_keep_days: int = Field(
        365,
        ge=1,
        le=36500,
        description="Days that sealed audit entries are kept for; what remains is verifiable.",
    )
    audit_archive_dir: Path | None = Field(
        None, description="Folder outside the service's reach that gets every checkpoint of the audit chains appended."
    )
    failed_content_days: float = Field(
        7,
        ge=0,
        le=3650,
        description="Days that the content of a failed or cancelled document is kept for a retry.",
    )
    requests_per_second: int = Field(
        200, ge=1, description="Requests a second allowed to one key; five seconds' worth may come at once."
    )
    class_requests_per_second: ClassRates = Field(
        {},
        description='Requests a second of one tenant by class, as a JSON object, such as `{"ingest": 20}`. '
        "Classes are `query`, `read`, `ingest` and `admin`.",
    )
    rate_tokens: int = Field(
        1000,
        ge=1,
        description="Tokens that weigh as much as one request more: those embedded for it, or a quarter of its bytes.",
    )
    rate_sharing: Literal["process", "database"] = Field(
        "process",
        description="`database`: several API processes hold the rate limits together, telling each other twice a second.",
    )
    bad_keys_per_minute: int = Field(
        20, ge=1, le=10**6, description="Wrong keys of one address that are answered 401; beyond that it gets 429."
    )
    concurrent_queries: int = Field(32, ge=1, le=1024, description="Questions that an API process works on at once.")
    concurrent_ingests: int = Field(16, ge=1, le=1024, description="The same of requests that change something.")
    concurrent_reads: int = Field(16, ge=1, le=1024, description="The same of requests that read.")
    concurrent_admin: int = Field(8, ge=1, le=1024, description="The same of the operator's requests.")
    waiting_requests: int = Field(
        1000,
        ge=0,
        le=100_000,
        description="Requests of an API process that may wait for a place, a quarter of them one tenant's.",
    )
    waiting_seconds: float = Field(10.0, gt=0, le=300, description="Longest wait for a place.")
