"""Vector stores with a tenant column: Carrel's engine through the handle that its api process uses, and others, each used
as its documentation says and imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.report import Peer
from config.settings import Settings
from rag.embedding.runtime import Matrix
from rag.store.base import Search, Space, VectorScope
from rag.store.remote import EngineClient

CHROMA_BATCH = 5_000  # it refuses more than 5,461 at once


class Asking(Protocol):
    def ask(self, tenant: str, vector: Matrix, count: int) -> list[str]:
        """Ids of the tenant's nearest rows."""


class VectorPeer(Asking, Protocol):
    name: str

    def load(self, tenants: Sequence[str], ids: Sequence[str], vectors: Matrix) -> None:
        """Rows, each of one tenant."""


@dataclass(frozen=True)
class Shelf:
    """Where a tenant's vectors are in the service."""

    tenant: str
    collection: str


class Handle:
    """A running service's vectors at its engine's socket. Ids name no tenant: the engine raises for a foreign point."""

    def __init__(self, data_dir: Path, space: Space, shelves: Mapping[str, Shelf]) -> None:
        """`shelves`: of each tenant, by the name that it is asked by."""
        self._client = EngineClient(Settings(data_dir=data_dir).engine_socket, patience_s=0, timeout_s=30)
        self._space, self._shelves = space, shelves

    def ask(self, tenant: str, vector: Matrix, count: int) -> list[str]:
        shelf = self._shelves[tenant]
        [hits] = self._client.for_tenant(VectorScope(shelf.tenant), self._space).search(
            [Search(vector, count, (shelf.collection,))]
        )
        return [f"{tenant}/{hit.id}" for hit in hits]

    def close(self) -> None:
        self._client.close()


class Lance:
    """In this process. A bitmap index on the tenant, filtered before the search; few rows are left, so that scan is exact."""

    name = "lancedb"

    def __init__(self, folder: Path) -> None:
        self._database = importlib.import_module("lancedb").connect(str(folder / "lance"))

    def load(self, tenants: Sequence[str], ids: Sequence[str], vectors: Matrix) -> None:
        arrow = importlib.import_module("pyarrow")
        flat = arrow.array(vectors.ravel(), arrow.float32())
        columns = {
            "vector": arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            "tenant": arrow.array(tenants),
            "id": arrow.array(ids),
        }
        self._table = self._database.create_table("points", arrow.table(columns))
        self._table.create_scalar_index("tenant", index_type="BITMAP")

    def ask(self, tenant: str, vector: Matrix, count: int) -> list[str]:
        search = self._table.search(vector).distance_type("dot").where(f"tenant = '{tenant}'", prefilter=True)
        return list(search.select(["id", "_distance"]).limit(count).to_arrow()["id"].to_pylist())


class Chroma:
    """In this process, on disk, in one collection with the tenant as metadata; it indexes metadata by itself."""

    name = "chroma"

    def __init__(self, folder: Path) -> None:
        chromadb = importlib.import_module("chromadb")
        quiet = chromadb.config.Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(str(folder / "chroma"), settings=quiet)

    def load(self, tenants: Sequence[str], ids: Sequence[str], vectors: Matrix) -> None:
        self._rows = self._client.create_collection(
            "points", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        for at in range(0, len(ids), CHROMA_BATCH):
            part = slice(at, at + CHROMA_BATCH)
            self._rows.add(
                ids=list(ids[part]),
                embeddings=vectors[part],
                metadatas=[{"tenant": tenant} for tenant in tenants[part]],
            )

    def ask(self, tenant: str, vector: Matrix, count: int) -> list[str]:
        answer = self._rows.query(query_embeddings=[vector], where={"tenant": tenant}, n_results=count, include=["distances"])
        return list(answer["ids"][0])


def open_peers(folder: Path) -> tuple[list[VectorPeer], dict[str, Peer]]:
    """Those that are installed, and for each its version or why it is skipped."""
    found: list[VectorPeer] = []
    peers: dict[str, Peer] = {}
    kinds: dict[str, tuple[str, Callable[[Path], VectorPeer]]] = {"lancedb": ("lancedb", Lance), "chroma": ("chromadb", Chroma)}
    for name, (package, make) in kinds.items():
        try:
            found.append(make(folder))
            peers[name] = {"version": version(package)}
        except ImportError as error:
            peers[name] = {"skipped": f"{error}; pip install -c constraints.txt 'carrel-server[bench]'"}
    return found, peers


def unit_vectors(count: int, dimensions: int, seed: int) -> Matrix:
    """Seeded, in no particular direction."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
