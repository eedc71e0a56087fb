"""Named plans and their limits: those that are built in, and the operator's own from a file.

Says nothing of tenants: who has which plan, and what is overridden for whom, is `tenants.limits.plans`' to know.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.errors import SetupError
from config.profiles import NAME as PROFILE_NAME

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
MAX_PLANS = 100
UNLIMITED = "enterprise"  # of tenants, where nothing else is named
MAX_COUNT = 10**15  # fits a database's column with room for sums
MAX_TOKENS = 10**12  # of a window: 400,000 a second through a month
MAX_PROFILES = 100
MIB, GIB = 1024**2, 1024**3

Count: TypeAlias = Annotated[int, Field(ge=0, le=MAX_COUNT)] | None
Tokens: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None
MAX_MICRO_USD = 10**12  # of a window: a million dollars
MicroUsd: TypeAlias = Annotated[int, Field(ge=0, le=MAX_MICRO_USD)] | None
BudgetName: TypeAlias = Annotated[str, Field(pattern=r"^(embedding|llm)_(tokens|micro_usd)_(day|month)$")]
TraceContents: TypeAlias = Literal["full", "ids", "none"]
ProfileName: TypeAlias = Annotated[str, Field(pattern=PROFILE_NAME.pattern)]


class Plan(BaseModel):
    """What a tenant may have and do. None is no limit; windows are days and months in UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: Count = None
    chunks: Count = None  #: of live versions
    bytes: Count = None  #: of the contents of documents
    collections: Count = None
    sessions: Count = None
    document_bytes: Count = None  #: of one document; CARREL_MAX_DOCUMENT_BYTES holds beside it
    requests_per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    burst: Annotated[int, Field(ge=1, le=10**6)] | None = None  #: requests that may come at once; None: one second's
    concurrent_requests: Annotated[int, Field(ge=1, le=10**6)] | None = None
    embedding_tokens_day: Tokens = None
    embedding_tokens_month: Tokens = None
    embedding_micro_usd_day: MicroUsd = None
    embedding_micro_usd_month: MicroUsd = None
    llm_tokens_day: Tokens = None
    llm_tokens_month: Tokens = None
    llm_micro_usd_day: MicroUsd = None
    llm_micro_usd_month: MicroUsd = None
    soft_budgets: Annotated[tuple[BudgetName, ...], Field(max_length=8)] = ()  #: those of the eight that only tell
    profiles: Annotated[tuple[ProfileName, ...], Field(min_length=1, max_length=MAX_PROFILES)] | None = None  #: None: all
    dedicated: bool = True  #: whether its collections may get a shard of their own
    retention_days: Annotated[int, Field(ge=0, le=3650)] | None = None  #: most days that former versions are kept
    trace_sample: Annotated[float, Field(ge=0, le=1)] = 1.0  #: which part of the questions leaves a trace
    trace_contents: TraceContents = "full"  #: what of it: ids without the question, or none
    trace_retention_days: Annotated[int, Field(ge=1, le=3650)] = 30


BUILT_IN: Mapping[str, Plan] = MappingProxyType(
    {
        "starter": Plan(
            documents=1_000,
            chunks=20_000,
            bytes=GIB,
            collections=5,
            sessions=1_000,
            document_bytes=8 * MIB,
            requests_per_second=5,
            burst=20,
            concurrent_requests=4,
            embedding_tokens_day=1_000_000,
            embedding_tokens_month=10_000_000,
            llm_tokens_day=100_000,
            llm_tokens_month=1_000_000,
            dedicated=False,
            retention_days=7,
            trace_retention_days=7,
        ),
        "professional": Plan(
            documents=100_000,
            chunks=2_000_000,
            bytes=100 * GIB,
            collections=100,
            sessions=100_000,
            document_bytes=32 * MIB,
            requests_per_second=50,
            burst=200,
            concurrent_requests=32,
            embedding_tokens_day=50_000_000,
            embedding_tokens_month=500_000_000,
            llm_tokens_day=5_000_000,
            llm_tokens_month=50_000_000,
            retention_days=90,
        ),
        UNLIMITED: Plan(),
    }
)


def load_plans(file: Path | None, default: str) -> Mapping[str, Plan]:
    """The built-in plans with the file's over them, field by field. Raises SetupError naming plan, field and limit."""
    plans = dict(BUILT_IN)
    if file is not None:
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # of TOML and of UTF-8 alike
            raise SetupError(f"CARREL_PLANS_FILE: {file} cannot be read: {error}") from error
        plans |= {name: _plan(file, name, fields) for name, fields in tables.items()}
        if len(plans) > MAX_PLANS:
            raise SetupError(f"{file}: there are {len(plans)} plans, and at most {MAX_PLANS} can be.")
    if default not in plans:
        raise SetupError(f"CARREL_DEFAULT_PLAN: there is no plan {default!r}, only {', '.join(plans)}.")
    return MappingProxyType(plans)


def _plan(file: Path, name: str, fields: Any) -> Plan:
    if not NAME.fullmatch(name):
        raise SetupError(f"{file}: plan {name!r}: a name is 1 to 40 of a-z, 0-9, `_` and `-`.")
    if not isinstance(fields, dict):
        raise SetupError(f"{file}: {name!r} stands outside of any plan: write [starter] or another name above it.")
    try:
        return Plan.model_validate(BUILT_IN.get(name, Plan()).model_dump() | _with_none(fields))
    except ValidationError as error:
        raise SetupError(f"{file}: plan {name!r}: {wrong_in(error)}") from None


def _with_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: `"unlimited"` stands for it."""
    return {name: None if value == "unlimited" else value for name, value in fields.items()}


def wrong_in(error: ValidationError) -> str:
    return "; ".join(f"`{item['loc'][0]}`: {item['msg']}" for item in error.errors())
