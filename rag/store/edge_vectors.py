"""One tenant's points in one shard of Qdrant Edge, and conditions as Edge understands them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import qdrant_edge as edge

from rag.store import base
from rag.store.base import DENSE, SPARSE, Hit, Point, Search, Vector
from rag.store.conditions import AllOf, AnyOf, Between, Condition, NoneOf, OnlyOf, SomeOf
from rag.store.edge import Shard

PAGE = 5_000


class EdgeVectors:
    """`hidden`: collections whose points here are not, or no longer, the ones that count."""

    def __init__(self, shard: Shard, tenant: str, hidden: Collection[str] = ()) -> None:
        self._shard, self._tenant, self._space = shard, tenant, shard.space
        self._hidden = [compiled(AnyOf("collection", tuple(hidden)))] if hidden else None

    def own(self, *conditions: Any, **groups: Any) -> edge.Filter:
        tenant = edge.FieldCondition("tenant", match=edge.MatchValue(self._tenant))
        return edge.Filter(must=[tenant, *conditions], **groups)

    def _seen(self, *conditions: Any) -> edge.Filter:
        return self.own(*conditions, must_not=self._hidden)

    def upsert(self, points: Sequence[Point]) -> None:
        base.check_points(points, self._space)
        if not points:
            return
        # The condition keeps a point of another tenant from being replaced, should ids ever meet.
        batch = [self._encode(point) for point in points]
        self._shard.put(batch, self.own())
        if self._shard.mirror is not None:
            self._shard.mirror.upserted(self._tenant, points)

    def _encode(self, point: Point) -> edge.Point:
        vectors: dict[str, Any] = {DENSE: point.dense}
        if point.sparse is not None:
            vectors[SPARSE] = edge.SparseVector(list(point.sparse.indices), list(point.sparse.values))
        return edge.Point(point.id, vectors, base.payload_of(self._tenant, point))

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        for search in searches:
            base.check_search(search, self._space)
        if not searches:
            return []
        legs = self._shard.query([self._leg(search) for search in searches])
        own, tenant = base.own_hit, self._tenant
        return [base.in_order([own(tenant, str(one.id), one.score, one.payload) for one in leg]) for leg in legs]

    def _leg(self, search: Search) -> edge.QueryRequest:
        if isinstance(search.query, base.SparseVector):
            sparse = edge.SparseVector(list(search.query.indices), list(search.query.values))
            query = edge.Query.Nearest(sparse, using=SPARSE)
        else:
            query = edge.Query.Nearest(search.query.tolist(), using=DENSE)
        return edge.QueryRequest(
            limit=search.limit,
            query=query,
            filter=self.own(*(compiled(part) for part in base.conditions_of(search))),
            params=self._shard.params,
            with_payload=base.HIT_FIELDS,
        )

    def delete_points(self, ids: Collection[str]) -> None:
        """Hidden ones as well: what is deleted must not come to light again."""
        if not ids:
            return
        self._shard.update(edge.UpdateOperation.delete_points_by_filter(self.own(edge.HasIdCondition(set(ids)))))
        if self._shard.mirror is not None:
            self._shard.mirror.deleted(self._tenant, ids)

    def delete_document(self, document: str) -> None:
        which = self.own(compiled(AnyOf("document", (document,))))
        gone = [] if self._shard.mirror is None else self._ids(which)
        self._shard.update(edge.UpdateOperation.delete_points_by_filter(which))
        if self._shard.mirror is not None and gone:
            self._shard.mirror.deleted(self._tenant, gone)

    def ids(self, document: str | None = None) -> list[str]:
        return self._ids(self._seen() if document is None else self._seen(compiled(AnyOf("document", (document,)))))

    def _ids(self, which: edge.Filter) -> list[str]:
        found: list[str] = []
        offset: Any = None
        while True:
            page, offset = self._shard.scroll(offset=offset, limit=PAGE, filter=which, with_payload=False)
            found += [str(record.id) for record in page]
            if offset is None:
                return sorted(found)

    def _of(self, collection: str) -> edge.Filter:
        return self.own(compiled(AnyOf("collection", (collection,))))

    def points_of(self, collection: str, after: str | None, limit: int) -> list[edge.Point]:
        """A page of a collection's points, by id, whole."""
        return self._shard.whole(offset=base.following(after), limit=limit, filter=self._of(collection))

    def ids_of(self, collection: str, after: str | None, limit: int) -> list[str]:
        """The same, their ids alone."""
        which = self._of(collection)
        records, _ = self._shard.scroll(offset=base.following(after), limit=limit, filter=which, with_payload=False)
        return [str(record.id) for record in records]

    def count_of(self, collection: str) -> int:
        return self._shard.count(self._of(collection))

    def take(self, points: list[edge.Point]) -> None:
        """Points as another shard gave them out."""
        self._shard.put(points, self.own())

    def page(self, after: str | None, limit: int) -> list[tuple[str, str]]:
        base.check_page(limit)
        records, _ = self._shard.scroll(
            offset=base.following(after), limit=limit, filter=self._seen(), with_payload=base.HIT_FIELDS
        )
        return [base.own_point(self._tenant, str(record.id), record.payload) for record in records]

    def existing(self, ids: Sequence[str]) -> set[str]:
        base.check_ids(ids)
        if not ids:
            return set()
        records, _ = self._shard.scroll(limit=len(ids), filter=self._seen(edge.HasIdCondition(set(ids))), with_payload=False)
        return {str(record.id) for record in records}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        base.check_ids(ids)
        if not ids:
            return {}
        which, fields = self._seen(edge.HasIdCondition(set(ids))), base.HIT_FIELDS
        records, _ = self._shard.scroll(limit=len(ids), filter=which, with_payload=fields, with_vector=[DENSE])
        own: list[tuple[str, Any]] = [
            (base.own_point(self._tenant, str(one.id), one.payload)[0], one.vector) for one in records
        ]
        return {point: np.asarray(vectors[DENSE], np.float32) for point, vectors in own}

    def count(self) -> int:
        return self._shard.count(self._seen())


def compiled(condition: Condition) -> Any:
    match condition:
        case AnyOf(field, values):
            return edge.FieldCondition(field, match=edge.MatchAny(list(values)))
        case OnlyOf(field, values):
            return edge.Filter(must_not=[edge.FieldCondition(field, match=edge.MatchExcept(list(values)))])
        case Between(slot, gt, gte, lt, lte):
            return edge.FieldCondition(f"number_{slot}", range=edge.RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte))
        case AllOf(of):
            return edge.Filter(must=[compiled(part) for part in of])
        case SomeOf(()):
            return edge.FieldCondition("labels", match=edge.MatchAny([]))  # an empty `should` would match everything
        case SomeOf(of):
            return edge.Filter(should=[compiled(part) for part in of])
        case NoneOf(of):
            return edge.Filter(must_not=[compiled(part) for part in of])
