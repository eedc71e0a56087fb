"""A Qdrant server or cluster through qdrant-client: the store when one machine is not enough. The only file that imports it.

One collection a space, one payload partition a tenant (`is_tenant`). Ordinary calls of the client do not retry, and `upload_*`
does not wait: only `upsert(wait=True)` is used. No package ships the server, so everyday tests run its call shapes on
the client's `:memory:` double; the contract suite runs against a real one where CARREL_TEST_QDRANT_URL is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from config.errors import EngineUnavailable
from rag.store import base
from rag.store.base import DENSE, SPARSE, Hit, Point, Search, Space, StoreHealth, Vector
from rag.store.conditions import (
    KEYWORD_FIELDS,
    NUMBER_SLOTS,
    AllOf,
    AnyOf,
    Between,
    Condition,
    NoneOf,
    OnlyOf,
    SomeOf,
)
from rag.types import Scope

PAGE = 1_000


class QdrantStore:
    def __init__(self, client: QdrantClient, *, indexes: bool = True) -> None:
        """`indexes`: False for the in-memory double, which ignores payload indexes and warns."""
        self._client, self._indexes = client, indexes
        self._known: set[str] = set()

    @classmethod
    def connect(cls, url: str, api_key: str | None) -> QdrantStore:
        # The version check would run in a thread of its own and only warn.
        return cls(QdrantClient(url=url, api_key=api_key, timeout=30, check_compatibility=False))

    def for_tenant(self, scope: Scope, space: Space) -> QdrantVectors:
        if space.id not in self._known:
            _reach(lambda: self._create(space))
            self._known.add(space.id)
        return QdrantVectors(self._client, scope.tenant_id, space)

    def _create(self, space: Space) -> None:
        if self._client.collection_exists(space.id):
            return
        self._client.create_collection(
            space.id,
            vectors_config={DENSE: models.VectorParams(size=space.dimensions, distance=models.Distance.DOT)},
            sparse_vectors_config={SPARSE: models.SparseVectorParams()},
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
        )
        if not self._indexes:
            return
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        self._client.create_payload_index(space.id, "tenant", tenant)
        for name in KEYWORD_FIELDS:
            self._client.create_payload_index(space.id, name, models.PayloadSchemaType.KEYWORD)
        for slot in range(NUMBER_SLOTS):
            self._client.create_payload_index(space.id, f"number_{slot}", models.PayloadSchemaType.FLOAT)

    def tenants(self, space: Space, after: str | None, limit: int) -> list[str]:
        base.check_page(limit)
        if not _reach(lambda: self._client.collection_exists(space.id)):
            return []
        answer = _reach(lambda: self._client.facet(space.id, "tenant", limit=base.MAX_TENANTS, exact=True))
        return base.page_of((str(hit.value) for hit in answer.hits if hit.count), after, limit)

    def health(self) -> StoreHealth:
        try:
            names = [item.name for item in self._client.get_collections().collections]
            return StoreHealth(True, "reached", {name: self._client.count(name).count for name in names})
        except (ApiException, ResponseHandlingException, OSError) as error:
            return StoreHealth(False, f"Qdrant server: {type(error).__name__}")

    def close(self) -> None:
        self._client.close()


def _reach(call: Any) -> Any:
    try:
        return call()
    except (ApiException, ResponseHandlingException, OSError) as error:
        raise EngineUnavailable(f"The Qdrant server failed: {type(error).__name__}.", retry_after_s=2) from error


class QdrantVectors:
    def __init__(self, client: QdrantClient, tenant: str, space: Space) -> None:
        self._client, self._tenant, self._space = client, tenant, space

    def _own(self, *conditions: Any) -> models.Filter:
        tenant = models.FieldCondition(key="tenant", match=models.MatchValue(value=self._tenant))
        return models.Filter(must=[tenant, *conditions])

    def upsert(self, points: Sequence[Point]) -> None:
        base.check_points(points, self._space)
        if not points:
            return
        batch = [self._encode(point) for point in points]
        _reach(lambda: self._client.upsert(self._space.id, batch, wait=True, update_filter=self._own()))

    def _encode(self, point: Point) -> models.PointStruct:
        vectors: dict[str, Any] = {DENSE: point.dense.tolist()}
        if point.sparse is not None:
            vectors[SPARSE] = _sparse(point.sparse)
        return models.PointStruct(id=point.id, vector=vectors, payload=base.payload_of(self._tenant, point))

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        for search in searches:
            base.check_search(search, self._space)
        requests = [self._leg(search) for search in searches]
        answers = _reach(lambda: self._client.query_batch_points(self._space.id, requests))
        return [base.in_order([self._hit(point) for point in answer.points]) for answer in answers]

    def _hit(self, point: models.ScoredPoint) -> Hit:
        return base.own_hit(self._tenant, str(point.id), point.score, point.payload)

    def _leg(self, search: Search) -> models.QueryRequest:
        sparse = isinstance(search.query, base.SparseVector)
        return models.QueryRequest(
            query=_sparse(search.query) if isinstance(search.query, base.SparseVector) else search.query.tolist(),
            using=SPARSE if sparse else DENSE,
            limit=search.limit,
            filter=self._own(*(_compile(part) for part in base.conditions_of(search))),
            with_payload=base.HIT_FIELDS,
        )

    def delete_points(self, ids: Sequence[str]) -> None:
        if ids:
            self._delete(self._own(models.HasIdCondition(has_id=list(ids))))

    def delete_document(self, document: str) -> None:
        self._delete(self._own(_compile(AnyOf("document", (document,)))))

    def _delete(self, which: models.Filter) -> None:
        selector = models.FilterSelector(filter=which)
        _reach(lambda: self._client.delete(self._space.id, selector, wait=True))

    def ids(self, document: str | None = None) -> list[str]:
        which = self._own() if document is None else self._own(_compile(AnyOf("document", (document,))))
        return _reach(lambda: sorted(self._scroll(which)))  # type: ignore[no-any-return]

    def _scroll(self, which: models.Filter) -> list[str]:
        found: list[str] = []
        offset: Any = None
        while True:
            page, offset = self._client.scroll(self._space.id, which, limit=PAGE, offset=offset, with_payload=False)
            found += [str(record.id) for record in page]
            if offset is None:
                return found

    def page(self, after: str | None, limit: int) -> list[tuple[str, str]]:
        base.check_page(limit)
        records, _ = _reach(
            lambda: self._client.scroll(
                self._space.id, self._own(), limit=limit, offset=base.following(after), with_payload=base.HIT_FIELDS
            )
        )
        return [base.own_point(self._tenant, str(record.id), record.payload) for record in records]

    def existing(self, ids: Sequence[str]) -> set[str]:
        base.check_ids(ids)
        if not ids:
            return set()
        which = self._own(models.HasIdCondition(has_id=list(ids)))
        records, _ = _reach(lambda: self._client.scroll(self._space.id, which, limit=len(ids), with_payload=False))
        return {str(record.id) for record in records}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        base.check_ids(ids)
        if not ids:
            return {}
        which = self._own(models.HasIdCondition(has_id=list(ids)))
        records, _ = _reach(
            lambda: self._client.scroll(
                self._space.id, which, limit=len(ids), with_payload=base.HIT_FIELDS, with_vectors=[DENSE]
            )
        )
        return {
            base.own_point(self._tenant, str(record.id), record.payload)[0]: np.asarray(record.vector[DENSE], np.float32)
            for record in records
        }

    def count(self) -> int:
        return int(_reach(lambda: self._client.count(self._space.id, self._own(), exact=True)).count)


def _sparse(vector: base.SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def _compile(condition: Condition) -> Any:
    match condition:
        case AnyOf(field, values):
            return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        case OnlyOf(field, values):
            others = models.MatchExcept(**{"except": list(values)})
            return models.Filter(must_not=[models.FieldCondition(key=field, match=others)])
        case Between(slot, gt, gte, lt, lte):
            return models.FieldCondition(key=f"number_{slot}", range=models.Range(gt=gt, gte=gte, lt=lt, lte=lte))
        case AllOf(of):
            return models.Filter(must=[_compile(part) for part in of])
        case SomeOf(()):
            return models.FieldCondition(key="labels", match=models.MatchAny(any=[]))  # an empty `should` matches all
        case SomeOf(of):
            return models.Filter(should=[_compile(part) for part in of])
        case NoneOf(of):
            return models.Filter(must_not=[_compile(part) for part in of])
