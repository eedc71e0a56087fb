"""Plans: what is built in, what a file changes, and which limits hold for whom at a moment."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from config.database import Database
from config.errors import InvalidInput, NotFound, SetupError
from config.plans import BUILT_IN, MAX_PLANS, Plan, load_plans
from tenants.limits.plans import LIMITS, InForce, Limits, LimitsInForce, Plans, check_override
from tenants.tables import LimitOverride, Tenant
from tests.unit.conftest import NOON, SetClock


def _file(folder: Path, content: str) -> Path:
    file = folder / "plans.toml"
    file.write_text(content)
    return file


def _change(database: Database, tenant_id: str, **changes: Any) -> None:
    with database.system_write() as session:
        tenant = session.get_one(Tenant, tenant_id)
        session.add(tenant.sqlmodel_update(changes))


def _override(database: Database, tenant_id: str, name: str, value: Any, until: int | None = None) -> None:
    with database.system_write() as session:
        session.add(LimitOverride(tenant_id=tenant_id, name=name, value=json.dumps(value), until=until, created_at=NOON))


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    file = _file(tmp_path, '[starter]\ndocuments = 7\nsessions = "unlimited"\n[school]\nprofiles = ["standard"]\n')
    return Plans(load_plans(file, "enterprise"), "enterprise")


def test_limits_have_the_fields_of_a_plan_and_the_built_in_enterprise_limits_nothing() -> None:
    assert set(LIMITS) == set(Plan.model_fields)
    assert Plans(BUILT_IN, "enterprise").resolve(None, {}) == Limits("enterprise")
    defaults = {field.name: field.default for field in fields(Limits) if field.name != "plan"}
    assert defaults == BUILT_IN["enterprise"].model_dump()


def test_a_file_changes_built_in_plans_field_by_field_and_adds_others(plans: Plans) -> None:
    starter = plans.known["starter"]
    assert (starter.documents, starter.sessions) == (7, None)
    assert starter.chunks == BUILT_IN["starter"].chunks
    assert plans.known["school"] == Plan(profiles=("standard",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[starter]\ndocuments = -1\n", "`documents`"),
        ("[starter]\nfoo = 1\n", "`foo`"),
        ("documents = 1\n", "outside of any plan"),
        ("[Bad]\n", "'Bad'"),
        ("[a]\nprofiles = []\n", "`profiles`"),
        ("".join(f"[p{number}]\n" for number in range(MAX_PLANS)), f"at most {MAX_PLANS}"),
        ("[", "cannot be read"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        load_plans(_file(tmp_path, content), "enterprise")


def test_a_default_plan_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(SetupError, match="gold"):
        load_plans(None, "gold")


def test_overrides_hold_for_one_tenant_until_they_expire(database: Database, plans: Plans) -> None:
    _change(database, "a", plan="starter")
    _override(database, "a", "documents", 9, until=NOON + 10)
    _override(database, "a", "chunks", None)
    with database.system_read() as session:
        during, after = (plans.limits_of(session, "a", NOON + later) for later in (9, 10))
        other = plans.limits_of(session, "b", NOON)
        with pytest.raises(NotFound):
            plans.limits_of(session, "c", NOON)
    assert (during.plan, during.documents, after.documents) == ("starter", 9, 7)
    assert (during.chunks, after.chunks) == (None, None)
    assert other == Limits("enterprise")


def test_monthly_tokens_go_over_the_plan_and_an_override_over_them(database: Database, plans: Plans) -> None:
    _change(database, "a", plan="starter", monthly_tokens=5)
    with database.system_read() as session:
        assert plans.limits_of(session, "a", NOON).embedding_tokens_month == 5
    _override(database, "a", "embedding_tokens_month", 6)
    with database.system_read() as session:
        assert plans.limits_of(session, "a", NOON).embedding_tokens_month == 6


def test_a_plan_that_was_taken_out_of_the_file_is_the_default_one(plans: Plans) -> None:
    assert plans.resolve("gone", {}).plan == "enterprise"


def test_limits_are_kept_for_a_second_and_never_past_an_expiry(database: Database, plans: Plans, clock: SetClock) -> None:
    kept = LimitsInForce(database, clock, plans)
    _override(database, "a", "documents", 9, until=NOON + 300)
    assert (kept.of("a").documents, kept.of("b").documents) == (9, None)
    _change(database, "b", plan="starter")
    clock.now += 300
    assert kept.of("a").documents is None
    assert kept.of("b").documents is None  # known since 300 ms
    kept.forget("b")
    assert kept.of("b").documents == 7
    _change(database, "b", plan=None)
    clock.now += 1000
    assert kept.of("b").documents is None


def test_limits_that_were_read_before_a_change_are_not_kept_after_it(
    database: Database, plans: Plans, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, read = LimitsInForce(database, clock, plans, fresh_ms=60_000), Plans.in_force

    def overtaken(*args: Any) -> InForce:
        found = read(plans, *args)
        _change(database, "a", plan="starter")
        kept.forget("a")  # as whoever changes it does
        return found

    monkeypatch.setattr(plans, "in_force", overtaken, raising=False)
    assert kept.of("a").documents is None, "it had begun before"
    monkeypatch.undo()
    assert kept.of("a").documents == 7
    assert kept.of("b").documents is None
    _change(database, "b", plan="starter")
    kept.forget(None)
    assert kept.of("b").documents == 7


@pytest.mark.parametrize(("name", "value"), [("documents", -1), ("documents", "x"), ("plan", "x"), ("profiles", [])])
def test_an_override_says_what_a_plan_could_say(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput):
        check_override(name, value)
    assert check_override("documents", 3) == 3
    assert check_override("profiles", ["standard"]) == ["standard"]
    assert check_override("chunks", None) is None
