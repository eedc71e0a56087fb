"""Tenants suspended, limited, imported and deleted, each beside another one that nothing happens to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel, col, select

from api.row_security import _rules
from config.clock import system_clock
from config.database import Database
from config.errors import CarrelError, Conflict, InvalidInput, NotFound, TenantSuspended, Unauthenticated
from config.plans import BUILT_IN
from ingestion.jobs.jobs import Jobs
from ingestion.removal import tenants as tenant_removal
from ingestion.removal.tenants import KEPT, TenantRemoval, owned_tables
from ingestion.repair.quotas import check_quotas
from rag.corpus import Collection, Document, DocumentVersion
from rag.store.memory import MemoryStore
from tenants.context import Scope
from tenants.deletions import Deletions
from tenants.identity.authenticator import Identifier
from tenants.identity.keys import KeyRing, key_id_of
from tenants.identity.tokens import TokenSigner, Wish
from tenants.importing import MAX_LINES, TenantImport
from tenants.ledger.policy import BudgetPolicy
from tenants.limits.overrides import Overrides
from tenants.limits.plans import LIMITS, MONTHLY, LimitsInForce, Plans
from tenants.registry import MAX_DETAILS, TenantRegistry
from tenants.standing import ACTIVE, Standing
from tenants.tables import Event, Tenant, TenantDeletion
from tests.audit_record import Record
from tests.unit.conftest import NOON, SetClock
from tests.world import TENANTS, World

ASH, ELM = TENANTS
PLANS = Plans(BUILT_IN, "enterprise")


@pytest.fixture
def registry(database: Database, clock: SetClock) -> TenantRegistry:
    return TenantRegistry(database, clock)


# --- suspension


def test_a_suspended_tenant_is_refused_from_the_next_look_on_and_another_is_not(
    database: Database, clock: SetClock, registry: TenantRegistry
) -> None:
    keys, tokens = KeyRing(database, clock), TokenSigner(b"k" * 32, clock)
    identifier = Identifier(database, keys, tokens, clock)
    mine, other = (keys.create(name, name="x", scopes=[Scope.QUERY]).secret for name in "ab")
    operator = keys.create(None, name="operator", scopes=[Scope.OPERATE])
    token = tokens.issue("a", key_id=operator.row.id, wish=Wish([Scope.QUERY], 60))[0]
    assert identifier.identify(mine).standing == ACTIVE
    registry.suspend("a", reads=True)
    for credential in (mine, token):
        standing = identifier.identify(credential).standing
        standing.require(reads=True)
        with pytest.raises(TenantSuspended):
            standing.require(reads=False)
    clock.now += 1
    registry.suspend("a", reads=False)
    with pytest.raises(TenantSuspended):
        identifier.identify(mine).standing.require(reads=True)
    assert identifier.identify(other).standing == ACTIVE
    clock.now += 1
    registry.resume("a")
    assert identifier.identify(mine).standing == ACTIVE == Standing()


def test_each_change_of_standing_is_an_event_and_moves_the_mark_that_others_look_at(
    database: Database, clock: SetClock, registry: TenantRegistry
) -> None:
    for number, step in enumerate((lambda: registry.suspend("a", reads=True), lambda: registry.resume("a")), 1):
        clock.now = NOON + number
        assert step().changed_at == NOON + number
        clock.now += 100
        assert step().changed_at == NOON + number  # what is so already changes nothing
    with database.system_read() as session:
        said = session.execute(select(col(Event.tenant_id), col(Event.type)).order_by(col(Event.seq))).all()
    assert [tuple(row) for row in said] == [("a", "tenant.suspended"), ("a", "tenant.resumed")]


# --- metadata and limits


@pytest.mark.parametrize(
    "metadata", [{f"k{n}": "x" for n in range(MAX_DETAILS + 1)}, {"": "x"}, {"a b": "x"}, {"k": "x" * 501}, {"k": "\0"}]
)
def test_metadata_is_bounded(registry: TenantRegistry, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        registry.update("a", {"metadata": metadata})
    assert refused.value.field == "metadata"
    assert registry.update("a", {"metadata": {"crm": "4711"}}).details == {"crm": "4711"}
    assert registry.get("b").details == {}


def test_an_override_holds_at_once_for_its_tenant_until_it_expires(
    database: Database, clock: SetClock, registry: TenantRegistry
) -> None:
    limits = LimitsInForce(database, clock, PLANS)
    overrides = Overrides(database, clock, limits)
    registry.update("a", {"plan": "starter"})
    assert limits.of("a").documents == 1_000
    overrides.put("a", "documents", 5, until=NOON + 50, reason="trial")
    assert (limits.of("a").documents, limits.of("b").documents) == (5, None)
    shown = {limit.name: limit for limit in overrides.show(registry.get("a")).limits}
    assert set(shown) == set(LIMITS)
    documents = shown["documents"]
    assert (documents.value, documents.of_plan, documents.source, documents.used) == (5, 1_000, "override", 0)
    assert (documents.until, documents.reason) == (NOON + 50, "trial")
    clock.now += 50
    assert limits.of("a").documents == 1_000
    overrides.put("a", "documents", None, until=None, reason="")
    assert limits.of("a").documents is None
    overrides.put("a", "documents", 7, until=clock.now + 50, reason="for a while")
    assert limits.of("a").documents == 7
    clock.now += 50
    [documents] = [limit for limit in overrides.show(registry.get("a")).limits if limit.name == "documents"]
    assert limits.of("a").documents is None, "what was set for good holds again"
    assert (documents.value, documents.source, documents.until) == (None, "override", None)
    overrides.remove("a", "documents")
    overrides.remove("a", "documents")
    assert limits.of("a").documents == 1_000
    for wrong in (lambda: overrides.remove("a", "plan"), lambda: overrides.put("a", "chunks", 1, until=NOON, reason="")):
        with pytest.raises(InvalidInput):
            wrong()
    for name in LIMITS:
        overrides.remove("a", name)


def test_monthly_tokens_that_would_never_hold_are_refused(
    database: Database, clock: SetClock, registry: TenantRegistry
) -> None:
    limits = LimitsInForce(database, clock, PLANS)
    overrides = Overrides(database, clock, limits)

    def set_to(tokens: int | None) -> int | None:
        registry.update("a", {"monthly_tokens": tokens})
        limits.forget("a")
        return limits.of("a").embedding_tokens_month

    overrides.put("a", MONTHLY, 7, until=NOON + 50, reason="for a while")
    assert set_to(5) == 7
    clock.now += 50
    assert limits.of("a").embedding_tokens_month == 5, "an override that ends leaves it standing"
    for until in (None, clock.now + 50):  # for good, and under one that ends
        overrides.put("a", MONTHLY, 9 if until is None else 8, until=until, reason="")
        for tokens in (6, None):
            with pytest.raises(Conflict) as refused:
                set_to(tokens)
            assert refused.value.field == "monthly_tokens"
    registry.update("a", {"plan": "starter", "monthly_tokens": 5})  # what is so already
    assert registry.update("b", {"monthly_tokens": 6}).monthly_tokens == 6
    assert set_to(9) == 8, "it is what holds then"
    overrides.remove("a", MONTHLY)
    assert set_to(6) == 6


# --- import


TABLE = """name,plan,monthly_tokens,metadata.crm
oak,starter,5,4711
pine,,unlimited,
Bad Name,starter,,
fir,nowhere,,
yew,,many,
"""


def test_a_table_makes_tenants_line_by_line_and_sent_again_changes_nothing(registry: TenantRegistry) -> None:
    importing = TenantImport(registry, PLANS, monthly_tokens=9)
    first, again = importing.run(TABLE), importing.run("\ufeff" + TABLE.replace("\n", "\r\n"))
    assert [(one.line, one.status) for one in first] == [
        (2, "created"), (3, "created"), (4, "refused"), (5, "refused"), (6, "refused"),
    ]  # fmt: skip
    assert [one.refusal and one.refusal.field for one in first[2:]] == ["name", "plan", "monthly_tokens"]
    assert [one.status for one in again] == ["unchanged", "unchanged", "refused", "refused", "refused"]
    oak, pine = registry.get("oak"), registry.get("pine")
    assert (oak.plan, oak.monthly_tokens, oak.details) == ("starter", 5, {"crm": "4711"})
    assert (pine.plan, pine.monthly_tokens) == (None, None)
    [updated] = importing.run("name,metadata.region\noak,north\n")
    assert (updated.status, updated.tenant_id) == ("updated", oak.id)
    assert registry.get("oak").details == {"crm": "4711", "region": "north"}
    assert registry.get("b").changed_at == 0
    wrong = importing.run("name,monthly_tokens\n" + "".join(f"oak,{'0' * 20}{'9' * more}\n" for more in (1, 21, 5_000)))
    assert [one.status for one in wrong] == ["refused"] * 3
    [created] = importing.run("name\nlarch\n")
    assert created.status == "created"
    assert registry.get("larch").monthly_tokens == 9


@pytest.mark.parametrize(
    "table",
    [
        "",
        "plan\nstarter\n",
        "name,name\na,b\n",
        "name,colour\na,b\n",
        "name\noak,pine\n",
        'name\n"oak',
        "name\n" + "x\n" * (MAX_LINES + 1),
    ],
)
def test_a_table_that_is_none_is_refused_before_anything_is_done(registry: TenantRegistry, table: str) -> None:
    before = registry.count()
    with pytest.raises(InvalidInput) as refused:
        TenantImport(registry, PLANS, monthly_tokens=None).run(table)
    assert refused.value.field == "csv"
    assert registry.count() == before


# --- deletion


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    yield world
    world.close()


def _removal(world: World, **options: Any) -> TenantRemoval:
    parts = world.database, system_clock, world.registry, world.blobs, world.store, world.embedding, world.collector
    return TenantRemoval(*parts, **{"grace_ms": 0} | options)


def _everything(world: World, name: str) -> None:
    """A row in every table that has none of the tenant's yet, beside what a life leaves."""
    owner = world.contexts[name].tenant_id
    with world.database.system_write() as session:
        connection = session.connection()
        for table in reversed([*owned_tables(), SQLModel.metadata.tables["audit_entries"]]):
            count = sa.select(sa.func.count()).select_from(table).where(table.c.tenant_id == owner)
            if not connection.scalar(count):
                connection.execute(sa.insert(table), _row(connection, table, owner))


def _row(connection: sa.Connection, table: sa.Table, owner: str) -> dict[str, object]:
    kinds = {sa.LargeBinary: b"x", sa.Boolean: False, sa.Integer: 1, sa.BigInteger: 1, sa.Float: 1.0, sa.JSON: {}}
    row: dict[str, object] = {}
    for column in table.columns:
        row[column.name] = next((value for kind, value in kinds.items() if isinstance(column.type, kind)), f"{owner}-x")
        for key in column.foreign_keys:
            own = sa.select(key.column).where(key.column.table.c.tenant_id == owner)
            row[column.name] = connection.scalar(own.limit(1))
    return row | {"tenant_id": owner}


def _rows(world: World, name: str) -> tuple[object, ...]:
    """Everything of a tenant, in SQL and in the engine."""
    owner = world.contexts[name].tenant_id
    with world.database.system_read() as session:
        rows = {
            table.name: sorted(map(str, session.connection().execute(sa.select(table).where(table.c.tenant_id == owner))))
            for table in owned_tables()
        }
    return rows, world.vectors(name).page(None, 2000)


def _left(world: World, owner: str) -> dict[str, int]:
    """Rows that name the tenant, in whatever table there is."""
    found = {}
    with world.database.system_read() as session:
        for name, (_, column) in _rules().items():
            if column is not None and name not in KEPT:
                table = SQLModel.metadata.tables[name]
                count = sa.select(sa.func.count()).select_from(table).where(table.c[column] == owner)
                found[name] = session.connection().scalar(count) or 0
    return {name: count for name, count in found.items() if count}


def _done(world: World, deletion: TenantDeletion) -> TenantDeletion:
    removal = _removal(world)
    for _ in range(10):
        removal.run_once()
        world.run_jobs()
        if (row := Deletions(world.database, system_clock).get(deletion.id)).state == "done":
            return row
    raise AssertionError(f"it is not done: {row}")


def test_of_a_deleted_tenant_nothing_is_left_in_any_table_and_of_another_everything(world: World) -> None:
    world.fill()
    for name in TENANTS:
        _everything(world, name)
    ash, before = world.contexts[ASH].tenant_id, _rows(world, ELM)
    files = {path.name for path in (world.folder / "blobs").glob("??/*")}
    assert set(_left(world, ash)) == {name for name, (_, column) in _rules().items() if column and name not in KEPT}
    deletion = Deletions(world.database, system_clock).request(ash)
    assert Deletions(world.database, system_clock).request(ash).id == deletion.id
    receipt = _done(world, deletion)
    assert _left(world, ash) == {}
    assert world.vectors(ASH).count() == 0
    assert (receipt.name, receipt.step, set(receipt.after.values())) == (ASH, "removed", {0})
    assert receipt.before.keys() <= receipt.after.keys()
    assert {"points", "blobs", "documents", "api_keys", "audit_entries"} & {
        name for name, count in receipt.before.items() if count
    } == {"points", "blobs", "documents", "api_keys"}
    assert world.files() < files
    assert _rows(world, ELM) == before
    with world.database.system_read() as session:
        audit = sa.select(sa.func.count()).select_from(SQLModel.metadata.tables["audit_entries"])
        assert session.connection().scalar(audit) == 2
    world.registry.create(ASH, monthly_tokens=None)  # the name is free


def test_a_deleted_tenants_record_is_verifiable_until_it_ends_by_age(world: World, clock: SetClock) -> None:
    ash, elm = (world.contexts[name].tenant_id for name in TENANTS)
    record = Record(world.database, clock)
    for owner in (ash, elm):
        record.fill(owner, 2)
    deletion = Deletions(world.database, clock).request(ash)
    _done(world, deletion)
    assert Deletions(world.database, clock).of(ash) == Deletions(world.database, clock).get(deletion.id)
    assert Deletions(world.database, clock).of(elm) is None
    record.fill(ash, 1, first=2)  # of a request that was under way
    for owner, entries in ((ash, 3), (elm, 2)):
        report = record.verified(owner)
        assert (report.findings, report.entries, report.through) == ([], entries, entries)
    assert _left(world, ash) == {}, "no sums by hour either"
    clock.now += 40 * 24 * 3_600_000
    assert record.sealer.purge() == 5
    assert [record.rows(owner) for owner in (ash, elm)] == [[], []]


def test_a_tenant_that_is_being_deleted_is_let_in_nowhere(world: World) -> None:
    keys, tokens = KeyRing(world.database, system_clock), TokenSigner(b"k" * 32, system_clock)
    identifier, ash = Identifier(world.database, keys, tokens), world.contexts[ASH].tenant_id
    key = keys.create(ash, name="x", scopes=[Scope.QUERY]).secret
    operator = keys.create(None, name="operator", scopes=[Scope.OPERATE])
    token = tokens.issue(ash, key_id=operator.row.id, wish=Wish([Scope.QUERY], 60))[0]
    deletion = Deletions(world.database, system_clock).request(ash)
    for credential in (key, token):
        with pytest.raises(Unauthenticated):
            identifier.identify(credential)
    with pytest.raises(CarrelError):
        world.bring(ASH, "late", "oak pine")
    budgets = BudgetPolicy(world.database, system_clock, LimitsInForce(world.database, system_clock, PLANS))
    changes: list[Callable[[], object]] = [
        lambda: world.registry.suspend(ash, reads=True),
        lambda: world.registry.update(ash, {"plan": None}),
        lambda: keys.create(ash, name="y", scopes=[Scope.QUERY]),
        lambda: keys.rotate(key_id_of(key), overlap_s=0),
        lambda: budgets.change(ash, "llm", "day", {"tokens": 1}),
    ]
    for change in changes:
        with pytest.raises(Conflict):
            change()
    world.bring(ELM, "mine", "oak pine")
    _done(world, deletion)
    with pytest.raises(NotFound):
        world.registry.get(ash)
    with pytest.raises(NotFound):
        Deletions(world.database, system_clock).request(ash)


def test_jobs_under_way_end_before_the_last_rows_go(world: World) -> None:
    world.fill()
    world.bring(ASH, "waits", "oak pine")
    deletion = Deletions(world.database, system_clock).request(world.contexts[ASH].tenant_id)
    removal = _removal(world)
    for _ in range(3):
        removal.run_once()
    state = Deletions(world.database, system_clock).get(deletion.id)
    assert (state.state, state.step) == ("running", "emptied")
    assert world.all(ASH, Document) == []
    assert len(world.all(ASH, Collection)) == 1  # its jobs look there
    world.run_jobs()
    _done(world, deletion)
    assert _left(world, world.contexts[ASH].tenant_id) == {}


def test_nothing_is_final_before_requests_that_were_let_in_have_ended(world: World) -> None:
    deletion = Deletions(world.database, system_clock).request(world.contexts[ASH].tenant_id)
    _removal(world, grace_ms=3_600_000).run_once()
    assert Deletions(world.database, system_clock).get(deletion.id).state == "running"


class Killed(BaseException):
    """In the place of a `kill -9`: nothing catches it."""


def test_killed_between_any_two_steps_it_goes_on_and_ends_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first, the second, … transaction of the removal, until one run has none left to die at."""
    monkeypatch.setattr(tenant_removal, "PAGE", 1)
    world.documents.collections.for_tenant(world.contexts[ASH]).ensure_default()
    collections = world.documents.collections.for_tenant(world.contexts[ASH])
    collections.update("default", near_duplicates="link")
    text = "oak pine elm ash " * 40
    for number in range(3):
        world.bring(ASH, f"d{number}", text)  # linked to the first
        world.run_jobs()
    _everything(world, ASH)
    world.bring(ELM, "mine", "oak pine")
    world.run_jobs()
    before = _rows(world, ELM)
    deletion = Deletions(world.database, system_clock).request(world.contexts[ASH].tenant_id)
    deaths = 0
    while Deletions(world.database, system_clock).get(deletion.id).state != "done":
        died = _run_until_its(world, deaths + 1, monkeypatch)
        deaths += died
        world.run_jobs()
        assert deaths < 200
    assert deaths > 5
    assert _left(world, world.contexts[ASH].tenant_id) == {}
    assert set(Deletions(world.database, system_clock).get(deletion.id).after.values()) == {0}
    assert _rows(world, ELM) == before


def _run_until_its(world: World, number: int, patch: pytest.MonkeyPatch) -> bool:
    """Let it die right after its n-th transaction; return whether it came so far."""
    left, real = [number], Database.system_write

    def counted(database: Database) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(database)

    with patch.context() as inside:
        inside.setattr(Database, "system_write", counted)
        try:
            _removal(world).run_once()
        except Killed:
            return True
    return False


def test_a_deletion_that_fails_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.fill()
    deletions = Deletions(world.database, system_clock)
    first, second = (deletions.request(world.contexts[name].tenant_id) for name in TENANTS)
    world.run_jobs()
    delete, of_first = world.blobs.delete_owned, {version.id for version in world.all(ASH, DocumentVersion)}

    def broken(owner: str) -> None:
        if owner in of_first:
            raise PermissionError(owner)
        delete(owner)

    with monkeypatch.context() as disk:
        disk.setattr(world.blobs, "delete_owned", broken)
        _done(world, second)
        assert deletions.get(first.id).state == "running"
    _done(world, first)


def test_a_deletion_that_waits_leaves_the_others_counts_alone(world: World) -> None:
    world.fill()
    Deletions(world.database, system_clock).request(world.contexts[ASH].tenant_id)
    removal = _removal(world, grace_ms=3_600_000)
    removal.run_once()
    for name in TENANTS:
        assert [*check_quotas(world.parts(world.store), world.contexts[name], repair=False)] == []
    jobs = Jobs(world.database, system_clock, world.queue).for_tenant(world.contexts[ELM])
    assert {job.state for job in jobs.list(limit=100)[0]} == {"succeeded"}
    with world.database.system_read() as session:
        assert session.get_one(Tenant, world.contexts[ELM].tenant_id).deleted_at is None
