"""Settings of what tenants get by default, and of what is kept for them how long."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from config.settings_types import MAX_TOKENS


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
    events_keep_days: int = Field(30, ge=1, le=3650, description="Days that a tenant's events are kept for.")
    failed_content_days: float = Field(
        7,
        ge=0,
        le=3650,
        description="Days that the content of a failed or cancelled document is kept for a retry.",
    )
    requests_per_second: int = Field(200, ge=1, description="Requests a second allowed to one key.")
