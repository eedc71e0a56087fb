"""Qdrant Edge: one shard a space, in this process. The only file that imports it (beta, pinned below 0.10).

Edge never releases the GIL, so the engine process alone runs this. Facts that shaped it: `update` is safe against process
death but not synced to disk (its log files are, see `sync`); a batch is checked before because Edge keeps the good
half of a bad one; no HNSW is built here, since an exact scan of one tenant's rows is faster in a shared shard.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

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

SPACE_NAME = re.compile(r"[a-z0-9_]{1,64}")
CONFIG_FILE = "edge_config.json"
PAGE = 5_000


class EdgeStore:
    """All spaces under one folder. Not thread-safe: the engine's event loop is its only caller."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._shards: dict[str, tuple[Space, edge.EdgeShard]] = {}
        self._unsynced: set[str] = set()
        for path in sorted(folder.iterdir()):
            if (path / CONFIG_FILE).exists():
                self._load(path)

    def _load(self, path: Path) -> None:
        shard = edge.EdgeShard.load(str(path))
        config = json.loads((path / CONFIG_FILE).read_bytes())
        self._index_fields(shard)
        self._shards[path.name] = (Space(path.name, int(config["vectors"][DENSE]["size"])), shard)

    def shard(self, space: Space) -> edge.EdgeShard:
        if space.id not in self._shards:
            self._shards[space.id] = (space, self._create(space))
        known, shard = self._shards[space.id]
        if known != space:
            raise base.InvalidPoint(f"space {space.id} has {known.dimensions} dimensions, not {space.dimensions}")
        return shard

    def _create(self, space: Space) -> edge.EdgeShard:
        if not SPACE_NAME.fullmatch(space.id):
            raise base.InvalidPoint("a space's id is 1 to 64 of a-z, 0-9 and _")
        path = self._folder / space.id
        shutil.rmtree(path, ignore_errors=True)  # without its config file it is the rest of a creation that was killed
        path.mkdir()
        no_graph = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000, payload_m=16)
        shard = edge.EdgeShard.create(
            str(path),
            edge.EdgeConfig(
                vectors={DENSE: edge.EdgeVectorParams(size=space.dimensions, distance=edge.Distance.Dot)},
                sparse_vectors={SPARSE: edge.EdgeSparseVectorParams()},
                hnsw_config=no_graph,
                max_search_threads=1,  # Edge would start eight a shard; kept in the shard's own config file
            ),
        )
        self._index_fields(shard)
        self._unsynced.add(space.id)
        sync_files([self._folder])
        return shard

    @staticmethod
    def _index_fields(shard: edge.EdgeShard) -> None:
        """Create the fixed indexes that are missing: an un-indexed filter costs 110 ms at 100k points, not 0.2."""
        wanted: dict[str, Any] = {"tenant": edge.KeywordIndexParams(is_tenant=True)}
        wanted |= dict.fromkeys(KEYWORD_FIELDS, edge.PayloadSchemaType.Keyword)
        wanted |= {f"number_{slot}": edge.PayloadSchemaType.Float for slot in range(NUMBER_SLOTS)}
        for name in wanted.keys() - shard.info().payload_schema.keys():
            shard.update(edge.UpdateOperation.create_field_index(name, wanted[name]))

    def for_tenant(self, scope: Scope, space: Space) -> EdgeVectors:
        return EdgeVectors(self, self.shard(space), scope.tenant_id, space)

    def tenants(self, space: Space, after: str | None, limit: int) -> list[str]:
        base.check_page(limit)
        if space.id not in self._shards:
            return []
        facet = edge.FacetRequest("tenant", limit=base.MAX_TENANTS, exact=True)  # has no way to go on: 1 ms at 9,000 points
        hits = self.shard(space).facet(facet).hits
        return base.page_of((str(hit.value) for hit in hits if hit.count), after, limit)  # of a value that was deleted: 0

    def wrote(self, space: Space) -> None:
        self._unsynced.add(space.id)

    def unsynced(self) -> tuple[set[str], list[Path]]:
        """Spaces written since the last call, and their files to fsync before those writes may be acknowledged."""
        spaces, self._unsynced = self._unsynced, set()
        return spaces, [path for space in sorted(spaces) for path in _log_files(self._folder / space)]

    def still_unsynced(self, spaces: set[str]) -> None:
        self._unsynced |= spaces

    def flush(self) -> None:
        """Write segments to disk, which shortens the next start. Blocks the process for up to a quarter second."""
        for _, shard in self._shards.values():
            shard.flush()

    def health(self) -> StoreHealth:
        count = edge.CountRequest(exact=True)
        return StoreHealth(True, "open", {name: shard.count(count) for name, (_, shard) in self._shards.items()})

    def close(self) -> None:
        for _, shard in self._shards.values():
            shard.flush()
            shard.close()
        self._shards.clear()


def _log_files(path: Path) -> Iterator[Path]:
    yield from sorted((path / "wal").iterdir())
    yield path / "wal"


def sync_files(paths: Sequence[Path]) -> None:
    """fsync each. 1–6 ms, and unlike Edge's flush it releases the GIL, so it can run beside queries."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # a log segment that was retired after it was listed: its points are in the segments
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class EdgeVectors:
    def __init__(self, store: EdgeStore, shard: edge.EdgeShard, tenant: str, space: Space) -> None:
        self._store, self._shard, self._tenant, self._space = store, shard, tenant, space

    def _own(self, *conditions: Any, **groups: Any) -> edge.Filter:
        tenant = edge.FieldCondition("tenant", match=edge.MatchValue(self._tenant))
        return edge.Filter(must=[tenant, *conditions], **groups)

    def upsert(self, points: Sequence[Point]) -> None:
        base.check_points(points, self._space)
        if not points:
            return
        # The condition keeps a point of another tenant from being replaced, should ids ever meet.
        batch = [self._encode(point) for point in points]
        self._shard.update(edge.UpdateOperation.upsert_points(batch, condition=self._own()))
        self._store.wrote(self._space)

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
        legs = self._shard.query_batch(edge.QueryBatchRequest([self._leg(search) for search in searches]))
        return [base.in_order([self._hit(point) for point in leg]) for leg in legs]

    def _hit(self, point: edge.ScoredPoint) -> Hit:
        return base.own_hit(self._tenant, str(point.id), point.score, point.payload)

    def _leg(self, search: Search) -> edge.QueryRequest:
        if isinstance(search.query, base.SparseVector):
            sparse = edge.SparseVector(list(search.query.indices), list(search.query.values))
            query = edge.Query.Nearest(sparse, using=SPARSE)
        else:
            query = edge.Query.Nearest(search.query.tolist(), using=DENSE)
        return edge.QueryRequest(
            limit=search.limit,
            query=query,
            filter=self._own(*(_compile(part) for part in base.conditions_of(search))),
            with_payload=base.HIT_FIELDS,
        )

    def delete_points(self, ids: Sequence[str]) -> None:
        if ids:
            self._delete(self._own(edge.HasIdCondition(set(ids))))

    def delete_document(self, document: str) -> None:
        self._delete(self._own(_compile(AnyOf("document", (document,)))))

    def _delete(self, which: edge.Filter) -> None:
        self._shard.update(edge.UpdateOperation.delete_points_by_filter(which))
        self._store.wrote(self._space)

    def ids(self, document: str | None = None) -> list[str]:
        which = self._own() if document is None else self._own(_compile(AnyOf("document", (document,))))
        found: list[str] = []
        offset: Any = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=PAGE, filter=which, with_payload=False)
            page, offset = self._shard.scroll(request)
            found += [str(record.id) for record in page]
            if offset is None:
                return sorted(found)

    def page(self, after: str | None, limit: int) -> list[tuple[str, str]]:
        base.check_page(limit)
        request = edge.ScrollRequest(
            offset=base.following(after), limit=limit, filter=self._own(), with_payload=base.HIT_FIELDS
        )
        records, _ = self._shard.scroll(request)
        return [base.own_point(self._tenant, str(record.id), record.payload) for record in records]

    def existing(self, ids: Sequence[str]) -> set[str]:
        base.check_ids(ids)
        if not ids:
            return set()
        which = self._own(edge.HasIdCondition(set(ids)))
        records, _ = self._shard.scroll(edge.ScrollRequest(limit=len(ids), filter=which, with_payload=False))
        return {str(record.id) for record in records}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        base.check_ids(ids)
        if not ids:
            return {}
        which = self._own(edge.HasIdCondition(set(ids)))
        request = edge.ScrollRequest(limit=len(ids), filter=which, with_payload=base.HIT_FIELDS, with_vector=[DENSE])
        records, _ = self._shard.scroll(request)
        return {base.own_point(self._tenant, str(each.id), each.payload)[0]: _dense(each.vector) for each in records}

    def count(self) -> int:
        return self._shard.count(edge.CountRequest(exact=True, filter=self._own()))


def _dense(vectors: Any) -> Vector:
    return np.asarray(vectors[DENSE], np.float32)


def _compile(condition: Condition) -> Any:
    match condition:
        case AnyOf(field, values):
            return edge.FieldCondition(field, match=edge.MatchAny(list(values)))
        case OnlyOf(field, values):
            return edge.Filter(must_not=[edge.FieldCondition(field, match=edge.MatchExcept(list(values)))])
        case Between(slot, gt, gte, lt, lte):
            return edge.FieldCondition(f"number_{slot}", range=edge.RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte))
        case AllOf(of):
            return edge.Filter(must=[_compile(part) for part in of])
        case SomeOf(()):
            return edge.FieldCondition("labels", match=edge.MatchAny([]))  # an empty `should` would match everything
        case SomeOf(of):
            return edge.Filter(should=[_compile(part) for part in of])
        case NoneOf(of):
            return edge.Filter(must_not=[_compile(part) for part in of])
