"""The wire's shapes of webhooks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from api.schemas.documents import Input, Text
from config.clock import isoformat
from tenants.webhooks.endpoints import NewWebhook
from tenants.webhooks.rules import MAX_COALESCE_S, MAX_GLOBS, MAX_OVERLAP_HOURS
from tenants.webhooks.tables import WebhookDelivery, WebhookEndpoint

DeliveryState = Literal["pending", "delivered", "failed"]

URL = "Where events are sent: http or https, at a public address."
EVENTS = "Which: `document.live`, `document.*`, `*.failed` or `*`."
COALESCE = "Gather events of one type about one subject for so long, and send the last; 0 sends each."
COALESCED = "Earlier events of the same type and subject that this one stands for too."
STATE = "`failed` is a dead letter: nobody tries it again until it is replayed."


class WebhookIn(Input):
    url: Text = Field(description=URL, examples=["https://example.com/carrel"])
    events: list[Text] = Field(description=EVENTS, min_length=1, max_length=MAX_GLOBS, examples=[["document.*"]])
    description: Text = ""
    coalesce_seconds: int = Field(0, ge=0, le=MAX_COALESCE_S, description=COALESCE)


class WebhookPatch(Input):
    """What is given changes."""

    url: Text | None = Field(None, description=URL)
    events: list[Text] | None = Field(None, description=EVENTS, min_length=1, max_length=MAX_GLOBS)
    description: Text | None = None
    coalesce_seconds: int | None = Field(None, ge=0, le=MAX_COALESCE_S, description=COALESCE)
    enabled: bool | None = Field(None, description="What happens while it is disabled is not sent, unless it is replayed.")


class SecretRotateIn(Input):
    overlap_hours: int = Field(
        24, ge=0, le=MAX_OVERLAP_HOURS, description="How long the present secret signs too; 0 ends all former ones at once."
    )


class ReplayIn(Input):
    since: AwareDatetime = Field(examples=["2026-03-10T12:00:00Z"])
    until: AwareDatetime | None = Field(None, description="Events before then; null is all since.")


class WebhookOut(BaseModel):
    id: str
    url: str
    description: str
    events: list[str]
    coalesce_seconds: int
    state: Literal["enabled", "disabled"]
    disabled_reason: Literal["by_request", "gone", "failing"] | None = Field(
        description="`gone`: the receiver answered 410; `failing`: nothing succeeded for five days."
    )
    disabled_at: str | None
    failing_since: str | None = Field(description="When the first of the tries failed that have failed since the last success.")
    last_success_at: str | None
    replaying: bool = Field(description="Whether events of a range of time are being sent again.")
    created_at: str
    updated_at: str

    @classmethod
    def fields_of(cls, row: WebhookEndpoint) -> dict[str, Any]:
        times = ("disabled_at", "failing_since", "last_success_at", "created_at", "updated_at")
        state = "enabled" if row.disabled_reason is None else "disabled"
        shown = {name: None if (at := getattr(row, name)) is None else isoformat(at) for name in times}
        return {**row.model_dump(), **shown, "state": state, "replaying": row.replay_until is not None}

    @classmethod
    def of(cls, row: WebhookEndpoint) -> WebhookOut:
        return cls.model_validate(cls.fields_of(row))


class NewWebhookOut(WebhookOut):
    secret: str = Field(description="What messages are signed with, `whsec_…`. It is shown this once.")

    @classmethod
    def of_new(cls, new: NewWebhook) -> NewWebhookOut:
        return cls.model_validate({**cls.fields_of(new.row), "secret": new.secret})


class DeliveryOut(BaseModel):
    id: str
    event_id: str = Field(description="The header `webhook-id`, by which receivers know what they had already.")
    type: str
    subject: str
    state: DeliveryState = Field(description=STATE)
    coalesced: int = Field(description=COALESCED)
    attempts: int
    due_at: str | None = Field(description="When it is tried next.")
    last_status: int | None = Field(description="What the receiver answered last.")
    last_error: str | None
    created_at: str
    finished_at: str | None

    @classmethod
    def of(cls, row: WebhookDelivery) -> DeliveryOut:
        times = {
            "due_at": isoformat(row.due_at) if row.state == "pending" else None,
            "created_at": isoformat(row.created_at),
            "finished_at": None if row.finished_at is None else isoformat(row.finished_at),
        }
        return cls.model_validate({**row.model_dump(), **times})
