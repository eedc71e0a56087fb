"""Where collections are to lie, in SQL, and where they do, in the store: the two are compared, and the store is told.

An operator's choice stays. A collection that nobody chose for gets a shard of its own when it has grown past a number of
points, and is put back when it has shrunk below half of that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlmodel import col, select

from config.database import Database
from rag.collections import Collections
from rag.corpus import Collection
from rag.store.base import InvalidPoint, Placement, Space, VectorScope, VectorStore
from rag.types import Scope
from tenants.context import TenantContext
from tenants.limits.quotas import UNLIMITED, Quotas

log = logging.getLogger(__name__)

Choice = Literal["shared", "dedicated", "auto"]
PAGE = 500
DEMOTE_SHARE = 0.5  # of the points at which it is promoted, so that one at the limit does not go to and fro


@dataclass(frozen=True, slots=True)
class Placed:
    """`placement` is what is wished for; `settled`: whether its points lie so already."""

    collection: Collection
    settled: bool
    points: int
    indexed: int | None  #: of them, how many a graph leads to; None: the store does not say


class Placements:
    def __init__(
        self,
        database: Database,
        collections: Collections,
        store: VectorStore,
        space: Space,
        quotas: Quotas = UNLIMITED,
    ) -> None:
        self._database, self._collections, self._store, self._space = database, collections, store, space
        self._quotas = quotas

    def choose(self, context: TenantContext, name: str, choice: Choice) -> Placed:
        """What the operator wants; `auto`: as its size asks for. Raise NotInPlan."""
        self._quotas.require_rules(context.tenant_id, dedicated=choice == "dedicated")
        with self._database.write(context) as session:
            row = self._collections.for_tenant(context).find(session, name)
            row.placement_chosen = choice != "auto"
            if choice != "auto":
                row.placement = choice
            session.add(row)
        return self._placed(row)

    def show(self, context: TenantContext, name: str) -> Placed:
        with self._database.read(context) as session:
            return self._placed(self._collections.for_tenant(context).find(session, name))

    def _placed(self, row: Collection) -> Placed:
        apart = next((one for one in self._store.dedicated(self._space) if one.collection == row.id), None)
        settled = (apart is not None) == (row.placement == "dedicated")
        return Placed(row, settled, apart.points if apart else 0, apart.indexed if apart else 0)


class Placer:
    """Run now and then by one worker. Asks the store for one list and SQL for two, whatever the number of collections."""

    def __init__(
        self, database: Database, store: VectorStore, space: Space, *, dedicated_points: int, quotas: Quotas = UNLIMITED
    ) -> None:
        """`dedicated_points`: 0 is never, unless it was chosen."""
        self._database, self._store, self._space, self._points = database, store, space, dedicated_points
        self._quotas = quotas

    def run_once(self) -> None:
        apart = {one.collection: one for one in self._store.dedicated(self._space)}
        if self._points:
            self._wish(self._allowed(self._store.crowded(self._space, self._points)), "dedicated")
            least = self._points * DEMOTE_SHARE
            self._wish([one.collection for one in apart.values() if one.points < least], "shared")
        wished = self._wished()
        for collection, tenant in wished.items():
            if collection not in apart:
                self._place(VectorScope(tenant), collection, "dedicated")
        for one in apart.values():
            if one.collection not in wished:
                self._place(VectorScope(one.tenant), one.collection, "shared")

    def _allowed(self, collections: Sequence[str]) -> list[str]:
        """Those whose tenant's plan lets them lie by themselves."""
        owners = sa.select(col(Collection.id), col(Collection.tenant_id)).where(col(Collection.id).in_(collections))
        with self._database.system_read() as session:
            rows = session.execute(owners).all() if collections else []
        return [collection for collection, tenant in rows if self._quotas.of(tenant).dedicated]

    def _wish(self, collections: Sequence[str], placement: Placement) -> None:
        """Of those that nobody chose for."""
        if not collections:
            return
        changed = (
            sa.update(Collection)
            .where(
                col(Collection.id).in_(collections),
                col(Collection.placement) != placement,
                col(Collection.placement_chosen).is_(False),
            )
            .values(placement=placement)
        )
        with self._database.system_write() as session:
            session.execute(changed, execution_options={"synchronize_session": False})

    def _wished(self) -> dict[str, str]:
        """Collections of this space that are to lie by themselves, each with its tenant."""
        found: dict[str, str] = {}
        last = ""
        while True:
            page = (
                select(col(Collection.id), col(Collection.tenant_id))
                .where(col(Collection.placement) == "dedicated", col(Collection.space_id) == self._space.id)
                .where(col(Collection.id) > last)
                .order_by(col(Collection.id))
                .limit(PAGE)
            )
            with self._database.system_read() as session:
                rows = session.execute(page).all()
            if not rows:
                return found
            found |= {row[0]: row[1] for row in rows}
            last = rows[-1][0]

    def _place(self, scope: Scope, collection: str, placement: Placement) -> None:
        """The store does it in its own time, and is asked again until it is done."""
        try:
            self._store.for_tenant(scope, self._space).place(collection, placement)
        except InvalidPoint as error:
            log.warning("a collection cannot be placed", extra={"collection": collection, "reason": str(error)})
