"""A Qdrant server or cluster through qdrant-client: the store when one machine is not enough. The only file that imports it.

One collection a space, one payload partition a tenant (`is_tenant`). With shard keys, which need a server in distributed mode,
a tenant's collection may have a shard of its own: every call names its key with the shared one as the fallback, so the server
knows where points lie, and moves them; it offers no way back. Ordinary calls of the client do not retry, and `upload_*` does
not wait: only `upsert(wait=True)` is used. No package ships the server, so everyday tests run its call shapes on
the client's `:memory:` double; the contract suite runs against a real one where CARREL_TEST_QDRANT_URL is set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from config.errors import EngineUnavailable
from rag.store import base
from rag.store.base import DENSE, SPARSE, Dedicated, Hit, Placement, Point, Search, Space, StoreHealth, Vector
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
SHARED = "shared"  # the shard key of all collections that have none of their own
#: Fields of points that the server narrows searches by.
_INDEXES: dict[str, models.KeywordIndexParams | models.PayloadSchemaType] = {
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    **dict.fromkeys(KEYWORD_FIELDS, models.PayloadSchemaType.KEYWORD),
    **{f"number_{slot}": models.PayloadSchemaType.FLOAT for slot in range(NUMBER_SLOTS)},
}


class QdrantStore:
    def __init__(self, client: QdrantClient, *, indexes: bool = True, shard_keys: bool = False) -> None:
        """`indexes`: False for the in-memory double, which ignores payload indexes and warns."""
        self._client, self._indexes, self.shard_keys = client, indexes, shard_keys
        self._known: set[str] = set()

    @classmethod
    def connect(cls, url: str, api_key: str | None, *, shard_keys: bool = False) -> QdrantStore:
        # The version check would run in a thread of its own and only warn.
        return cls(QdrantClient(url=url, api_key=api_key, timeout=30, check_compatibility=False), shard_keys=shard_keys)

    def for_tenant(self, scope: Scope, space: Space) -> QdrantVectors:
        if space.id not in self._known:
            _reach(lambda: self._create(space))
            self._known.add(space.id)
        return QdrantVectors(self._client, scope.tenant_id, space, shard_keys=self.shard_keys)

    def _create(self, space: Space) -> None:
        """Whatever of it is not there: somebody may have died between two of these calls."""
        if not self._client.collection_exists(space.id):
            self._client.create_collection(
                space.id,
                vectors_config={DENSE: models.VectorParams(size=space.dimensions, distance=models.Distance.DOT)},
                sparse_vectors_config={SPARSE: models.SparseVectorParams()},
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
                sharding_method=models.ShardingMethod.CUSTOM if self.shard_keys else None,
            )
        if self.shard_keys and SHARED not in _keys(self._client, space):
            self._client.create_shard_key(space.id, SHARED)
        if not self._indexes:
            return
        there = self._client.get_collection(space.id).payload_schema
        for name, kind in _INDEXES.items():
            if name not in there:
                self._client.create_payload_index(space.id, name, kind)

    def tenants(self, space: Space, after: str | None, limit: int) -> list[str]:
        base.check_page(limit)
        if not _reach(lambda: self._client.collection_exists(space.id)):
            return []
        answer = _reach(lambda: self._client.facet(space.id, "tenant", limit=base.MAX_TENANTS, exact=True))
        return base.page_of((str(hit.value) for hit in answer.hits if hit.count), after, limit)

    def dedicated(self, space: Space) -> list[Dedicated]:
        if not self.shard_keys or not _reach(lambda: self._client.collection_exists(space.id)):
            return []
        found = []
        for key in _reach(lambda: _keys(self._client, space)) - {SHARED}:
            counted = _reach(partial(self._client.count, space.id, shard_key_selector=key))
            tenant, _, collection = key.partition("/")
            found.append(Dedicated(tenant, collection, counted.count))
        return found

    def crowded(self, space: Space, at_least: int) -> list[str]:
        """None without shard keys: nothing can be placed by itself then."""
        if not self.shard_keys or not _reach(lambda: self._client.collection_exists(space.id)):
            return []
        limit = base.MAX_CROWDED
        answer = _reach(lambda: self._client.facet(space.id, "collection", limit=limit, exact=False, shard_key_selector=SHARED))
        return [str(hit.value) for hit in answer.hits if hit.count >= at_least]

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


def _keys(client: QdrantClient, space: Space) -> set[str]:
    return {str(one.key) for one in client.list_shard_keys(space.id).shard_keys or []}


class QdrantVectors:
    def __init__(self, client: QdrantClient, tenant: str, space: Space, *, shard_keys: bool) -> None:
        self._client, self._tenant, self._space, self._shard_keys = client, tenant, space, shard_keys

    def _key(self, collection: str) -> str:
        return f"{self._tenant}/{collection}"

    def _shard(self, collection: str) -> models.ShardKeyWithFallback | None:
        """The server takes the fallback while there is no such key, or its shard is still being filled."""
        return models.ShardKeyWithFallback(target=self._key(collection), fallback=SHARED) if self._shard_keys else None

    def _own(self, *conditions: Any) -> models.Filter:
        tenant = models.FieldCondition(key="tenant", match=models.MatchValue(value=self._tenant))
        return models.Filter(must=[tenant, *conditions])

    def upsert(self, points: Sequence[Point]) -> None:
        base.check_points(points, self._space)
        if not points:
            return
        parts: dict[str, list[models.PointStruct]] = defaultdict(list)
        for point in points:
            parts[point.collection if self._shard_keys else ""].append(self._encode(point))
        own = self._own()
        for collection, batch in parts.items():
            shard = self._shard(collection)
            _reach(partial(self._client.upsert, self._space.id, batch, wait=True, update_filter=own, shard_key_selector=shard))

    def _encode(self, point: Point) -> models.PointStruct:
        vectors: dict[str, Any] = {DENSE: point.dense.tolist()}
        if point.sparse is not None:
            vectors[SPARSE] = _sparse(point.sparse)
        return models.PointStruct(id=point.id, vector=vectors, payload=base.payload_of(self._tenant, point))

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        for search in searches:
            base.check_search(search, self._space)
        parts = [(number, part) for number, search in enumerate(searches) for part in self._parts(search)]
        requests = [self._leg(part) for _, part in parts]
        answers = _reach(lambda: self._client.query_batch_points(self._space.id, requests))
        found: list[list[Hit]] = [[] for _ in searches]
        for (number, _), answer in zip(parts, answers, strict=True):
            found[number] += [self._hit(point) for point in answer.points]
        return [base.in_order(hits)[: search.limit] for hits, search in zip(found, searches, strict=True)]

    def _parts(self, search: Search) -> list[Search]:
        """With shard keys, one a collection: each has its own key to try first."""
        if not self._shard_keys or len(search.collections) < 2:
            return [search]
        return [replace(search, collections=(collection,)) for collection in search.collections]

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
            shard_key=self._shard(search.collections[0]) if search.collections else None,
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

    def place(self, collection: str, placement: Placement) -> bool:
        base.check_placement(collection, placement)
        if not self._shard_keys:
            if placement == "dedicated":
                raise base.InvalidPoint("this Qdrant server is used without shard keys")
            return True
        return bool(_reach(lambda: self._place(collection, placement)))

    def _place(self, collection: str, placement: Placement) -> bool:
        there = self._key(collection) in _keys(self._client, self._space)
        if placement == "shared":
            if there:
                raise base.InvalidPoint("a Qdrant server cannot put a collection back while it is written to")
            return True
        if not there:
            key = models.CreateShardingKey(shard_key=self._key(collection), initial_state=models.ReplicaState.PARTIAL)
            self._change(models.CreateShardingKeyOperation(create_sharding_key=key))
        info = self._client.collection_cluster_info(self._space.id)
        shards = [*(info.local_shards or []), *(info.remote_shards or [])]
        by_key = [(getattr(shard, "shard_key", None), getattr(shard, "state", None)) for shard in shards]
        states = {state for key, state in by_key if key == self._key(collection)}
        if info.shard_transfers or states != {models.ReplicaState.ACTIVE}:
            if not info.shard_transfers:
                self._replicate(collection)
            return False
        own = models.FilterSelector(filter=self._own(_compile(AnyOf("collection", (collection,)))))
        self._client.delete(self._space.id, own, wait=True, shard_key_selector=SHARED)
        return True

    def _replicate(self, collection: str) -> None:
        """The server copies the points and carries each write to both shards, until the new one is active."""
        move = models.ReplicatePoints(
            filter=self._own(_compile(AnyOf("collection", (collection,)))),
            from_shard_key=SHARED,
            to_shard_key=self._key(collection),
        )
        self._change(models.ReplicatePointsOperation(replicate_points=move))

    def _change(self, operation: models.CreateShardingKeyOperation | models.ReplicatePointsOperation) -> None:
        self._client.cluster_collection_update(self._space.id, operation)


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
