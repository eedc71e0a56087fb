"""A chain as lines of JSON, to be kept and verified anywhere: entries, and behind them the checkpoints that cover them.

Read in pages, each a short transaction of its own: a reader that is slow holds nothing up.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import col, select

from config.clock import isoformat
from tenants.audit.chain import FIELDS, Checkpoint, chain_of
from tenants.audit.record import AuditLog
from tenants.audit.tables import AuditCheckpoint, AuditEntry

PAGE = 500
LAST_POSITION = 2**63 - 1  #: that databases can write
LINES_BYTES = 64 * 1024  #: collected before they are handed on
Record = Mapping[str, Any]


class AuditExport:
    def __init__(self, audit: AuditLog, keys: Sequence[str]) -> None:
        """`keys`: public keys of this service, today's first."""
        self._audit, self._keys = audit, tuple(keys)

    def lines(self, tenant_id: str | None, *, from_position: int = 1) -> Iterator[bytes]:
        """Whole lines of the tenant's chain, or of operators' (None); from the checkpoint on that holds the position."""
        collected = bytearray()
        for record in self._records(tenant_id, from_position):
            collected += json.dumps(record, ensure_ascii=False).encode() + b"\n"
            if len(collected) >= LINES_BYTES:
                yield bytes(collected)
                collected.clear()
        yield bytes(collected)

    def _records(self, tenant_id: str | None, from_position: int) -> Iterator[Record]:
        anchor = self._anchor(tenant_id, from_position)
        told = None if anchor is None else anchor.told()
        yield {"kind": "header", "version": 1, "chain": chain_of(tenant_id), "keys": [*self._keys], "anchor": told}
        done = None if anchor is None else anchor.last
        while True:
            surplus = self._entries(tenant_id, done, None)  # read before it is known that no checkpoint covers it
            if not (page := self._checkpoints(tenant_id, done)):
                break
            yield from self._merged(tenant_id, done, page)
            done = page[-1].last
        yield from map(_entry_line, surplus)
        yield from self._unsealed(tenant_id)
        yield {"kind": "end"}

    def _anchor(self, tenant_id: str | None, from_position: int) -> Checkpoint | None:
        """What stands for the entries before: the newest checkpoint that ends before the position, or the cut."""
        from_position = min(from_position, LAST_POSITION)
        statement = select(AuditCheckpoint).where(col(AuditCheckpoint.chain) == chain_of(tenant_id))
        before = statement.where(sa.or_(col(AuditCheckpoint.first) == 0, col(AuditCheckpoint.last) < from_position))
        if from_position <= 1:
            before = statement.where(col(AuditCheckpoint.first) == 0)
        with self._audit.reading(tenant_id) as session:
            row = session.scalars(before.order_by(col(AuditCheckpoint.last).desc()).limit(1)).first()
        return None if row is None else checkpoint_of(row)

    def _checkpoints(self, tenant_id: str | None, done: int | None) -> list[Checkpoint]:
        statement = (
            select(AuditCheckpoint)
            .where(col(AuditCheckpoint.chain) == chain_of(tenant_id), col(AuditCheckpoint.first) > 0)
            .order_by(col(AuditCheckpoint.last), col(AuditCheckpoint.first))
            .limit(PAGE)
        )
        if done is not None:
            statement = statement.where(col(AuditCheckpoint.last) > done)
        with self._audit.reading(tenant_id) as session:
            return [checkpoint_of(row) for row in session.scalars(statement)]

    def _merged(self, tenant_id: str | None, done: int | None, page: list[Checkpoint]) -> Iterator[Record]:
        """Entries in order, and each checkpoint behind the last that it covers."""
        entries = ((row.position or 0, 0, _entry_line(row)) for row in self._all_entries(tenant_id, done, page[-1].last))
        checkpoints = ((one.last, 1, {"kind": "checkpoint", **one.told()}) for one in page)
        for _, _, record in heapq.merge(entries, checkpoints, key=lambda item: item[:2]):
            yield record

    def _all_entries(self, tenant_id: str | None, done: int | None, last: int) -> Iterator[AuditEntry]:
        page = self._entries(tenant_id, done, last)
        while page:
            yield from page
            page = self._entries(tenant_id, page[-1].position, last, page[-1].id)

    def _entries(
        self, tenant_id: str | None, done: int | None, last: int | None, at_done: str | None = None
    ) -> list[AuditEntry]:
        """A page behind the position `done`, or, of several entries there, behind the one with the id `at_done`."""
        position = col(AuditEntry.position)
        statement = select(AuditEntry).where(col(AuditEntry.tenant_id) == tenant_id, position.is_not(None))
        if at_done is not None:
            place = sa.tuple_(sa.literal(done, sa.BigInteger), sa.literal(at_done))
            statement = statement.where(sa.tuple_(position, col(AuditEntry.id)) > place)
        elif done is not None:
            statement = statement.where(position > done)
        if last is not None:
            statement = statement.where(position <= last)
        with self._audit.reading(tenant_id) as session:
            return [*session.scalars(statement.order_by(position, col(AuditEntry.id)).limit(PAGE))]

    def _unsealed(self, tenant_id: str | None) -> Iterator[Record]:
        after = ""
        while True:
            statement = (
                select(AuditEntry)
                .where(col(AuditEntry.tenant_id) == tenant_id, col(AuditEntry.position).is_(None), col(AuditEntry.id) > after)
                .order_by(col(AuditEntry.id))
                .limit(PAGE)
            )
            with self._audit.reading(tenant_id) as session:
                page = [*session.scalars(statement)]
            yield from map(_entry_line, page)
            if len(page) < PAGE:
                return
            after = page[-1].id


def checkpoint_of(row: AuditCheckpoint) -> Checkpoint:
    hexadecimal = {name: getattr(row, name).hex() for name in ("before", "head", "key", "signature")}
    return Checkpoint(chain=row.chain, first=row.first, last=row.last, at=row.at, **hexadecimal)


def _entry_line(row: AuditEntry) -> Record:
    """As it is chained; `time` is for people and chained by `at`."""
    entry = row.model_dump(include={*FIELDS})
    digest = None if row.hash is None else row.hash.hex()
    return {"kind": "entry", "position": row.position, "hash": digest, "time": isoformat(row.at), "entry": entry}
