"""Gives audit entries their places: one process at a time chains what was appended, batch by batch, and signs each batch.

Writers never wait for it: it touches entries that are committed, and two sealers that meet collide on a checkpoint's key.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from tenants.audit.archive import CheckpointArchive
from tenants.audit.chain import FIELDS, Checkpoint, CheckpointSigner, chain_of, genesis, link
from tenants.audit.export import checkpoint_of
from tenants.audit.tables import AuditCheckpoint, AuditEntry, AuditHour, AuditIntent
from tenants.counters import insert_missing
from tenants.tables import Tenant

log = logging.getLogger(__name__)

BATCH = 250  #: entries in one transaction: 4 ms in which SQLite takes no other write
BATCHES, CHAINS = 20, 1_000  #: of one chain, and chains, in one run: others have their turn, and the rest the next
UNANSWERED_MS = 300_000  #: after which a request that began and never ended gets its entry
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
QUERIES = frozenset({"POST /v1/query", "POST /v1/context"})
PURGE_PAGES = 1_000

_ENTRIES = AuditEntry.__table__  # type: ignore[attr-defined]
_PLACE = (
    sa.update(_ENTRIES)
    .where(_ENTRIES.c.id == sa.bindparam("entry"))
    .values(position=sa.bindparam("place"), hash=sa.bindparam("digest"))
)
_HOURS = AuditHour.__table__  # type: ignore[attr-defined]
_NO_SYNC = {"synchronize_session": False}


class Sealer:
    def __init__(
        self, database: Database, clock: Clock, signer: CheckpointSigner, archive: CheckpointArchive | None, *, keep_days: int
    ) -> None:
        self._database, self._clock, self._signer = database, clock, signer
        self._archive, self._keep_days = archive, keep_days
        self._archived = False  # whether what an earlier process left was looked after
        self._through = ""  # the last chain that had its turn, if not all had

    def run_once(self) -> int:
        """Seal what waits; return how many entries. Beyond BATCHES of a chain the rest waits for the next run."""
        self._end_unanswered()
        chains, sealed = self._waiting(), 0
        for tenant_id in chains:
            for _ in range(BATCHES):
                count = self._seal(tenant_id)
                sealed += count
                if count < BATCH:
                    break
        self._bring_to_archive(chains)
        return sealed

    def _waiting(self) -> list[str | None]:
        """Chains with entries that are not sealed: the operators', and behind those that had their turn some tenants'."""
        owner = _ENTRIES.c.tenant_id
        unsealed = sa.select(owner).where(_ENTRIES.c.position.is_(None))
        following = unsealed.where(owner > self._through).distinct().order_by(owner).limit(CHAINS)
        with self._database.system_read() as session:
            operators = session.execute(unsealed.where(owner.is_(None)).limit(1)).scalars().all()
            found = [*session.execute(following).scalars()]
        self._through = found[-1] if len(found) == CHAINS else ""
        return [*operators, *found]

    def _seal(self, tenant_id: str | None) -> int:
        chain, own = chain_of(tenant_id), col(AuditEntry.tenant_id) == tenant_id
        unsealed = select(AuditEntry).where(own, col(AuditEntry.position).is_(None)).order_by(col(AuditEntry.id)).limit(BATCH)
        with self._database.system_read() as session:
            last = self._last(session, chain)
            rows = [*session.scalars(unsealed)]
        if not rows:
            return 0
        position, head = (0, genesis(chain)) if last is None else (last.last, last.head)
        before, places = head, []
        for number, row in enumerate(rows, position + 1):
            head = link(head, row.model_dump(include={*FIELDS}))
            places.append({"entry": row.id, "place": number, "digest": head})
        checkpoint = self._signer.sign(
            chain, first=position + 1, last=position + len(rows), before=before, head=head, at=self._clock()
        )
        try:
            with self._database.system_write() as session:
                session.add(_row(checkpoint, tenant_id))
                session.flush()  # before anything else: another sealer is met here
                session.execute(_PLACE, places)
                _count(session, rows)
        except IntegrityError:
            log.warning("another process seals the audit record too", extra={"chain": chain})
            return 0
        return len(rows)

    @staticmethod
    def _last(session: Session, chain: str) -> AuditCheckpoint | None:
        newest = select(AuditCheckpoint).where(col(AuditCheckpoint.chain) == chain).order_by(col(AuditCheckpoint.last).desc())
        return session.scalars(newest.limit(1)).first()

    def _end_unanswered(self) -> None:
        """Requests that began to change something and were never answered: their process died, most likely."""
        old = select(AuditIntent).where(col(AuditIntent.at) < self._clock() - UNANSWERED_MS).order_by(col(AuditIntent.at))
        with self._database.system_read() as session:
            intents = [*session.scalars(old.limit(BATCH))]
        for intent in intents:
            with self._database.system_write() as session:
                ended = session.execute(
                    sa.delete(AuditIntent).where(col(AuditIntent.id) == intent.id), execution_options=_NO_SYNC
                )
                if ended.rowcount:  # type: ignore[attr-defined]  # else it was answered meanwhile
                    outcome = {"outcome": "unknown"}
                    session.add(AuditEntry(**intent.model_dump(), decision="allowed", status=0, detail=outcome))
        if intents:
            log.warning("requests were never answered", extra={"requests": len(intents)})

    def _bring_to_archive(self, chains: Sequence[str | None]) -> None:
        """Whatever the archive does not have of these chains; the first time, of all."""
        if self._archive is None:
            return
        names = {chain_of(tenant_id) for tenant_id in chains}
        with self._database.system_read() as session:
            if not self._archived:
                names |= {*session.scalars(select(col(AuditCheckpoint.chain)).distinct())}
        for chain in sorted(names):
            while page := self._not_archived(chain):
                self._archive.append(chain, page)
        self._archived = True

    def _not_archived(self, chain: str) -> list[Checkpoint]:
        through = 0 if self._archive is None else self._archive.through(chain)
        statement = (
            select(AuditCheckpoint)
            .where(col(AuditCheckpoint.chain) == chain, col(AuditCheckpoint.last) > through, col(AuditCheckpoint.first) > 0)
            .order_by(col(AuditCheckpoint.last))
            .limit(BATCH)
        )
        with self._database.system_read() as session:
            return [checkpoint_of(row) for row in session.scalars(statement)]

    def purge(self) -> int:
        """Delete sealed entries past their age, whole batches; what is left begins at a signed cut. Return how many."""
        before = self._clock() - self._keep_days * DAY_MS
        with self._database.system_read() as session:
            chains = [*session.scalars(select(col(AuditCheckpoint.chain)).distinct())]
        with self._database.system_write() as session:
            session.execute(sa.delete(AuditHour).where(col(AuditHour.hour) < before), execution_options=_NO_SYNC)
        return sum(self._purge(chain, before) for chain in chains)

    def _purge(self, chain: str, before: int) -> int:
        """The cut comes first: from then on the entries before it count for nothing, however many are still there."""
        old = select(AuditCheckpoint).where(
            col(AuditCheckpoint.chain) == chain, col(AuditCheckpoint.first) > 0, col(AuditCheckpoint.at) < before
        )
        with self._database.system_write() as session:
            newest = session.scalars(old.order_by(col(AuditCheckpoint.last).desc()).limit(1)).first()
            cut = session.get(AuditCheckpoint, (chain, 0))
            if newest is not None:
                signed = self._signer.sign(
                    chain, first=0, last=newest.last, before=newest.before, head=newest.head, at=self._clock()
                )
                cut = session.merge(_row(signed, newest.tenant_id))
        return 0 if cut is None else self._delete_through(cut)

    def _delete_through(self, cut: AuditCheckpoint) -> int:
        own = col(AuditEntry.tenant_id) == cut.tenant_id
        gone = select(col(AuditEntry.id)).where(own, col(AuditEntry.position) <= cut.last).limit(BATCH)
        covered = sa.delete(AuditCheckpoint).where(
            col(AuditCheckpoint.chain) == cut.chain, col(AuditCheckpoint.first) > 0, col(AuditCheckpoint.last) <= cut.last
        )
        purged = 0
        for _ in range(PURGE_PAGES):
            with self._database.system_write() as session:
                ids = [*session.scalars(gone)]
                session.execute(sa.delete(AuditEntry).where(col(AuditEntry.id).in_(ids)), execution_options=_NO_SYNC)
                if len(ids) < BATCH:
                    session.execute(covered, execution_options=_NO_SYNC)
            purged += len(ids)
            if len(ids) < BATCH:
                break
        return purged


def _row(checkpoint: Checkpoint, tenant_id: str | None) -> AuditCheckpoint:
    hashes = {name: bytes.fromhex(getattr(checkpoint, name)) for name in ("before", "head", "key", "signature")}
    return AuditCheckpoint.model_validate({**checkpoint.told(), **hashes, "tenant_id": tenant_id})


def _count(session: Session, rows: Sequence[AuditEntry]) -> None:
    """Add the entries to the sums of their hours, in the transaction that seals them: each counts once. Of a tenant that was
    deleted there are none any more."""
    sums: dict[tuple[str, int], Counter[str]] = {}
    for row in rows:
        if row.tenant_id is not None:
            counted = sums.setdefault((row.tenant_id, row.at - row.at % HOUR_MS), Counter())
            counted["requests"] += 1
            counted["queries"] += row.action in QUERIES
            counted["denied"] += row.decision == "denied"
            counted["failed"] += row.status >= 500 or row.status == 0
    there = {*session.scalars(select(col(Tenant.id)).where(col(Tenant.id).in_({tenant_id for tenant_id, _ in sums})))}
    for (tenant_id, hour), amounts in sums.items():
        if tenant_id not in there:
            continue
        key = {"tenant_id": tenant_id, "hour": hour}
        insert_missing(session, AuditHour, key | dict.fromkeys(("requests", "queries", "denied", "failed"), 0))
        more = {name: _HOURS.c[name] + amount for name, amount in amounts.items()}
        session.execute(sa.update(_HOURS).where(_HOURS.c.tenant_id == tenant_id, _HOURS.c.hour == hour).values(more))
