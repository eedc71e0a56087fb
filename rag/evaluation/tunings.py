"""What collections are tuned to: each version kept with its figures, one active, and the way back to the one before.

Which one is active is read with the collection itself, so that a question costs no statement more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Conflict, Forbidden
from rag.collections import Collections
from rag.corpus import Collection
from rag.evaluation.tables import TuningVersion
from rag.types import Reader

MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Tunings:
    """Of a collection, newest first. `active` 0: it is not tuned."""

    active: int
    versions: tuple[TuningVersion, ...]


class TuningStore:
    def __init__(self, database: Database, clock: Clock, collections: Collections) -> None:
        self.database, self.clock, self.collections = database, clock, collections

    def for_tenant(self, scope: Reader) -> TenantTunings:
        """Raise Forbidden for a reader that is bound to labels: a tuning is fitted to documents of every label."""
        if scope.labels is not None:
            raise Forbidden("Tunings are fitted to documents of every label; use a key that is not confined to labels.")
        return TenantTunings(self, scope)


class TenantTunings:
    def __init__(self, parts: TuningStore, scope: Reader) -> None:
        self._parts, self._scope = parts, scope

    def get(self, name: str) -> Tunings:
        with self._parts.database.read(self._scope) as session:
            return _all(session, self._find(session, name))

    def apply(self, name: str, parameters: Mapping[str, Any], figures: Mapping[str, Any], *, replaces: int) -> Tunings:
        """Raise Conflict if the active version is not the one that these were compared with: then nothing changes."""
        with self._parts.database.write(self._scope) as session:
            collection = self._locked(session, name, replaces)
            newest = select(sa.func.max(col(TuningVersion.version))).where(_of(collection))
            version = int(session.scalar(newest) or 0) + 1
            session.add(
                TuningVersion(
                    tenant_id=self._scope.tenant_id,
                    collection_id=collection.id,
                    version=version,
                    replaces=replaces,
                    parameters=dict(parameters),
                    figures=dict(figures),
                    applied_at=self._parts.clock(),
                )
            )
            _activate(session, collection, {"version": version, "parameters": dict(parameters)})
            return _all(session, collection)

    def roll_back(self, name: str, version: int) -> Tunings:
        """To what was active before this one. Raise Conflict if it is not the active one, as when it is asked again."""
        with self._parts.database.write(self._scope) as session:
            collection = self._locked(session, name, version)
            row = session.scalars(select(TuningVersion).where(_of(collection), col(TuningVersion.version) == version)).first()
            if row is None:
                raise Conflict("The collection is not tuned.", field="version")
            row.rolled_back_at = self._parts.clock()
            session.add(row)
            before = select(TuningVersion).where(_of(collection), col(TuningVersion.version) == row.replaces)
            former = session.scalars(before).first()
            active = None if former is None else {"version": former.version, "parameters": former.parameters}
            _activate(session, collection, active)
            return _all(session, collection)

    def _find(self, session: Session, name: str) -> Collection:
        return self._parts.collections.for_tenant(self._scope).find(session, name)

    def _locked(self, session: Session, name: str, expected: int) -> Collection:
        collection = self._parts.collections.for_tenant(self._scope).hold(session, name)
        if _active(collection) != expected:
            raise Conflict(f"The active version is {_active(collection)}, not {expected}.", field="version")
        return collection


def _active(collection: Collection) -> int:
    return int(collection.tuning["version"]) if collection.tuning else 0


def _activate(session: Session, collection: Collection, tuning: dict[str, Any] | None) -> None:
    """With a new generation: what was answered before is stale."""
    collection.tuning = tuning
    collection.generation += 1
    session.add(collection)
    session.flush()


def _all(session: Session, collection: Collection) -> Tunings:
    newest = select(TuningVersion).where(_of(collection)).order_by(col(TuningVersion.version).desc()).limit(MAX_SHOWN)
    return Tunings(_active(collection), tuple(session.scalars(newest)))


def _of(collection: Collection) -> sa.ColumnElement[bool]:
    return col(TuningVersion.collection_id) == collection.id
