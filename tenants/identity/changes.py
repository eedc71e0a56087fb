"""Which keys and tenants changed of late: one cheap statement that lets a process trust what it keeps of them for a moment.

Both tables have an indexed `changed_at`. A look reads what it says of the time since the last look and of some minutes
before that, and compares it with what the last look read, so that neither a transaction that committed late nor a clock that
runs behind hides a change, however long nobody asked. What this process changes itself it looks at with the next request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlmodel import col

from config.clock import Clock
from config.database import Database, TenantSession
from tenants.tables import ApiKey, Tenant

TRUST_S = 0.9  #: after a look; with the time that a look takes, a change is known everywhere within a second
LOOK_BACK_MS = 5 * 60_000
MOST = 1000  #: changes that are told apart; of more, everything is taken to have changed

_SINCE = sa.bindparam("since", type_=sa.BigInteger())
_RECENT = sa.union_all(
    *(sa.select(col(table.id), col(table.changed_at)).where(col(table.changed_at) >= _SINCE) for table in (ApiKey, Tenant))
).limit(MOST + 1)


class Changes:
    """`forget` is called with the ids that changed, or None: anything may have."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        forget: Callable[[set[str] | None], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._clock, self._forget, self._monotonic = database, clock, forget, monotonic
        self._seen: set[tuple[str, int]] = set()
        self._looked_at = clock()  # before it nothing was kept
        self._trusted_until = 0.0
        self._looking = threading.Lock()
        _OF_THIS_PROCESS.add(self)

    def trusted_for(self) -> float:
        """Seconds for which what is kept may still be used; not positive: `look` first."""
        return self._trusted_until - self._monotonic()

    def distrust(self) -> None:
        """Something was changed here: it is to hold from the next request on."""
        self._trusted_until = 0.0

    def look(self) -> None:
        """Forget what changed, unless somebody just did. Raise what the database raises: nothing is trusted then."""
        with self._looking:
            if self.trusted_for() > 0:
                return
            began, now = self._monotonic(), self._clock()
            with self._database.system_read() as session:
                rows = session.execute(_RECENT, {"since": min(now, self._looked_at) - LOOK_BACK_MS}).all()
            recent = {(key, at) for key, at in rows}
            self._forget(None if len(rows) > MOST else {key for key, _ in recent - self._seen})
            self._seen, self._looked_at, self._trusted_until = recent, now, began + TRUST_S


_OF_THIS_PROCESS: WeakSet[Changes] = WeakSet()
_CHANGED = "carrel_changed"


@event.listens_for(TenantSession, "before_flush")
def _note(session: Session, _context: object, _instances: object) -> None:
    if any(isinstance(row, ApiKey | Tenant) for row in session.dirty):
        session.info[_CHANGED] = True


@event.listens_for(TenantSession, "after_commit")
def _distrust(session: Session) -> None:
    if session.info.pop(_CHANGED, False):
        for changes in tuple(_OF_THIS_PROCESS):
            changes.distrust()
