"""An audit record that tests fill, seal, tamper with and verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from config.database import Database
from tenants.audit.archive import CheckpointArchive
from tenants.audit.chain import CheckpointSigner
from tenants.audit.export import AuditExport
from tenants.audit.record import AuditLog, Event
from tenants.audit.sealer import Sealer
from tenants.audit.tables import AuditCheckpoint, AuditEntry
from tenants.audit.verifier import Report, Verifier
from tenants.context import Principal, PrincipalKind
from tests.unit.conftest import SetClock

WHO = Principal(PrincipalKind.KEY, "key_x", frozenset())
SIGNER, OTHER = CheckpointSigner(bytes(32)), CheckpointSigner(b"o" * 32)
ENTRIES, CHECKPOINTS = AuditEntry.__table__, AuditCheckpoint.__table__  # type: ignore[attr-defined]


def event(tenant_id: str | None, number: int = 0, status: int = 200, action: str = "POST /v1/query") -> Event:
    detail = {"passages": [f"p{number}", "ä"], "share": 0.1}
    return Event(f"req-{number}", WHO, tenant_id, action, f"/v1/x/{number}\n", status, detail)


@dataclass
class Record:
    """The record of a service, and somebody who can write its database."""

    database: Database
    clock: SetClock
    archive: CheckpointArchive | None = None

    def __post_init__(self) -> None:
        self.log = AuditLog(self.database, self.clock)
        self.export = AuditExport(self.log, [SIGNER.public])
        self.sealer = Sealer(self.database, self.clock, SIGNER, self.archive, keep_days=30)

    def fill(self, tenant_id: str | None, count: int, first: int = 0) -> None:
        with self.log._confined(tenant_id) as session:
            for number in range(first, first + count):
                self.clock.now += 1
                self.log.add(session, event(tenant_id, number))
        self.sealer.run_once()

    def lines(self, tenant_id: str | None, from_position: int = 1) -> list[str]:
        return b"".join(self.export.lines(tenant_id, from_position=from_position)).decode().splitlines()

    def verified(self, tenant_id: str | None = "a", from_position: int = 1) -> Report:
        archived = () if self.archive is None else self.archive.read(tenant_id or "operator")
        return verify(self.lines(tenant_id, from_position), archived=archived)

    def change(self, *statements: sa.Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Past the service, in one transaction; with `rows` the last statement is executed for each of them."""
        with self.database.engine.begin() as connection:
            if self.database.is_postgresql:
                connection.exec_driver_sql("SET LOCAL ROLE carrel_system")
            for statement in statements[: None if rows is None else -1]:
                connection.execute(statement)
            if rows:
                connection.execute(statements[-1], rows)

    def rows(self, tenant_id: str | None = "a") -> list[sa.Row[tuple[object, ...]]]:
        with self.database.system_read() as session:
            own = sa.select(ENTRIES).where(ENTRIES.c.tenant_id == tenant_id, ENTRIES.c.position.is_not(None))
            return [*session.execute(own.order_by(ENTRIES.c.position))]


def verify(lines: list[str], **given: object) -> Report:
    verifier = Verifier(**{"trusted": [SIGNER.public], **given})  # type: ignore[arg-type]
    for line in lines:
        verifier.line(line)
    return verifier.finish()
