"""The wire's shapes of tenants, their plans and limits, and of what becomes of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.problems import problem_of
from api.schemas.documents import Input, Text
from api.schemas.times import Moment
from config.clock import isoformat
from config.plans import MAX_PROFILES, MAX_TOKENS, Plan
from tenants.importing import Imported
from tenants.limits.overrides import LimitShown, LimitsShown
from tenants.tables import Tenant, TenantDeletion

MAX_CSV_CHARS = 2_000_000

Metadata = dict[Text, Text]


class TenantIn(Input):
    name: Text = Field(examples=["acme"])
    monthly_tokens: int | None = Field(
        None, ge=0, le=MAX_TOKENS, description="Embedding tokens a month, over the plan's; none is as the plan says."
    )
    plan: Text | None = Field(None, description="None is the service's default plan.", examples=["starter"])
    metadata: Metadata = Field(default_factory=dict, description="Up to 16 of your own keys.", examples=[{"crm": "4711"}])


class TenantPatch(Input):
    """What is left out stays as it is."""

    monthly_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS, description="None is as the plan says.")
    plan: Text | None = Field(None, description="None is the service's default plan.")
    metadata: Metadata | None = Field(None, description="All keys: those that are not named go.")


class SuspensionIn(Input):
    reads: bool = Field(False, description="Whether the tenant may still ask and read.")


class ImportIn(Input):
    csv: Text = Field(
        max_length=MAX_CSV_CHARS,
        description="Columns name, plan, monthly_tokens, metadata.KEY, named by the first line; an empty cell says nothing.",
        examples=["name,plan\nacme,starter\n"],
    )


class OverrideIn(Input):
    value: bool | int | float | Text | list[Text] | None = Field(description="As a plan would say it; null is no limit.")
    expires_at: Moment | None = Field(None, description="From then on the plan's limit holds again; none is never.")
    reason: Text = Field("", max_length=500)


class TenantOut(BaseModel):
    id: str
    name: str
    plan: str | None = Field(description="None is the service's default.")
    monthly_tokens: int | None
    metadata: dict[str, str]
    state: Literal["active", "suspended", "deleting"]
    reads: bool = Field(description="Whether it may ask and read.")
    created_at: str

    @classmethod
    def of(cls, tenant: Tenant) -> TenantOut:
        suspended, deleting = tenant.suspended_at is not None, tenant.deleted_at is not None
        return cls(
            **tenant.model_dump(include={"id", "name", "plan", "monthly_tokens"}),
            metadata=tenant.details,
            state="deleting" if deleting else "suspended" if suspended else "active",
            reads=not deleting and (not suspended or tenant.suspended_reads),
            created_at=isoformat(tenant.created_at),
        )


class PlanOut(Plan):
    name: str
    default: bool = Field(description="Whether it is the plan of tenants that have none of their own.")

    @classmethod
    def of(cls, name: str, plan: Plan, default: str) -> PlanOut:
        return cls(name=name, default=name == default, **plan.model_dump())


class PlansOut(BaseModel):
    data: list[PlanOut]


class LimitOut(BaseModel):
    name: str
    value: bool | int | float | str | list[str] | None = Field(description="What holds; null is no limit.")
    source: Literal["plan", "monthly_tokens", "override"]
    of_plan: bool | int | float | str | list[str] | None = Field(description="What the plan says.")
    used: int | None = Field(description="Of what is counted.")
    expires_at: str | None
    reason: str | None

    @classmethod
    def of(cls, shown: LimitShown) -> LimitOut:
        return cls(
            name=shown.name,
            value=_plain(shown.value),
            source=shown.source,
            of_plan=_plain(shown.of_plan),
            used=shown.used,
            expires_at=None if shown.until is None else isoformat(shown.until),
            reason=shown.reason,
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class LimitsOut(BaseModel):
    plan: str
    limits: list[LimitOut] = Field(max_length=MAX_PROFILES)

    @classmethod
    def of(cls, shown: LimitsShown) -> LimitsOut:
        return cls(plan=shown.plan, limits=[*map(LimitOut.of, shown.limits)])


class ImportedOut(BaseModel):
    line: int
    name: str
    status: Literal["created", "updated", "unchanged", "refused"]
    tenant_id: str | None
    problem: dict[str, Any] | None

    @classmethod
    def of(cls, one: Imported) -> ImportedOut:
        refusal = one.refusal and problem_of(one.refusal).model_dump(exclude_none=True, exclude={"type", "title", "request_id"})
        return cls(line=one.line, name=one.name[:63], status=one.status, tenant_id=one.tenant_id, problem=refusal or None)


class ImportOut(BaseModel):
    data: list[ImportedOut]


class DeletionOut(BaseModel):
    id: str
    tenant_id: str
    name: str
    state: Literal["running", "done"]
    step: str = Field(description="The last that was finished.")
    before: dict[str, int] = Field(description="Rows by table, points, files and cached vectors, when it began.")
    after: dict[str, int] = Field(description="The same when it was done.")
    requested_at: str
    finished_at: str | None

    @classmethod
    def of(cls, row: TenantDeletion) -> DeletionOut:
        fields = row.model_dump(include={"id", "tenant_id", "name", "state", "step", "before", "after"})
        finished = None if row.finished_at is None else isoformat(row.finished_at)
        return cls(**fields, requested_at=isoformat(row.requested_at), finished_at=finished)
