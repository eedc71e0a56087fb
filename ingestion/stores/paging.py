"""Lists as the OpenAI SDK pages them: by the ids of their objects, onwards and back.

Ids sort by their making. They are compared and not looked up, so a list goes on behind an object that is gone by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import SQLCoreOperations


@dataclass(frozen=True, slots=True)
class PageWish:
    limit: int = 20
    after: str | None = None  #: the id that the page follows in its order
    before: str | None = None  #: the id that it precedes
    descending: bool = True


def page_of(
    session: Session, statement: sa.Select[Any], key: SQLCoreOperations[str], wish: PageWish
) -> tuple[Sequence[Any], bool]:
    """The rows in the order that was wished, and whether there are more in the direction that was read."""
    after, before = (key.__lt__, key.__gt__) if wish.descending else (key.__gt__, key.__lt__)
    if wish.after is not None:
        statement = statement.where(after(wish.after))
    if wish.before is not None:
        statement = statement.where(before(wish.before))
    backwards = wish.before is not None and wish.after is None
    order = key.desc() if wish.descending != backwards else key.asc()
    rows = session.execute(statement.order_by(order).limit(wish.limit + 1)).all()
    found = rows[: wish.limit]
    return (found[::-1] if backwards else found), len(rows) > wish.limit
