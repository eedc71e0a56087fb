"""The store of tests and of the contract: the same answers as the engines, in plain numpy."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rag.store.base import (
    MAX_CROWDED,
    Dedicated,
    Hit,
    Placement,
    Point,
    Search,
    Space,
    SparseVector,
    StoreHealth,
    Vector,
    check_ids,
    check_page,
    check_placement,
    check_points,
    check_search,
    conditions_of,
    in_order,
    page_of,
)
from rag.store.conditions import AllOf, holds
from rag.types import Scope


class MemoryStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spaces: dict[str, dict[str, tuple[str, Point]]] = {}  # space → point id → (tenant, point)
        self._dedicated: dict[str, set[tuple[str, str]]] = {}  # space → (tenant, collection)

    def for_tenant(self, scope: Scope, space: Space) -> MemoryVectors:
        with self._lock:
            points = self._spaces.setdefault(space.id, {})
            dedicated = self._dedicated.setdefault(space.id, set())
        return MemoryVectors(self._lock, points, dedicated, scope.tenant_id, space)

    def tenants(self, space: Space, after: str | None, limit: int) -> list[str]:
        check_page(limit)
        with self._lock:
            return page_of({tenant for tenant, _ in self._spaces.get(space.id, {}).values()}, after, limit)

    def _counts(self, space: Space) -> Counter[tuple[str, str]]:
        with self._lock:
            return Counter((tenant, point.collection) for tenant, point in self._spaces.get(space.id, {}).values())

    def dedicated(self, space: Space) -> list[Dedicated]:
        counts = self._counts(space)
        return [Dedicated(*key, counts[key]) for key in sorted(self._dedicated.get(space.id, ()))]

    def crowded(self, space: Space, at_least: int) -> list[str]:
        apart = self._dedicated.get(space.id, set())
        counts = self._counts(space).most_common()
        return [key[1] for key, count in counts if count >= at_least and key not in apart][:MAX_CROWDED]

    def health(self) -> StoreHealth:
        return StoreHealth(True, "in memory", {space: len(points) for space, points in self._spaces.items()})

    def close(self) -> None:
        self._spaces.clear()


class MemoryVectors:
    def __init__(
        self,
        lock: threading.Lock,
        points: dict[str, tuple[str, Point]],
        dedicated: set[tuple[str, str]],
        tenant: str,
        space: Space,
    ) -> None:
        self._lock, self._points, self._tenant, self._space = lock, points, tenant, space
        self._dedicated = dedicated

    def upsert(self, points: Sequence[Point]) -> None:
        check_points(points, self._space)
        with self._lock:
            self._points.update({point.id: (self._tenant, point) for point in points if self._may_write(point.id)})

    def _may_write(self, point_id: str) -> bool:
        return self._points.get(point_id, (self._tenant,))[0] == self._tenant

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        for search in searches:
            check_search(search, self._space)
        with self._lock:
            own = [point for tenant, point in self._points.values() if tenant == self._tenant]
        return [self._leg(search, own) for search in searches]

    def _leg(self, search: Search, own: list[Point]) -> list[Hit]:
        condition = AllOf(conditions_of(search))
        hits = []
        for point in own:
            score = _score(search.query, point)
            if score is not None and holds(condition, _keywords(point), dict(point.numbers)):
                hits.append(Hit(point.id, score, point.document))
        return in_order(hits)[: search.limit]

    def delete_points(self, ids: Sequence[str]) -> None:
        with self._lock:
            for point_id in ids:
                if self._may_write(point_id):
                    self._points.pop(point_id, None)

    def delete_document(self, document: str) -> None:
        self.delete_points(self.ids(document))

    def ids(self, document: str | None = None) -> list[str]:
        with self._lock:
            return sorted(
                point.id
                for tenant, point in self._points.values()
                if tenant == self._tenant and document in (None, point.document)
            )

    def page(self, after: str | None, limit: int) -> list[tuple[str, str]]:
        check_page(limit)
        with self._lock:
            own = {point.id: point.document for tenant, point in self._points.values() if tenant == self._tenant}
        return [(point_id, own[point_id]) for point_id in page_of(own, after, limit)]

    def existing(self, ids: Sequence[str]) -> set[str]:
        with self._lock:
            return self._existing(ids)

    def _existing(self, ids: Sequence[str]) -> set[str]:
        check_ids(ids)
        return {point_id for point_id in ids if self._points.get(point_id, ("",))[0] == self._tenant}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        with self._lock:
            return {point_id: self._points[point_id][1].dense for point_id in self._existing(ids)}

    def count(self) -> int:
        return len(self.ids())

    def place(self, collection: str, placement: Placement) -> bool:
        check_placement(collection, placement)
        change = self._dedicated.add if placement == "dedicated" else self._dedicated.discard
        with self._lock:
            change((self._tenant, collection))
        return True


def _score(query: object, point: Point) -> float | None:
    """The dot product, or None where a sparse query shares no index with the point: engines leave those out."""
    if isinstance(query, SparseVector):
        weights = dict(zip(point.sparse.indices, point.sparse.values, strict=True)) if point.sparse else {}
        shared = [i for i in query.indices if i in weights]
        if not shared:
            return None
        values = dict(zip(query.indices, query.values, strict=True))
        return float(sum(values[i] * weights[i] for i in shared))
    return float(np.dot(np.asarray(query, np.float32), point.dense))


def _keywords(point: Point) -> dict[str, tuple[str, ...]]:
    return {
        "collection": (point.collection,),
        "document": (point.document,),
        "labels": point.labels,
        "terms": point.terms,
    }
