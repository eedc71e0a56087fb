"""A cited passage inside the text that it was cut from, as the live version of its document has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from config.database import Database
from config.errors import NotFound
from ingestion.blobs import BlobStore
from rag.corpus import Collection, DocumentVersion
from rag.ranking import Ranked
from rag.retrieval.hydration import Hydrator, Moment
from rag.retrieval.question import Passage
from tenants.context import TenantContext

MAX_AROUND = 20_000


@dataclass(frozen=True, slots=True)
class Shown:
    """`before + passage.text + after` is a piece of the document's text."""

    passage: Passage
    before: str
    after: str


class Passages:
    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database, self.blobs = database, blobs

    def for_tenant(self, context: TenantContext) -> TenantPassages:
        return TenantPassages(self, context)


class TenantPassages:
    def __init__(self, parts: Passages, context: TenantContext) -> None:
        self._parts, self._context = parts, context

    def get(self, passage_id: str, *, around: int, version: int | None = None) -> Shown:
        """With up to `around` characters before and after it.

        `version`: as that one has it, if it is kept, and not the live one.
        NotFound alike for what is missing, foreign or out of bounds.
        """
        for last in (False, True):
            with self._parts.database.read(self._context) as session:
                passage, blob = self._find(session, passage_id, Moment(version=version))
            try:
                text = self._parts.blobs.get(blob).decode()
            except FileNotFoundError:  # replaced since it was looked up
                if last:
                    raise
                continue
            return Shown(passage, text[max(0, passage.start - around) : passage.start], text[passage.end :][:around])
        raise AssertionError("the loop returns or raises")

    def _find(self, session: Session, passage_id: str, moment: Moment) -> tuple[Passage, str]:
        found = Hydrator(self._context, None, moment=moment).passages(session, [Ranked(passage_id, 0.0, {})], Counter())
        row = session.get(Collection, found[0].collection) if found else None
        version = session.get(DocumentVersion, found[0].version_id) if row else None
        bounds = self._context.collections if self._context.session is None else None
        if row is None or row.session_id != self._context.session or (bounds is not None and row.name not in bounds):
            raise NotFound("There is no such passage.")
        if version is None or version.text_blob is None:
            raise NotFound("There is no such passage.")
        return replace(found[0], collection=row.name), version.text_blob
