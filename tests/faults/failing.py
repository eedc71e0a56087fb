"""Ports that fail one call: statements and commits of SQL, the vector store, stored contents, the parser and the model."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from config.errors import EngineUnavailable, Unavailable
from ingestion.sandbox import ParserDied
from rag.embedding.runtime import Embedding
from rag.store.base import Space, TenantVectors, VectorStore
from rag.types import Scope
from tests.world import World

WRITES = frozenset({"upsert", "delete_points", "delete_document", "put", "delete", "delete_owned", "embed", "do_commit"})

LOST = "the connection was lost"


class Died(BaseException):
    """A kill -9, as far as one process can play it."""


@dataclass
class Turns:
    """Numbers the calls. The one whose turn it is fails: before its effect, or `late`, when only its answer is lost."""

    turn: int = 0  #: 0: none
    late: bool = False
    deadly: bool = False  #: the process dies instead
    calls: int = 0
    failed: str = ""  #: the port and call that did
    dead: bool = False  #: until somebody begins anew, no call is made: a killed process cleans nothing up

    def around(self, port: str, call: Callable[..., Any], error: Callable[[], Exception]) -> Callable[..., Any]:
        name = call.__name__

        @wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise Died
            if self.late and name not in WRITES:  # an answer that is lost after a mere look is the same as no look
                return call(*args, **kwargs)
            self.calls += 1
            if self.calls != self.turn:
                return call(*args, **kwargs)
            self.failed = f"{port}.{name}"
            if self.late:
                call(*args, **kwargs)
            self.dead = self.deadly
            raise Died if self.deadly else error()

        return counted


class FailingVectors:
    def __init__(self, vectors: TenantVectors, turns: Turns) -> None:
        for name in ("upsert", "search", "delete_points", "delete_document", "ids", "page", "existing", "count"):
            call = turns.around("engine", getattr(vectors, name), lambda: EngineUnavailable("It is away."))
            setattr(self, name, call)


class FailingStore:
    def __init__(self, store: VectorStore, turns: Turns) -> None:
        self._store, self._turns = store, turns

    def for_tenant(self, scope: Scope, space: Space) -> Any:
        return FailingVectors(self._store.for_tenant(scope, space), self._turns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def let_fail(world: World, turns: Turns) -> None:
    """From now on. Everything but the store, which a world is made with."""
    dialect: Any = world.database.engine.dialect
    dialect.is_disconnect = lambda error, *_: LOST in str(error)  # as PostgreSQL's driver tells it; SQLite cannot be lost
    for name in ("do_execute", "do_executemany", "do_commit"):
        broken = lambda: sqlite3.OperationalError(LOST if turns.late else "database is locked")  # noqa: E731
        setattr(dialect, name, turns.around("sql", getattr(dialect, name), broken))
    for name in ("put", "get", "delete", "delete_owned", "path"):
        full = lambda: Unavailable("The disk is full.")  # noqa: E731
        setattr(world.blobs, name, turns.around("blobs", getattr(world.blobs, name), full))
    embedder: Any = world.embedder
    embedder.embed = turns.around("model", embedder.embed, lambda: Unavailable("The provider is away."))
    reader: Any = world.reader
    reader.read = turns.around("parser", reader.read, lambda: ParserDied("It was killed."))


class CountingEmbedder:
    """Knows how many tokens it was made to embed."""

    def __init__(self, embedder: Any) -> None:
        self._embedder, self.tokens = embedder, 0

    def embed(self, texts: Sequence[str], tokens: Sequence[int], **asked: Any) -> Embedding:
        self.tokens += sum(tokens)
        answer: Embedding = self._embedder.embed(texts, tokens, **asked)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)
