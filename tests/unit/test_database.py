"""The wall in the database: a session of one tenant reads, changes and writes that tenant's rows and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased
from sqlmodel import col, select

from config import kept
from config.database import ROWS_BY_KEY, Database, ForeignRow
from rag.corpus import Collection, SpaceRow
from tenants.tables import BudgetWindow
from tests.postgresql import ON_SQLITE
from tests.support import FakeScope

A, B = FakeScope("a"), FakeScope("b")
Read = Callable[[Session], Any]
Row = tuple[str, str, str, int]


def _row(**changes: Any) -> dict[str, Any]:
    row = {"id": "new", "tenant_id": "a", "name": "new", "space_id": "sp", "placement": "shared", "generation": 0}
    return row | {"created_at": 0} | changes


@pytest.fixture
def filled(database: Database) -> Database:
    """Two collections and a budget window of each of two tenants."""
    with database.system_write() as session:
        session.add(SpaceRow(id="sp", dimensions=1, description={}, created_at=0))
        session.flush()
        session.add_all([Collection(**_row(id=f"{t}{i}", tenant_id=t, name=f"n{i}")) for t in "ab" for i in range(2)])
        session.add_all([BudgetWindow(tenant_id=t, kind="embedding", period="m", used=n) for t, n in (("a", 1), ("b", 2))])
    return database


def _everything(database: Database) -> list[Row]:
    with database.system_read() as session:
        return sorted((row.id, row.tenant_id, row.name, row.generation) for row in session.scalars(select(Collection)))


C, W = Collection, BudgetWindow
_ROWS: sa.Table = C.__table__  # type: ignore[attr-defined]
_INSERT = sa.insert(_ROWS)
_other = aliased(Collection)
_BY_KEY = select(col(C.id)).where(col(C.id).in_(sa.bindparam("ids", expanding=True))).execution_options(**ROWS_BY_KEY)
_RENAMED = sa.update(C).where(col(C.id) == sa.bindparam("which")).values(generation=sa.bindparam("number"))
READS: dict[str, tuple[Read, Read]] = {
    "entities": (lambda s: [row.id for row in s.scalars(select(C))], lambda t: [f"{t}0", f"{t}1"]),
    "columns": (lambda s: [*s.scalars(select(col(C.id)))], lambda t: [f"{t}0", f"{t}1"]),
    "get": (lambda s: [row.id for i in ("a0", "b0") if (row := s.get(C, i))], lambda t: [f"{t}0"]),
    "get by composite key": (
        lambda s: [row.used for t in "ab" if (row := s.get(BudgetWindow, (t, "embedding", "m")))],
        lambda t: [{"a": 1, "b": 2}[t]],
    ),
    "count": (lambda s: s.scalar(sa.select(sa.func.count()).select_from(C)), lambda _: 2),
    "sum": (lambda s: s.scalar(sa.select(sa.func.sum(col(BudgetWindow.used)))), lambda t: {"a": 1, "b": 2}[t]),
    "alias": (lambda s: [*s.scalars(select(col(_other.id)))], lambda t: [f"{t}0", f"{t}1"]),
    "join": (
        lambda s: sorted(s.execute(select(col(C.id), col(_other.id)).join(_other, col(_other.name) == col(C.name))).all()),
        lambda t: [(f"{t}0", f"{t}0"), (f"{t}1", f"{t}1")],
    ),
    "outer join": (
        lambda s: s.execute(
            select(col(C.id), col(BudgetWindow.used)).outerjoin(BudgetWindow, col(BudgetWindow.period) == "m")
        ).all(),
        lambda t: [(f"{t}{i}", {"a": 1, "b": 2}[t]) for i in range(2)],
    ),
    "subquery": (
        lambda s: [*s.scalars(select(sa.select(col(C.id)).subquery().c.id))],
        lambda t: [f"{t}0", f"{t}1"],
    ),
    "cte": (lambda s: [*s.scalars(select(sa.select(col(C.id)).cte().c.id))], lambda t: [f"{t}0", f"{t}1"]),
    "scalar subquery": (
        lambda s: s.scalar(sa.select(sa.select(sa.func.count(col(C.id))).scalar_subquery())),
        lambda _: 2,
    ),
    "in subquery": (
        lambda s: [*s.scalars(select(col(C.name)).where(col(C.id).in_(select(col(_other.id)))))],
        lambda _: ["n0", "n1"],
    ),
    "exists": (
        lambda s: [bool(s.scalar(sa.select(sa.exists(select(col(C.id)).where(col(C.id) == i))))) for i in ("a0", "b0")],
        lambda t: [t == "a", t == "b"],
    ),
    "correlated exists": (
        lambda s: [
            *s.scalars(select(col(BudgetWindow.tenant_id)).where(sa.exists().where(col(C.id) == "b0"))),
        ],
        lambda t: ["b"] if t == "b" else [],
    ),
    "union": (
        lambda s: sorted(s.scalars(sa.union(select(col(C.id)), select(col(_other.id))))),
        lambda t: [f"{t}0", f"{t}1"],
    ),
    "legacy query": (lambda s: [row.id for row in s.query(C).order_by(C.id)], lambda t: [f"{t}0", f"{t}1"]),
    "rows by key": (lambda s: [*s.scalars(_BY_KEY, {"ids": ["a0", "a1", "b0", "b1"]})], lambda t: [f"{t}0", f"{t}1"]),
    "parameter of the wall's name": (
        lambda s: [*s.scalars(select(col(C.id)), {"carrel_tenant": "b"})],
        lambda t: [f"{t}0", f"{t}1"],
    ),
    "refresh": (lambda s: (s.refresh(row := s.scalars(select(C)).first()), row.id)[1], lambda t: f"{t}0"),
}


@pytest.mark.parametrize("name", READS)
def test_a_bound_session_reads_its_own_rows_only(filled: Database, name: str) -> None:
    read, expected = READS[name]
    for scope in (A, B, A):  # statements are cached: the condition must not be
        with filled.read(scope) as session:
            assert read(session) == expected(scope.tenant_id)


WRITES: dict[str, tuple[Read, Callable[[Row], Row | None]]] = {
    "update": (
        lambda s: s.execute(sa.update(C).values(generation=9)),
        lambda row: (*row[:3], 9),
    ),
    "update by id": (
        lambda s: s.execute(sa.update(C).where(col(C.id).in_(["a0", "b0"])).values(generation=9)),
        lambda row: (*row[:3], 9) if row[0] == "a0" else row,
    ),
    "update with parameters": (
        lambda s: [s.execute(_RENAMED, {"which": i, "number": 9}) for i in ("a0", "b0")],
        lambda row: (*row[:3], 9) if row[0] == "a0" else row,
    ),
    "delete": (lambda s: s.execute(sa.delete(C)), lambda _: None),
    "delete by subquery": (
        lambda s: s.execute(
            sa.delete(C).where(col(C.id).in_(select(col(_other.id)))), execution_options={"synchronize_session": False}
        ),
        lambda _: None,
    ),
    "attribute": (
        lambda s: [setattr(row, "generation", 9) for row in s.scalars(select(C))],
        lambda row: (*row[:3], 9),
    ),
    "delete of an object": (lambda s: [s.delete(row) for row in s.scalars(select(C))], lambda _: None),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_bound_session_changes_its_own_rows_only(filled: Database, name: str) -> None:
    write, changed = WRITES[name]
    before = _everything(filled)
    with filled.write(A) as session:
        write(session)
    after = [row if row[1] != "a" else changed(row) for row in before]
    assert _everything(filled) == [row for row in after if row is not None]


def _insert(s: Session) -> Any:
    return (postgresql.insert if s.get_bind().dialect.name == "postgresql" else sqlite.insert)(C)


def _added(s: Session, *rows: dict[str, Any]) -> None:
    s.add_all([Collection(**row) for row in rows])


_FOREIGN = _row(id="foreign", name="foreign", tenant_id="b")
FORBIDDEN: dict[str, Read] = {
    "add": lambda s: _added(s, _row(), _FOREIGN),
    "flush": lambda s: (_added(s, _FOREIGN), s.flush()),
    "merge": lambda s: s.merge(Collection(**_row(id="b0", tenant_id="b"))),
    "giving away": lambda s: setattr(s.get(C, "a0"), "tenant_id", "b"),
    "insert": lambda s: s.execute(sa.insert(C).values(**_FOREIGN)),
    "bulk insert": lambda s: s.execute(sa.insert(C), [_row(), _FOREIGN]),
    "multi-row insert": lambda s: s.execute(sa.insert(C).values([_row(), _FOREIGN])),
    "insert without a tenant": lambda s: s.execute(sa.insert(C).values(id="x", name="x")),
    "insert from select": lambda s: s.execute(
        sa.insert(BudgetWindow).from_select(["tenant_id", "period"], sa.select(sa.literal("b"), sa.literal("x")))
    ),
    "own values, foreign parameters": lambda s: s.execute(sa.insert(C).values(tenant_id="a"), [_FOREIGN]),
    "insert or nothing": lambda s: s.execute(_insert(s).values(**_FOREIGN).on_conflict_do_nothing()),
    "upsert onto a foreign key": lambda s: s.execute(
        _insert(s).values(**_row(id="b0")).on_conflict_do_update(index_elements=["id"], set_={"name": "stolen"})
    ),
    "update that gives away": lambda s: s.execute(sa.update(C).values(tenant_id="b")),
    "update by primary keys": lambda s: s.execute(sa.update(C), [{"id": "b0", "name": "stolen"}]),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(C, [_FOREIGN]),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(C, [{"id": "b0", "name": "stolen"}]),
    "bulk_save_objects": lambda s: s.bulk_save_objects([Collection(**_FOREIGN)]),
    "table select": lambda s: s.execute(sa.select(C.__table__)),
    "table update": lambda s: s.execute(sa.update(C.__table__).values(generation=9)),
    "table delete": lambda s: s.execute(sa.delete(C.__table__)),
    "table insert": lambda s: s.execute(sa.insert(C.__table__).values(**_FOREIGN)),
    "text": lambda s: s.execute(sa.text("SELECT * FROM collections")),
    "kept insert": lambda s: kept.execute(s, _INSERT, _FOREIGN),
    "kept insert without a tenant": lambda s: kept.execute(s, _INSERT, {"id": "x", "name": "x"}),
    "kept insert of values": lambda s: kept.execute(s, _INSERT.values(**_FOREIGN), {"tenant_id": "a"}),
    "kept insert from select": lambda s: kept.execute(
        s, sa.insert(W).from_select(["tenant_id", "period"], sa.select(sa.literal("b"), sa.literal("x"))), {"tenant_id": "a"}
    ),
    "kept upsert": lambda s: kept.execute(
        s, _insert(s).on_conflict_do_update(index_elements=["id"], set_={"name": "stolen"}), _row(id="b0")
    ),
    "kept update that gives away": lambda s: kept.execute(s, sa.update(_ROWS).values(tenant_id="b"), {}),
    "kept update that gives away by its parameter": lambda s: kept.execute(s, sa.update(_ROWS), {"tenant_id": "b"}),
    "kept update from another table": lambda s: kept.execute(
        s, sa.update(_ROWS).values(generation=sa.select(sa.func.max(W.__table__.c.used)).scalar_subquery()), {}
    ),
    "kept update of nobody's table": lambda s: kept.execute(s, sa.update(SpaceRow.__table__).values(dimensions=2), {}),
}


def test_a_kept_update_reaches_its_own_rows_only(filled: Database) -> None:
    every = sa.update(_ROWS).values(generation=_ROWS.c.generation + sa.bindparam("more")).returning(_ROWS.c.id)
    for scope, more in ((A, 1), (B, 20)):
        with filled.write(scope) as session:
            session.add(Collection(**_row(id=f"{scope.tenant_id}2", tenant_id=scope.tenant_id)))  # is written before
            found = {row.id for row in kept.execute(session, every, {"more": more})}
        assert found == {f"{scope.tenant_id}{number}" for number in range(3)}
    with filled.write(A) as session:
        kept.execute(session, _INSERT, _row(name="kept"))
    with filled.system_write() as session:  # bound to nobody
        assert len(kept.execute(session, every, {"more": 300}).all()) == 7
    numbers = {row[0]: row[3] for row in _everything(filled)}
    assert numbers == dict.fromkeys(("a0", "a1", "a2"), 301) | dict.fromkeys(("b0", "b1", "b2"), 320) | {"new": 300}


def _change_and(database: Database, then: Read) -> None:
    """A transaction that changes a row of its own first."""
    with database.write(A) as session:
        session.execute(sa.update(C).where(col(C.id) == "a1").values(generation=7))
        then(session)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_could_reach_another_tenant_is_refused_and_leaves_nothing(filled: Database, name: str) -> None:
    before = _everything(filled)
    with pytest.raises(ForeignRow):
        _change_and(filled, FORBIDDEN[name])
    assert _everything(filled) == before


def test_a_bound_session_adds_its_own_rows(filled: Database) -> None:
    with filled.write(A) as session:
        session.add(Collection(**_row()))
        session.execute(sa.insert(C).values(**_row(id="core", name="core")))
        session.execute(sa.insert(C), [_row(id="bulk 1", name="bulk 1"), _row(id="bulk 2", name="bulk 2")])
        session.execute(_insert(session).values(**_row(id="core", name="other")).on_conflict_do_nothing())
    new = {(row[0], row[1]) for row in _everything(filled)} - {("a0", "a"), ("a1", "a"), ("b0", "b"), ("b1", "b")}
    assert new == {("new", "a"), ("core", "a"), ("bulk 1", "a"), ("bulk 2", "a")}


def test_a_system_session_sees_and_writes_all(filled: Database) -> None:
    with filled.system_write() as session:
        session.execute(sa.update(C).values(generation=5))
    with filled.system_read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(C).where(col(C.generation) == 5)) == 4


def test_an_exception_rolls_the_whole_block_back(filled: Database) -> None:
    before = _everything(filled)
    with pytest.raises(ZeroDivisionError):
        _change_and(filled, lambda _: 1 // 0)
    assert _everything(filled) == before


def test_a_read_session_keeps_no_write(filled: Database) -> None:
    before = _everything(filled)
    with filled.read(A) as session:
        session.execute(sa.delete(C))
    assert _everything(filled) == before


def test_foreign_keys_are_kept(filled: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        with filled.write(A) as session:
            session.add(Collection(**_row(space_id="unknown")))


@ON_SQLITE
def test_sqlite_waits_for_its_writer(filled: Database) -> None:
    with filled.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert int(connection.exec_driver_sql("PRAGMA busy_timeout").scalar()) > 0


def test_rows_found_by_their_keys_are_not_searched_for_among_all_of_the_tenant(filled: Database) -> None:
    if filled.is_postgresql:
        pytest.skip("PostgreSQL plans by what the tables hold")
    asked: list[tuple[str, Any]] = []
    with filled.read(A) as session:
        sa.event.listen(session.connection(), "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
        session.execute(_BY_KEY, {"ids": ["a0"]})
        statement, parameters = asked[0]
        plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert "(id=?)" in plan[0].detail
