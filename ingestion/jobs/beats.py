"""Tells how far a job is within a step: a row's update now and then, from the step's own thread, that nothing waits for."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import col

from config.clock import Clock
from config.database import Database
from ingestion.jobs.leases import Lease
from ingestion.jobs.tables import Job

log = logging.getLogger(__name__)


class Beats:
    """Its callers are told something twice a second at the most (`BEAT_S` of models, `TOLD_S` of the sandbox)."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def pages(self, lease: Lease, read: int) -> None:
        """So many pages of the document are read."""
        self._raise_to(lease, "reading", "pages", read)

    def tokens(self, lease: Lease, embedded: int) -> None:
        """So many tokens of the batch under way are embedded; when the batch is counted, they are forgotten."""
        self._raise_to(lease, "embedding", "tokens_ahead", embedded)

    def _raise_to(self, lease: Lease, stage: str, name: str, value: int) -> None:
        """Never backwards, and nothing of a job that was lost or has ended: the step finds that out by itself."""
        column = sa.column(name, sa.Integer)
        statement = (
            sa.update(Job)
            .where(col(Job.id) == lease.job_id, col(Job.epoch) == lease.epoch, col(Job.stage) == stage, column < value)
            .where(col(Job.state) == "running")
            .values({name: value, "updated_at": self._clock()})
        )
        try:
            with self._database.write(lease.context) as session:
                session.execute(statement, execution_options={"synchronize_session": False})
        except (OperationalError, PoolTimeout) as error:  # the next one says as much, and the end of the step says all
            log.info("a job's progress was not noted", extra={"reason": repr(error)})
