"""Erasures, and what of a session is kept beyond it, as they are on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from api.schemas.documents import Input, SubmittedOut, Text
from config.clock import isoformat
from ingestion.conversations.promotion import MAX_PROMOTED
from ingestion.jobs.tables import Erasure
from tenants.identity.tokens import MAX_SUBJECT_CHARS


class ErasureIn(Input):
    subject: Text = Field(
        min_length=1, max_length=MAX_SUBJECT_CHARS, description="Whose sessions, memories, traces and feedback."
    )


class ErasureOut(BaseModel):
    id: str
    kind: Literal["session", "subject"]
    session_id: str | None
    state: Literal["running", "done"] = Field(description="From its beginning on nothing of it is in any answer.")
    before: dict[str, int] = Field(description="Rows by table, points, files and kept results, when it was asked for.")
    after: dict[str, int] = Field(description="The same when it was done; empty until then.")
    requested_at: str
    finished_at: str | None

    @classmethod
    def of(cls, row: Erasure) -> ErasureOut:
        done = row.finished_at
        return cls.model_validate(
            {
                **row.model_dump(include={"id", "kind", "session_id", "state", "before"}),
                "after": row.after if row.state == "done" else {},
                "requested_at": isoformat(row.requested_at),
                "finished_at": None if done is None else isoformat(done),
            }
        )


class PromoteIn(Input):
    collection: Text = Field(description="Where to; it is made if there is none of this name.", examples=["handbook"])
    documents: list[Text] | None = Field(
        None, max_length=MAX_PROMOTED, description="Ids of attached documents; left out, all that are live."
    )

    turns: bool = Field(False, description="Its turns too, as one document that is cut at turns.")


class PromotedOut(BaseModel):
    session_document_id: str = Field(description="Its id in the session, where it stays until the session goes.")
    promoted: SubmittedOut = Field(description="The document that it becomes, with an id of its own, and the work to wait for.")


class PromotionOut(BaseModel):
    data: list[PromotedOut]
    transcript: SubmittedOut | None = Field(description="Of its turns, if they were asked for.")
