"""Requests that come again under one key: who works on the first, and what its result was. Knows nothing of HTTP.

    claim ──record──► result                 A result is written in the transaction of the effect, so neither exists alone.
      ├─ release ──► (nothing)               What was refused without an effect may be sent again under the key.
      └─ lease ran out ──► claimed anew      Safe: without a result there is no effect.

    result ─ retract ──► told no more        What it tells of was deleted. It is not carried out again either.

The claim is a fence: `record` fails, and the effect with it, once another request has taken the claim over.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import IdempotencyInProgress, IdempotencyKeyReused, NotFound
from config.vault import Vault
from tenants.tables import IdempotencyRecord

LEASE_S = 15
KEEP_S = 25 * 3600  # a day is promised; the hour is for clocks that differ
PURGE_ROWS, PURGE_PAGES = 500, 2_000  # in one transaction, and in one call, of which there is one an hour
RETRACTED = 404  #: the status of a result that has no body any more


@dataclass(frozen=True, slots=True)
class Call:
    """A request as its repetitions name it."""

    owner: str  #: the tenant's id, or "operator" and the key's id: whose keys do not meet
    tenant_id: str | None  #: None for operators
    route: str
    key: str
    body_sha256: bytes  #: of everything that must be the same when it comes again
    subject: str | None = None  #: of whom it is, as far as it says
    session_id: str | None = None  #: which it names, not in its route

    @property
    def sealed_for(self) -> str:
        return _sealed_for(self)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to carry the call out, for as long as nobody takes it over."""

    call: Call
    token: str


@dataclass(frozen=True, slots=True)
class Result:
    status: int
    body: bytes
    session_id: str | None = None  #: of which it tells


_KEY = col(IdempotencyRecord.owner), col(IdempotencyRecord.route), col(IdempotencyRecord.key)


@dataclass(frozen=True, slots=True)
class _Bound:
    tenant_id: str


_OF_SUBJECT = (
    select(IdempotencyRecord)
    .where(
        col(IdempotencyRecord.owner) == sa.bindparam("owner"),
        col(IdempotencyRecord.route) == sa.bindparam("route"),
        col(IdempotencyRecord.key) > sa.bindparam("after"),
        col(IdempotencyRecord.subject) == sa.bindparam("subject"),
        col(IdempotencyRecord.response).is_not(None),
    )
    .order_by(col(IdempotencyRecord.key))
    .limit(PURGE_ROWS)
)


class IdempotencyStore:
    def __init__(self, database: Database, clock: Clock, vault: Vault) -> None:
        self._database, self._clock, self._vault = database, clock, vault

    def claim(self, call: Call) -> Claim | Result | None:
        """The claim if the caller is to work, the result if there is one, None while another works on it.

        Raise IdempotencyKeyReused if the key stands for another body, NotFound for a result that was retracted.
        """
        with self._read(call) as session:
            row = session.get(IdempotencyRecord, _identity(call))
        if row is not None and (row.status is not None or row.lease_until >= self._clock()):
            return self._found(call, row)  # the usual answer of those who wait takes no write lock
        with self._write(call) as session:
            return self._take(session, call)

    def _take(self, session: Session, call: Call) -> Claim | Result | None:
        claim, now = Claim(call, secrets.token_hex(16)), self._clock()
        mine = {"claim": claim.token, "lease_until": now + LEASE_S * 1000, "created_at": now}
        if self._insert(session, call, mine):
            return claim
        row = session.get(IdempotencyRecord, _identity(call))
        if row is None:
            return None  # released at this moment: whoever asks again gets it
        if (found := self._found(call, row)) is not None:
            return found
        lapsed = _unfinished(call, row.claim).where(col(IdempotencyRecord.lease_until) < now).values(**mine)
        return claim if _count(session, lapsed) else None

    def _insert(self, session: Session, call: Call, mine: dict[str, object]) -> bool:
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        row = {name: getattr(call, name) for name in ("owner", "tenant_id", "route", "key", "body_sha256", "subject")}
        inserted = (
            insert(IdempotencyRecord).values(**row, **mine).on_conflict_do_nothing().returning(col(IdempotencyRecord.claim))
        )
        return session.scalar(inserted) is not None  # on PostgreSQL an insert has no count of rows

    def _found(self, call: Call, row: IdempotencyRecord) -> Result | None:
        if row.body_sha256 != call.body_sha256:
            raise IdempotencyKeyReused("The key was sent before with another request; use a new one.", field="Idempotency-Key")
        if row.status == RETRACTED and row.response is None:
            raise NotFound("What this request made, or some of it, has been deleted since.")
        return self._result(call, row)

    def _result(self, call: Call, row: IdempotencyRecord) -> Result | None:
        if row.status is None or row.response is None:
            return None
        return Result(row.status, self._vault.open(row.response, bound_to=call.sealed_for))

    def record(self, session: Session, claim: Claim, result: Result) -> None:
        """In the effect's transaction, last. Raise IdempotencyInProgress, and so undo the effect, if the claim was lost."""
        sealed = self._vault.seal(result.body, bound_to=claim.call.sealed_for)
        told = {"status": result.status, "response": sealed, "session_id": result.session_id}
        written = _unfinished(claim.call, claim.token).values(**told)
        if _count(session, written) == 0:
            raise IdempotencyInProgress("Another request with this key has taken over; repeat it.", retry_after_s=1)

    def finish(self, claim: Claim, result: Result) -> Result:
        """The result that stands: the one recorded with the effect, else this one, which is recorded now."""
        with self._read(claim.call) as session:
            row = session.get(IdempotencyRecord, _identity(claim.call))
        if row is not None and row.claim == claim.token and (standing := self._result(claim.call, row)) is not None:
            return standing
        with self._write(claim.call) as session:
            self.record(session, claim, result)
        return result

    def release(self, claim: Claim) -> None:
        """Nothing was done: the key may be used again. What has a result, or another's claim, stays."""
        gone = sa.delete(IdempotencyRecord).where(*_mine(claim.call, claim.token))
        with self._write(claim.call) as session:
            _count(session, gone)

    def purge(self) -> int:
        """Delete what is older than a day, in bounded pages; return how many."""
        deleted = 0
        for _ in range(PURGE_PAGES):
            with self._database.system_write() as session:
                page = _count(session, _expired(self._clock() - KEEP_S * 1000))
            deleted += page
            if page < PURGE_ROWS:
                break
        return deleted

    def forget(self, tenant_id: str, about: sa.ColumnElement[bool]) -> int:
        """Delete results that tell of what is erased, a page of them; return how many. What runs at the moment has none yet."""
        mine = col(IdempotencyRecord.tenant_id) == tenant_id, about
        page = sa.select(*_KEY).where(*mine).limit(PURGE_ROWS)
        with self._database.write(_Bound(tenant_id)) as session:
            return _count(session, sa.delete(IdempotencyRecord).where(sa.tuple_(*_KEY).in_(page), *mine))

    def retract(self, session: Session, tenant_id: str, *, route: str, subject: str, names: Sequence[str]) -> None:
        """Of results of a route for a subject, those that have one of these names in them. In the transaction that deletes what
        is named, a page at a time: there are as many as the subject had answers in a day.
        """
        wanted, after = [name.encode() for name in names], ""
        while True:
            rows = session.scalars(_OF_SUBJECT, {"owner": tenant_id, "route": route, "subject": subject, "after": after}).all()
            for row in rows:
                body = self._vault.open(row.response or b"", bound_to=_sealed_for(row))
                if any(name in body for name in wanted):
                    row.status, row.response = RETRACTED, None
            session.flush()
            if len(rows) < PURGE_ROWS:
                return
            after = rows[-1].key

    def count(self, tenant_id: str, about: sa.ColumnElement[bool]) -> int:
        mine = col(IdempotencyRecord.tenant_id) == tenant_id, about
        with self._database.read(_Bound(tenant_id)) as session:
            return session.scalar(sa.select(sa.func.count()).select_from(IdempotencyRecord).where(*mine)) or 0

    def _read(self, call: Call) -> AbstractContextManager[Session]:
        return self._database.system_read() if call.tenant_id is None else self._database.read(_Bound(call.tenant_id))

    def _write(self, call: Call) -> AbstractContextManager[Session]:
        return self._database.system_write() if call.tenant_id is None else self._database.write(_Bound(call.tenant_id))


def _sealed_for(call: Call | IdempotencyRecord) -> str:
    return "\n".join(("idempotency", call.owner, call.route, call.key))


def _identity(call: Call) -> tuple[str, str, str]:
    return call.owner, call.route, call.key


def _mine(call: Call, token: str) -> list[sa.ColumnElement[bool]]:
    return [
        col(IdempotencyRecord.owner) == call.owner,
        col(IdempotencyRecord.route) == call.route,
        col(IdempotencyRecord.key) == call.key,
        col(IdempotencyRecord.claim) == token,
        col(IdempotencyRecord.status).is_(None),
    ]


def _unfinished(call: Call, token: str) -> sa.Update:
    return sa.update(IdempotencyRecord).where(*_mine(call, token))


def _expired(before: int) -> sa.Delete:
    created = col(IdempotencyRecord.created_at)
    page = sa.select(*_KEY).where(created < before).order_by(created).limit(PURGE_ROWS)
    return sa.delete(IdempotencyRecord).where(sa.tuple_(*_KEY).in_(page), created < before)


def _count(session: Session, statement: sa.Update | sa.Delete) -> int:
    """Execute and return how many rows it met."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    count: int = result.rowcount  # type: ignore[attr-defined]
    return count
