"""Makes everything that is derived agree with SQL again: the engine, the queue, stored contents, sums.

Safe at any time: beside running jobs, beside another reconciler, and when killed. Every repair looks again inside the
transaction that carries it out, and what was not reached is found by the next run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import chain

import sqlalchemy as sa
from sqlmodel import col, select

from ingestion.blobs import FOLDERS
from ingestion.repair.accounts import check_live_versions, check_windows
from ingestion.repair.blobs import check_blobs, horizon
from ingestion.repair.former import expire
from ingestion.repair.jobs import check_jobs
from ingestion.repair.names import check_names
from ingestion.repair.parts import PAGE, Parts
from ingestion.repair.points import FreeMeter, check_points, check_unknown_tenants
from ingestion.repair.quotas import check_quotas
from ingestion.repair.report import Finding, Report
from ingestion.repair.terms import check_term_counts
from rag.corpus import Chunk
from tenants.context import TenantContext

log = logging.getLogger(__name__)

#: Called with how many parts were looked at, of how many.
Progress = Callable[[int, int], None]


class Reconciler:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def check(self, *, repair: bool, quick: bool = False, progress: Progress = lambda _done, _of: None) -> Report:
        """Look at everything. `quick`: a tenant's points are compared one by one only where their count is wrong.

        Raises EngineUnavailable; what was repaired until then stays repaired.
        """
        report, meter = Report(), FreeMeter()
        total = self._parts.registry.count() + len(FOLDERS) + 1
        for done, findings in enumerate(self._checks(repair, quick, meter)):
            for finding in findings:
                report.add(finding)
                report.tokens = meter.tokens
            progress(min(done + 1, total), total)
        return report

    def _checks(self, repair: bool, quick: bool, meter: FreeMeter) -> Iterator[Iterator[Finding]]:
        for context in self._tenants():
            yield self._check_tenant(context, repair, quick, meter)
        yield check_unknown_tenants(self._parts, repair)
        before = horizon(self._parts)
        for folder in FOLDERS:
            yield check_blobs(self._parts, folder, repair, before)

    def _check_tenant(self, context: TenantContext, repair: bool, quick: bool, meter: FreeMeter) -> Iterator[Finding]:
        return chain(
            check_windows(self._parts, context, repair),
            check_live_versions(self._parts, context, repair),
            check_jobs(self._parts, context, repair),
            check_names(self._parts, context, repair),
            check_points(self._parts, context, repair, meter, quick=quick),
            check_term_counts(self._parts, context, repair, quick=quick),
            check_quotas(self._parts, context, repair),  # when what they count is mended
        )

    def _tenants(self) -> Iterator[TenantContext]:
        last: str | None = None
        while tenants := self._parts.registry.list(after=last, limit=PAGE):
            for tenant in tenants:
                yield self._parts.registry.context_of_job(tenant.id, "reconciler")
            last = tenants[-1].id

    def run_once(self) -> Report:
        """Repair what a quick look finds, and log it."""
        report = self.check(repair=True, quick=True)
        for finding in report.findings:
            said = log.info if finding.repaired else log.warning
            said(
                "damage was repaired" if finding.repaired else "damage was found",
                extra={
                    "kind": finding.kind,
                    "tenant": finding.tenant_id,
                    "count": finding.count,
                    "subject": finding.subject,
                },
            )
        if report.tokens:
            log.info("chunks were embedded again", extra={"tokens": report.tokens})
        return report

    def expire(self) -> None:
        """Remove former versions that were kept for long enough."""
        if count := expire(self._parts):
            log.info("former versions were removed", extra={"documents": count})

    def engine(self) -> tuple[str, int] | None:
        """Which run of the engine this is, and how many points it has; None if it does not answer."""
        health = self._parts.store.health()
        return (health.run, sum(health.spaces.values())) if health.ok else None

    def engine_lost_points(self) -> bool:
        """Whether the engine has fewer points than SQL counts. SQL is asked first: chunks are unmarked before points go."""
        with self._parts.database.system_read() as session:
            indexed = session.scalar(select(sa.func.count()).select_from(Chunk).where(col(Chunk.indexed) == sa.true())) or 0
        engine = self.engine()
        return engine is not None and engine[1] < indexed

    def close(self) -> None:
        self._parts.store.close()
        self._parts.brief_store.close()
