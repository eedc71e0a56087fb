"""The audit record, and what operators see of all tenants, as they are on the wire."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from api.oversight import MAX_TENANTS, Looked
from api.schemas.documents import Input, Text
from api.schemas.query import PassageOut
from config.clock import isoformat
from ingestion.statistics import Noisy, Statistics
from rag.filters import parse
from rag.retrieval.question import MAX_COLLECTIONS, Question
from rag.types import MAX_QUESTION_CHARS
from tenants.audit.record import Wanted
from tenants.audit.tables import AuditEntry

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MAX_TOP_K = 50  #: passages of each tenant in one answer


class AuditEntryOut(BaseModel):
    """One request: who did what, on what, and how it ended. Ids, never text."""

    id: str
    at: str
    request_id: str
    principal_kind: str = Field(examples=["key"])
    principal_id: str
    action: str = Field(description="Method and route.", examples=["POST /v1/query"])
    target: str = Field(description="The path as it was called.")
    decision: Literal["allowed", "denied"]
    status: int = Field(description="HTTP status of the answer; 0: none left, its effect may be there all the same.")
    detail: dict[str, Any] = Field(description="Ids and counts of what it touched.")
    position: int | None = Field(description="Its place in the chain; null: not sealed yet.")

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditEntryOut:
        return cls.model_validate({**entry.model_dump(), "at": isoformat(entry.at)})


def _wanted(
    principal: Annotated[Text | None, Query(description="Id of a key, token or operator.")] = None,
    action: Annotated[Text | None, Query(description="Method and route, as `POST /v1/query`.")] = None,
    decision: Literal["allowed", "denied"] | None = None,
    target: Annotated[Text | None, Query(description="The path, or its beginning.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="From this time on: ISO 8601 with its zone.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Before this time.")] = None,
) -> Wanted:
    return Wanted(principal, action, decision, target, _milliseconds(since), _milliseconds(until))


def _milliseconds(moment: dt.datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // dt.timedelta(milliseconds=1)


AuditFilter = Annotated[Wanted, Depends(_wanted)]


class AdminSearchIn(Input):
    tenants: list[Text] = Field(min_length=1, max_length=MAX_TENANTS, description="By name or id; no others are looked at.")
    reason: Text = Field(
        min_length=3, max_length=500, description="Why; it stands in the audit record of each of them, who can read it."
    )
    query: Text = Field(min_length=1, max_length=MAX_QUESTION_CHARS)
    collections: list[Text] = Field(default_factory=lambda: ["default"], min_length=1, max_length=MAX_COLLECTIONS)
    filter: dict[str, Any] | None = Field(None, description="As of `POST /v1/query`.")
    top_k: int = Field(10, ge=1, le=MAX_TOP_K, description="Passages of each tenant.")

    @field_validator("reason")
    @classmethod
    def _said(cls, reason: str) -> str:
        if len(reason.split()) == 0:
            raise ValueError("say why")
        return reason

    def question(self) -> Question:
        wanted = None if self.filter is None else parse(self.filter)
        return Question(self.query, tuple(dict.fromkeys(self.collections)), top_k=self.top_k, filter=wanted)


class LookedOut(BaseModel):
    tenant_id: str
    tenant: str
    passages: list[PassageOut]
    problem: str | None = Field(description="Why nothing was asked of this tenant: it has none of these collections.")

    @classmethod
    def of(cls, looked: Looked) -> LookedOut:
        passages = [PassageOut.of(passage) for passage in looked.passages]
        return cls(tenant_id=looked.tenant.id, tenant=looked.tenant.name, passages=passages, problem=looked.problem)


class AdminSearchOut(BaseModel):
    results: list[LookedOut] = Field(description="In the order of `tenants`; scores of different tenants cannot be compared.")
    tokens: int = Field(description="That were embedded; charged to none of the tenants.")


class SumsOut(BaseModel):
    requests: int = Field(description="On audit record: changes, retrievals and denials.")
    queries: int
    denied: int
    failed: int = Field(description="Answered with 5xx, or not at all.")
    tokens: int = Field(description="Charged, of every UTC day that the hours touch.")


class StatisticsOut(BaseModel):
    """Sums over all tenants, from counts that are kept; requests are counted when they are sealed, a few seconds late."""

    tenants: int
    documents: int
    chunks: int
    bytes: int
    hours: int
    recent: SumsOut

    @classmethod
    def of(cls, found: Statistics) -> StatisticsOut:
        return cls.model_validate(asdict(found))


class NoisyOut(SumsOut):
    tenant_id: str
    tenant: str

    @classmethod
    def of(cls, noisy: Noisy) -> NoisyOut:
        return cls(tenant_id=noisy.tenant_id, tenant=noisy.name, **asdict(noisy.sums))


class NoisiestOut(BaseModel):
    by: str
    hours: int
    data: list[NoisyOut]
