"""Qdrant Edge: one shard, in this process. Only this file and `edge_vectors` import it (beta, pinned below 0.10).

Edge never releases the GIL, so the engine process alone runs this. Facts that shaped it: `update` is safe against process
death but not synced to disk (its log files are, see `files`); a batch is checked before because Edge keeps the good
half of a bad one; `optimize` would stop the engine for seconds to minutes, so it runs on a copy in a child (`build`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import qdrant_edge as edge

from rag.store.base import DENSE, SPARSE, Point, Space
from rag.store.conditions import KEYWORD_FIELDS, NUMBER_SLOTS
from rag.store.files import CONFIG_FILE, bytes_of

SLOTS_FILE = "slots.json"
OVERSAMPLING = 2.0  # quantised candidates for each hit, scored again by their full vectors

Quantization = Literal["off", "int8"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a shard is built: with a graph or without, and what its vectors are compared by first."""

    graph: bool
    quantization: Quantization = "off"


class Mirror(Protocol):
    """Must hear of each write to a shard whose points are being moved."""

    def upserted(self, tenant: str, points: Sequence[Point]) -> None: ...

    def deleted(self, tenant: str, ids: Collection[str]) -> None: ...


def _config(space: Space, layout: Layout) -> edge.EdgeConfig:
    int8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99)
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=space.dimensions, distance=edge.Distance.Dot)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams()},
        hnsw_config=edge.HnswIndexConfig(
            m=16 if layout.graph else 0, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=1, payload_m=16
        ),
        quantization_config=int8 if layout.quantization == "int8" else None,
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=0.01, vacuum_min_vector_number=100, default_segment_number=1, indexing_threshold=100
        ),
        max_search_threads=1,  # Edge would start eight a shard; kept in the shard's own config file
    )


def create(path: Path, space: Space) -> None:
    """An empty shard with its fixed indexes: an un-indexed filter costs 110 ms at 100k points, not 0.2. 0.04 to 3 s."""
    path.mkdir()
    shard = edge.EdgeShard.create(str(path), _config(space, Layout(graph=False)))
    _index_fields(shard)
    shard.close()


def optimize(path: Path, space: Space, layout: Layout) -> None:
    """Rewrite a shard without its deleted points, and build its graph. Takes seconds to minutes: never in the engine."""
    shard = edge.EdgeShard.load(str(path), _config(space, layout))
    shard.optimize()
    slots = shard.count(edge.CountRequest(exact=True))
    shard.flush()
    shard.close()
    (path / SLOTS_FILE).write_text(str(slots), encoding="utf-8")


def _saved_slots(path: Path) -> int:
    """An estimate: where its writer died, or the disk was full, the points that there are will do."""
    try:
        return int((path / SLOTS_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return 0


def _index_fields(shard: edge.EdgeShard) -> None:
    wanted: dict[str, Any] = {"tenant": edge.KeywordIndexParams(is_tenant=True)}
    wanted |= dict.fromkeys(KEYWORD_FIELDS, edge.PayloadSchemaType.Keyword)
    wanted |= {f"number_{slot}": edge.PayloadSchemaType.Float for slot in range(NUMBER_SLOTS)}
    for name in wanted.keys() - shard.info().payload_schema.keys():
        shard.update(edge.UpdateOperation.create_field_index(name, wanted[name]))


class Shard:
    """An open shard. `slots`: vectors it keeps room for, deleted ones included; about, since it is written when idle."""

    def __init__(self, path: Path, space_id: str, unsynced: set[Shard]) -> None:
        self.path, self._unsynced = path, unsynced
        self._shard = edge.EdgeShard.load(str(path))
        config = json.loads((path / CONFIG_FILE).read_bytes())
        self.space = Space(space_id, int(config["vectors"][DENSE]["size"]))
        quantized = config.get("quantization_config") is not None
        again = edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        self.params = edge.SearchParams(quantization=again) if quantized else None
        self.layout = Layout(config["hnsw_config"]["m"] > 0, "int8" if quantized else "off")
        _index_fields(self._shard)
        self.mirror: Mirror | None = None
        self.closed = False
        self.writes = 0  #: since it was opened
        self._flushed = 0
        self.slots = max(_saved_slots(path), self.count())

    def update(self, operation: Any) -> None:
        self._shard.update(operation)
        self.writes += 1
        self._unsynced.add(self)

    def put(self, points: list[edge.Point], own: edge.Filter | None = None) -> None:
        """`own`: a point that does not meet it is not replaced."""
        self.update(edge.UpdateOperation.upsert_points(points, condition=own))
        self.slots += len(points)

    def query(self, legs: list[edge.QueryRequest]) -> list[list[edge.ScoredPoint]]:
        found: list[list[edge.ScoredPoint]] = self._shard.query_batch(edge.QueryBatchRequest(legs))
        return found

    def scroll(self, **request: Any) -> tuple[list[edge.Record], Any]:
        found: tuple[list[edge.Record], Any] = self._shard.scroll(edge.ScrollRequest(**request))
        return found

    def count(self, which: edge.Filter | None = None) -> int:
        return int(self._shard.count(edge.CountRequest(exact=True, filter=which)))

    def facet(self, field: str, limit: int, *, exact: bool) -> dict[str, int]:
        """Values and how many points have them, the most frequent ones."""
        hits = self._shard.facet(edge.FacetRequest(field, limit=limit, exact=exact)).hits
        return {str(hit.value): hit.count for hit in hits if hit.count}  # of a value that was deleted: 0

    def indexed(self) -> int:
        """Points that the graph leads to. Edge counts sparse vectors too, which always are. 10 ms at 100,000."""
        sparse = self.count(edge.Filter(must=[edge.HasVectorCondition(SPARSE)]))
        return max(0, int(self._shard.info().indexed_vectors_count) - sparse)

    def fetch(self, ids: Sequence[str]) -> list[edge.Point]:
        return self.whole(limit=len(ids), filter=edge.Filter(must=[edge.HasIdCondition(set(ids))]))

    def whole(self, **request: Any) -> list[edge.Point]:
        """Points with all that they have."""
        records, _ = self.scroll(**request, with_payload=True, with_vector=True)
        return [edge.Point(record.id, record.vector or {}, record.payload) for record in records]

    def remove(self, ids: Sequence[str]) -> None:
        self.update(edge.UpdateOperation.delete_points(list(map(uuid.UUID, ids))))

    def bytes(self) -> int:
        return bytes_of(self.path)

    def flush(self) -> None:
        """Write segments to disk, which shortens the next start. Blocks the process for up to a quarter second."""
        if self._flushed == self.writes:
            return
        self._shard.flush()
        self._flushed = self.writes
        (self.path / SLOTS_FILE).write_text(str(self.slots), encoding="utf-8")

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._shard.close()
            self.closed = True
            self._unsynced.discard(self)


def id_of(point: edge.Point) -> str:
    return str(point.id)
