"""Secrets that tenants entrust to the service, such as signing secrets of webhooks and keys of model providers.

Each is sealed for its tenant and name: a row that is copied to another tenant or name cannot be opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from config.errors import Conflict, InvalidInput, NotFound, TooLarge, storable
from config.vault import CannotOpen, Vault
from tenants.context import TenantContext
from tenants.limits.quotas import hold
from tenants.tables import TenantSecret

NAME = re.compile(r"[a-z0-9][a-z0-9._:-]{0,99}")
MAX_VALUE_BYTES = 16 * 1024  # a provider's service account as JSON has about 2.4 kB
MAX_SECRETS = 1000  # of one tenant
PAGE = 200  # rows read at once while all are re-wrapped


@dataclass(frozen=True, slots=True)
class Rewrapped:
    rewrapped: int  #: now under today's master key
    current: int  #: were so before
    unopened: int  #: sealed under a master key that is not configured; left as they are


@dataclass(frozen=True, slots=True)
class _Row:
    tenant_id: str
    name: str
    sealed: bytes

    @property
    def bound_to(self) -> str:
        return _bound_to(self.tenant_id, self.name)


class Secrets:
    def __init__(self, database: Database, clock: Clock, vault: Vault) -> None:
        self.database, self.clock, self.vault = database, clock, vault

    def for_tenant(self, context: TenantContext) -> TenantSecrets:
        return TenantSecrets(self, context)

    def rewrap_all(self) -> Rewrapped:
        """Put every tenant's secrets under today's master key. May run while the service does, and again."""
        rewrapped = current = unopened = 0
        for row in self._rows():
            if self.vault.is_current(row.sealed):
                current += 1
            elif self._rewrap(row):
                rewrapped += 1
            else:
                unopened += 1
        return Rewrapped(rewrapped, current, unopened)

    def _rows(self) -> Iterator[_Row]:
        key = sa.tuple_(col(TenantSecret.tenant_id), col(TenantSecret.name))
        statement = select(TenantSecret).order_by(col(TenantSecret.tenant_id), col(TenantSecret.name)).limit(PAGE)
        page: list[_Row] | None = None
        while page is None or len(page) == PAGE:
            wanted = statement if not page else statement.where(key > (page[-1].tenant_id, page[-1].name))
            with self.database.system_read() as session:
                page = [_Row(row.tenant_id, row.name, row.sealed) for row in session.scalars(wanted)]
            yield from page

    def _rewrap(self, row: _Row) -> bool:
        try:
            sealed = self.vault.rewrap(row.sealed, bound_to=row.bound_to)
        except CannotOpen:
            return False
        unchanged = (col(TenantSecret.name) == row.name, col(TenantSecret.sealed) == row.sealed)
        with self.database.write(row) as session:  # one that was replaced meanwhile is under today's key already
            session.execute(sa.update(TenantSecret).where(*unchanged).values(sealed=sealed))
        return True


class TenantSecrets:
    def __init__(self, parts: Secrets, context: TenantContext) -> None:
        self._parts, self._context = parts, context

    def put(self, name: str, value: str) -> None:
        """Keep the secret, instead of the one that had this name. Raise InvalidInput or TooLarge."""
        try:
            with self._parts.database.write(self._context) as session:
                self.keep(session, name, value)
        except IntegrityError as error:
            raise Conflict("A secret of this name was made at the same moment.", field="name") from error

    def keep(self, session: Session, name: str, value: str) -> None:
        """`put` within the transaction of something that the secret belongs to."""
        _check(name, value)
        sealed = self._parts.vault.seal(value.encode(), bound_to=_bound_to(self._context.tenant_id, name))
        now = self._parts.clock()
        row = session.scalars(_named(name).with_for_update()).first()
        if row is None:
            hold(session, self._context.tenant_id)
            kept = session.scalars(sa.select(sa.func.count()).select_from(TenantSecret)).one()
            if kept >= MAX_SECRETS:
                raise InvalidInput(f"A tenant keeps at most {MAX_SECRETS} secrets.", field="name", limit=MAX_SECRETS)
            row = TenantSecret(tenant_id=self._context.tenant_id, name=name, sealed=sealed, created_at=now, updated_at=now)
        row.sealed, row.updated_at = sealed, now
        session.add(row)

    def get(self, name: str) -> str:
        """Raise NotFound, or CannotOpen: its master key is not configured, or the row is not what was kept here."""
        with self._parts.database.read(self._context) as session:
            return self.within(session, name)

    def within(self, session: Session, name: str) -> str:
        """`get` within a transaction that goes on."""
        row = session.scalars(_named(name)).first()
        if row is None:
            raise NotFound("There is no such secret.")
        return self._parts.vault.open(row.sealed, bound_to=_bound_to(self._context.tenant_id, name)).decode()

    def delete(self, name: str) -> None:
        """Raise NotFound."""
        with self._parts.database.write(self._context) as session:
            self.drop(session, name)

    def drop(self, session: Session, name: str) -> None:
        """`delete` within the transaction of something that the secret belonged to."""
        row = session.scalars(_named(name)).first()
        if row is None:
            raise NotFound("There is no such secret.")
        session.delete(row)

    def names(self) -> list[str]:
        """In alphabetical order; MAX_SECRETS at most."""
        with self._parts.database.read(self._context) as session:
            return [*session.scalars(select(TenantSecret.name).order_by(col(TenantSecret.name)).limit(MAX_SECRETS))]


def _named(name: str) -> SelectOfScalar[TenantSecret]:
    return select(TenantSecret).where(col(TenantSecret.name) == name)


def _bound_to(tenant_id: str, name: str) -> str:
    return f"secret {tenant_id} {name}"  # neither has a blank


def _check(name: str, value: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidInput(
            "A secret's name is 1 to 100 of a-z, 0-9 and . _ : - after a letter or digit.", field="name", limit=100
        )
    if not value or not storable(value):
        raise InvalidInput("A secret is text, without NUL characters and lone surrogates.", field="value")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise TooLarge(f"A secret has at most {MAX_VALUE_BYTES} bytes.", field="value", limit=MAX_VALUE_BYTES)
