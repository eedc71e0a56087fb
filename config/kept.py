"""Statements that a module keeps because requests execute them again and again, without the object mapper, which takes twice
as long for a change as the statement itself. The wall between tenants is the same (`config.database`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql import visitors

from config.database import UPSERTS, ForeignRow

#: Has no value of its own: a statement that runs without one is refused.
_TENANT = sa.bindparam("carrel_tenant", type_=sa.String())
_confined: WeakKeyDictionary[sa.Insert | sa.Update, sa.Insert | sa.Update] = WeakKeyDictionary()


def execute(session: Session, statement: sa.Insert | sa.Update, given: Mapping[str, Any]) -> sa.CursorResult[Any]:
    """An insert of one row into a tenant's table, all columns given, or an update of that table alone."""
    tenant_id = session.info["tenant_id"]
    session.flush()
    if tenant_id is None:
        return session.connection().execute(statement, given)
    confined = _confined.get(statement)
    if confined is None:
        confined = _confined[statement] = _confine(statement)
    if isinstance(statement, sa.Insert):
        if given.get("tenant_id") != tenant_id:
            raise ForeignRow(f"a row of another tenant was inserted into {statement.table.name}")
        return session.connection().execute(confined, given)
    if "tenant_id" in given:
        raise ForeignRow("an update that would give rows away")
    return session.connection().execute(confined, {**given, _TENANT.key: tenant_id})


def _confine(statement: sa.Insert | sa.Update) -> sa.Insert | sa.Update:
    """Once for each: what it says beside its parameters cannot change."""
    table = statement.table
    if not isinstance(table, sa.Table) or "tenant_id" not in table.c:
        raise ForeignRow("only statements on tenants' tables can be confined to a tenant")
    if any(isinstance(part, sa.SelectBase | sa.Table) and part is not table for part in visitors.iterate(statement)):
        raise ForeignRow("a statement that reads other tables cannot be confined to a tenant here")
    if isinstance(statement, sa.Insert):
        if isinstance(getattr(statement, "_post_values_clause", None), UPSERTS):
            raise ForeignRow("an upsert could change the row of another tenant that has the same key")
        if statement._values or statement._multi_values or statement.select is not None:
            raise ForeignRow("a row that is inserted comes as parameters")
        return statement
    if "tenant_id" in {getattr(column, "key", column) for column in statement._values or {}}:
        raise ForeignRow("an update that would give rows away")
    return statement.where(table.c.tenant_id == _TENANT)
