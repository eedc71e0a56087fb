"""Which processes are alive, by their heartbeats: what a dead one left is taken over, what a living one is doing is not."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.ids import new_id
from ingestion.jobs.tables import Instance

SILENT_MS = 10_000  # without a heartbeat: dead. Five heartbeats at the default of two seconds.


class Instances:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def register(self, kind: str, executor: str | None = None) -> str:
        """Announce this process; return its id. Another instance of the same executor has ended: names are held by locks."""
        now = self._clock()
        row = Instance(id=new_id("ins"), kind=kind, executor=executor, started_at=now, seen_at=now)
        with self._database.system_write() as session:
            if executor is not None:
                session.execute(sa.delete(Instance).where(col(Instance.executor) == executor))
            session.add(row)
        return row.id

    def beat(self, instance_id: str) -> bool:
        """Say that this process lives; False if others took it for dead meanwhile."""
        alive = sa.update(Instance).where(col(Instance.id) == instance_id).values(seen_at=self._clock())
        with self._database.system_write() as session:
            result = session.execute(alive, execution_options={"synchronize_session": False})
            return bool(result.rowcount)  # type: ignore[attr-defined]

    def end(self, instance_id: str) -> None:
        with self._database.system_write() as session:
            session.execute(sa.delete(Instance).where(col(Instance.id) == instance_id))

    def living(self) -> list[Instance]:
        with self._database.system_read() as session:
            return [*session.scalars(select(Instance).where(col(Instance.seen_at) >= self._clock() - SILENT_MS))]

    def bury(self) -> list[Instance]:
        """Remove the dead and return them, each to one caller only."""
        silent = col(Instance.seen_at) < self._clock() - SILENT_MS
        with self._database.system_write() as session:
            dead = [*session.scalars(select(Instance).where(silent).with_for_update(skip_locked=True))]
            for instance in dead:
                session.delete(instance)
        return dead
