"""The vector store protocol and its values. A store is reached through a handle that is bound to one tenant and space."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rag.store.conditions import NUMBER_SLOTS, AnyOf, Condition
from rag.types import Scope

Vector = npt.NDArray[np.float32]

DENSE, SPARSE = "dense", "sparse"
MAX_LIMIT = 10_000
MAX_BATCH = 2_000
MAX_TENANTS = 1_000_000  # of one space that a store counts by
MAX_CROWDED = 100  # collections that a store names at once

#: Where a collection's points lie: beside those of other tenants, or by themselves.
Placement = Literal["shared", "dedicated"]


@dataclass(frozen=True, slots=True)
class Space:
    id: str  #: fingerprint of everything that decides what a vector means
    dimensions: int


@dataclass(frozen=True, slots=True)
class VectorScope:
    """A tenant's vectors and nothing else of it, whose rows may be gone. Satisfies `rag.types.Scope`."""

    tenant_id: str
    cache_salt: bytes = b""


@dataclass(frozen=True, slots=True)
class SparseVector:
    indices: tuple[int, ...]  #: unsigned 32-bit, each at most once
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    id: str  #: a UUID, made from its collection among others: a point never changes that
    collection: str
    document: str
    dense: Vector  #: shape (space.dimensions,), finite
    sparse: SparseVector | None = None
    labels: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    numbers: tuple[tuple[int, float], ...] = ()  #: (slot, value)


@dataclass(frozen=True, slots=True)
class Search:
    """One leg: the `limit` nearest points by dot product among those that meet every condition."""

    query: Vector | SparseVector
    limit: int
    collections: tuple[str, ...]
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    id: str
    score: float
    document: str


@dataclass(frozen=True, slots=True)
class StoreHealth:
    ok: bool
    detail: str
    spaces: dict[str, int] = field(default_factory=dict)  #: points a space
    run: str = ""  #: another one after every start of the engine; empty where that cannot be told


@dataclass(frozen=True, slots=True)
class Dedicated:
    """A collection whose points lie by themselves."""

    tenant: str
    collection: str
    points: int
    indexed: int | None = None  #: of them, how many a graph leads to; None: the store does not say


class TenantVectors(Protocol):
    """One tenant's points in one space. No method takes a tenant: the handle is the tenant."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write all points, durable on return. Equal ids are replaced. Raises InvalidPoint, EngineUnavailable."""

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Run every leg in one call; hits by falling score, ties by id."""

    def delete_points(self, ids: Sequence[str]) -> None:
        """Delete those of the ids that are this tenant's; unknown and foreign ids are passed over."""

    def delete_document(self, document: str) -> None: ...

    def ids(self, document: str | None = None) -> list[str]:
        """All point ids (of one document), sorted: for tests and proofs, since nothing bounds them."""

    def page(self, after: str | None, limit: int) -> list[tuple[str, str]]:
        """Point id and document of up to `limit` points whose ids come after `after`, by id. Empty: there are no more."""

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids, at most MAX_BATCH, that are points of this tenant."""

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The dense vectors of those of the ids, at most MAX_BATCH, that are points of this tenant."""

    def count(self) -> int: ...

    def place(self, collection: str, placement: Placement) -> bool:
        """Let a collection's points lie there; nothing else that this handle answers changes by it, at any moment.

        False: it is under way. Ask again: a store that dies meanwhile forgets what it was asked, and nothing else.
        """


class VectorStore(Protocol):
    def for_tenant(self, scope: Scope, space: Space) -> TenantVectors: ...

    def tenants(self, space: Space, after: str | None, limit: int) -> list[str]:
        """Ids of up to `limit` tenants that have points in the space, by id: to find those that SQL no longer knows."""

    def dedicated(self, space: Space) -> list[Dedicated]:
        """Every collection of the space that is placed by itself."""

    def crowded(self, space: Space, at_least: int) -> list[str]:
        """Collections, at most MAX_CROWDED, that are placed together with others and have about so many points or more."""

    def health(self) -> StoreHealth: ...

    def close(self) -> None: ...


class InvalidPoint(ValueError):
    """A point that no store may keep: wrong width, NaN, infinity, or repeated sparse indices."""


def check_points(points: Sequence[Point], space: Space) -> None:
    """Engines keep the good half of a bad batch and accept NaN, so every store checks the whole batch first."""
    if len(points) > MAX_BATCH:
        raise InvalidPoint(f"{len(points)} points in one batch, at most {MAX_BATCH}")
    for point in points:
        if point.dense.shape != (space.dimensions,):
            raise InvalidPoint(f"point {point.id} has shape {point.dense.shape}, the space has ({space.dimensions},)")
        if not np.isfinite(point.dense).all():
            raise InvalidPoint(f"point {point.id} has a dense value that is not finite")
        if point.sparse is not None:
            check_sparse(point.sparse)
        if any(not 0 <= slot < NUMBER_SLOTS or not math.isfinite(value) for slot, value in point.numbers):
            raise InvalidPoint(f"point {point.id} has a numeric slot outside 0..{NUMBER_SLOTS - 1} or a value not finite")


def check_sparse(vector: SparseVector) -> None:
    if len(vector.indices) != len(vector.values) or len(set(vector.indices)) != len(vector.indices):
        raise InvalidPoint("a sparse vector has repeated indices, or another number of values than of indices")
    if not all(map(math.isfinite, vector.values)) or not all(0 <= index < 2**32 for index in vector.indices):
        raise InvalidPoint("a sparse vector has a value that is not finite or an index outside 32 bits")


def check_placement(collection: str, placement: str) -> None:
    if not collection or placement not in ("shared", "dedicated"):
        raise InvalidPoint("a collection is placed `shared` or `dedicated`, and has a name")


def check_page(limit: int) -> None:
    if not 1 <= limit <= MAX_BATCH:
        raise InvalidPoint(f"a page of {limit}, at most {MAX_BATCH}")


def check_ids(ids: Sequence[str]) -> None:
    if len(ids) > MAX_BATCH:
        raise InvalidPoint(f"{len(ids)} ids in one call, at most {MAX_BATCH}")


def following(after: str | None) -> str | None:
    """The least id that may come after this one: engines scroll from an id on, that one included.

    No UUID of a point is the greatest number of 128 bits: its version is among them.
    """
    return None if after is None else str(uuid.UUID(int=uuid.UUID(after).int + 1))


def page_of(names: Iterable[str], after: str | None, limit: int) -> list[str]:
    return sorted(name for name in names if after is None or name > after)[:limit]


def check_search(search: Search, space: Space) -> None:
    if not 1 <= search.limit <= MAX_LIMIT:
        raise InvalidPoint(f"limit {search.limit} is outside 1..{MAX_LIMIT}")
    if isinstance(search.query, SparseVector):
        check_sparse(search.query)
    elif search.query.shape != (space.dimensions,) or not np.isfinite(search.query).all():
        raise InvalidPoint(f"the query must be ({space.dimensions},) finite numbers")


def conditions_of(search: Search) -> tuple[Condition, ...]:
    """Collections and the caller's condition, to stand beside the tenant's own."""
    scope = AnyOf("collection", search.collections)
    return (scope,) if search.condition is None else (scope, search.condition)


#: What a hit needs of its point: whose it is, and where it belongs.
HIT_FIELDS = ["tenant", "document"]


def payload_of(tenant: str, point: Point) -> dict[str, object]:
    """The filter fields of a point as engines store them."""
    return {
        "tenant": tenant,
        "collection": point.collection,
        "document": point.document,
        "labels": list(point.labels),
        "terms": list(point.terms),
        **{f"number_{slot}": value for slot, value in point.numbers},
    }


def own_hit(tenant: str, point_id: str, score: float, payload: Mapping[str, Any] | None) -> Hit:
    """A hit of the tenant. One of another is a defect that must stop the answer, not be passed over."""
    if payload is None or payload.get("tenant") != tenant:  # written out: there are a hundred to a question
        raise RuntimeError("the engine returned a point of another tenant")
    return Hit(point_id, score, payload["document"])


def own_point(tenant: str, point_id: str, payload: Mapping[str, Any] | None) -> tuple[str, str]:
    fields = payload or {}
    if fields.get("tenant") != tenant:
        raise RuntimeError("the engine returned a point of another tenant")
    return point_id, str(fields["document"])


def in_order(hits: list[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))
