"""Question sets, feedback, and what collections are tuned to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carrel_client.models import Model


@dataclass(frozen=True)
class QuestionSet(Model):
    id: str
    name: str
    collection: str
    count: int
    created_at: str
    questions: list[dict[str, Any]] | None = None  #: each with `text` and `relevant`; None in lists


@dataclass(frozen=True)
class Feedback(Model):
    """What somebody said of a document, or of a passage of it, as an answer to a question."""

    id: str
    query: str
    collection: str
    document_id: str
    external_id: str
    passage_id: str | None
    useful: bool | None
    rating: int | None  #: 1 to 5
    comment: str | None
    subject: str | None
    created_at: str


@dataclass(frozen=True)
class TuningVersion(Model):
    version: int
    replaces: int  #: what was active before; 0: nothing
    parameters: dict[str, Any]  #: `boosts` and `recency`, as a query takes them
    figures: dict[str, Any]  #: what was measured on questions that it was not fitted to
    applied_at: str
    rolled_back_at: str | None


@dataclass(frozen=True)
class Tunings(Model):
    """What a collection was tuned to, newest first."""

    active: int  #: version; 0: none
    versions: list[TuningVersion]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Tunings:
        return cls(data["active"], [TuningVersion.parse(each) for each in data["versions"]])

    @property
    def parameters(self) -> dict[str, Any] | None:
        """Of the active version."""
        return next((each.parameters for each in self.versions if each.version == self.active), None)
