"""What the engine proposed becomes passages, as far as SQL confirms it: chunks of live versions that the reader may see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased
from sqlmodel import col

from config.database import ROWS_BY_KEY
from rag.arranging.relevance import Calibration
from rag.corpus import Chunk, Document, DocumentVersion, VersionChunk
from rag.filters import Filter, matches
from rag.ranking import Ranked
from rag.retrieval.question import Passage
from rag.splitting.parents import ParentKey, parents_of
from rag.types import Reader

PAGE = 500  # ids of one statement

#: Chunks as the live versions of existing documents place them. The session adds the tenant's condition to each table.
#: Columns, because the four entities of a hit cost 40 µs more than their values.
_PLACED = (
    sa.select(
        col(Chunk.id),
        col(Chunk.text),
        col(VersionChunk.version_id),
        col(VersionChunk.ordinal),
        col(VersionChunk.start),
        col(VersionChunk.end),
        col(VersionChunk.headings),
        col(VersionChunk.parent_start),
        col(VersionChunk.first_page),
        col(VersionChunk.last_page),
        col(DocumentVersion.number),
        col(DocumentVersion.title),
        col(DocumentVersion.source),
        col(DocumentVersion.labels),
        col(DocumentVersion.attributes),
        col(DocumentVersion.flags),
        col(DocumentVersion.created_at),
        col(Document.id).label("document_id"),
        col(Document.external_id),
        col(Document.collection_id),
    )
    .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
    .join(DocumentVersion, col(DocumentVersion.id) == col(VersionChunk.version_id))
    .join(Document, col(Document.id) == col(DocumentVersion.document_id))
    .where(col(Document.deleted_at).is_(None))
    .execution_options(**ROWS_BY_KEY)
)
_IS_LIVE = col(Document.live_version_id) == col(DocumentVersion.id)
_Current: Any = aliased(DocumentVersion)
#: Of any version, with what readers must hold today: nobody sees by asking of the past what was taken from them since.
_WITH_CURRENT = _PLACED.join(_Current, _Current.id == col(Document.live_version_id)).add_columns(
    _Current.labels.label("labels_now"), sa.not_(_IS_LIVE).label("former")
)
_LIVE_FROM = sa.func.coalesce(col(DocumentVersion.live_from), col(DocumentVersion.created_at))
_LIVE = _PLACED.where(_IS_LIVE).add_columns(sa.false().label("former"))
_LIVE_THEN = _WITH_CURRENT.where(
    sa.bindparam("as_of", type_=sa.BigInteger) >= _LIVE_FROM,
    sa.or_(_IS_LIVE, col(DocumentVersion.live_until) > sa.bindparam("as_of", type_=sa.BigInteger)),
)
_NUMBERED = _WITH_CURRENT.where(
    col(DocumentVersion.number) == sa.bindparam("version"), sa.or_(_IS_LIVE, col(DocumentVersion.live_until).is_not(None))
)
_BY_ID = col(Chunk.id).in_(sa.bindparam("ids", expanding=True))
#: Places that are named by version and ordinal.
_BY_PLACE = sa.tuple_(col(VersionChunk.version_id), col(VersionChunk.ordinal)).in_(sa.bindparam("places", expanding=True))


@dataclass(frozen=True, slots=True)
class Moment:
    """Which versions are looked at: those that are live, were live at a time (Unix milliseconds), or have a number."""

    as_of: int | None = None
    version: int | None = None

    @property
    def kind(self) -> str:
        return "then" if self.as_of is not None else "now" if self.version is None else "numbered"

    @property
    def values(self) -> dict[str, int]:
        given = {"as_of": self.as_of, "version": self.version}
        return {name: value for name, value in given.items() if value is not None}


NOW = Moment()
_CHUNKS = {"now": _LIVE.where(_BY_ID), "then": _LIVE_THEN.where(_BY_ID), "numbered": _NUMBERED.where(_BY_ID)}
_PLACES = {"now": _LIVE.where(_BY_PLACE), "then": _LIVE_THEN.where(_BY_PLACE)}


#: Why a hit is no passage: of a version that is not live, or that the reader may not see; or its stored values do not meet
#: the filter. A reader is not told apart what the first two are.
NOT_CURRENT, FILTERED = "not_current", "filter"


@dataclass(frozen=True, slots=True)
class Hydrator:
    """`names`: of the collections that were asked for, by id; None: of any, and a passage names its collection by id."""

    scope: Reader
    names: Mapping[str, str] | None
    filter: Filter | None = None
    calibration: Calibration | None = None
    moment: Moment = NOW

    def passages(self, session: Session, ranked: Sequence[Ranked], dropped: Counter[str]) -> list[Passage]:
        """Of these hits, in their order; the others are counted by why."""
        ids = [hit.id for hit in ranked]
        pages = (ids[at : at + PAGE] for at in range(0, len(ids), PAGE))
        statement, values = _CHUNKS[self.moment.kind], self.moment.values
        rows = {row.id: row for page in pages for row in session.execute(statement, {"ids": page, **values})}
        passages = []
        for hit in ranked:
            reason = self._reason(rows.get(hit.id))
            if reason is None:
                row = rows[hit.id]
                name = row.collection_id if self.names is None else self.names[row.collection_id]
                passages.append(_passage(row, name, hit.score, self._relevance(hit)))
            else:
                dropped[reason] += 1
        return passages

    def _reason(self, row: sa.Row[*tuple[Any, ...]] | None) -> str | None:
        if row is None or (self.names is not None and row.collection_id not in self.names):
            return NOT_CURRENT
        if not _holds_labels(self.scope, row):
            return NOT_CURRENT
        return None if self.filter is None or matches(self.filter, row.attributes) else FILTERED

    def _relevance(self, hit: Ranked) -> float | None:
        """Of its cosine, for which alone it was measured; what words alone have found has none."""
        dense = hit.places.get("dense")
        return None if self.calibration is None or dense is None else self.calibration.of(dense.score)


def with_parents(session: Session, passages: Sequence[Passage]) -> list[Passage]:
    """With the parent's text in place of the chunk's, where there is one."""
    parents = parents_of(session, passages)
    return [replace(passage, **parents.get(passage.parent, {})) if passage.parent else passage for passage in passages]


def with_neighbours(
    session: Session,
    scope: Reader,
    passages: Sequence[Passage],
    filter_: Filter | None,
    *,
    before: int,
    after: int,
    moment: Moment = NOW,
) -> list[Passage]:
    """Behind each passage those that stand up to so many chunks before and after it, unless they are there already."""
    found = {(passage.version_id, passage.ordinal) for passage in passages}
    beside: dict[tuple[str, int], Passage] = {}
    for passage in passages:
        for ordinal in range(max(0, passage.ordinal - before), passage.ordinal + after + 1):
            if (passage.version_id, ordinal) not in found:
                beside.setdefault((passage.version_id, ordinal), passage)
    added: dict[str, list[Passage]] = {}
    places = [*beside]
    for page in (places[at : at + PAGE] for at in range(0, len(places), PAGE)):
        for row in session.execute(_PLACES[moment.kind], {"places": page, **moment.values}):
            if _may_see(scope, row, filter_):
                main = beside[row.version_id, row.ordinal]
                if main.start <= row.start and row.end <= main.end:
                    continue  # in the parent's text already
                neighbour = replace(_passage(row, main.collection, main.score, main.relevance), neighbour_of=main.id)
                added.setdefault(main.id, []).append(neighbour)
    return [
        each for passage in passages for each in (passage, *sorted(added.get(passage.id, ()), key=lambda item: item.ordinal))
    ]


def _holds_labels(scope: Reader, row: sa.Row[*tuple[Any, ...]]) -> bool:
    """Those of the version, and of the one that is live now."""
    return scope.labels is None or (
        scope.labels.issuperset(row.labels) and scope.labels.issuperset(getattr(row, "labels_now", ()))
    )


def _may_see(scope: Reader, row: sa.Row[*tuple[Any, ...]], filter_: Filter | None) -> bool:
    return _holds_labels(scope, row) and (filter_ is None or matches(filter_, row.attributes))


def _passage(row: sa.Row[*tuple[Any, ...]], collection: str, score: float, relevance: float | None) -> Passage:
    return Passage(
        id=row.id,
        score=score,
        text=row.text,
        start=row.start,
        end=row.end,
        document_id=row.document_id,
        external_id=row.external_id,
        version=row.number,
        collection=collection,
        title=row.title,
        source=row.source,
        headings=tuple(row.headings),
        first_page=row.first_page,
        last_page=row.last_page,
        attributes=row.attributes,
        version_id=row.version_id,
        ordinal=row.ordinal,
        created_at=row.created_at,
        warnings=tuple(flag["code"] for flag in row.flags),
        parent=None if row.parent_start is None else ParentKey(row.version_id, row.parent_start),
        relevance=relevance,
        former=bool(row.former),
    )
