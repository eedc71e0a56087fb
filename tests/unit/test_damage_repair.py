"""Each kind of damage: a quick look finds it, a whole one says whose it is, a repair mends it and touches nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.database import Database
from ingestion.repair import accounts, jobs
from ingestion.repair.parts import Parts
from ingestion.repair.report import Report
from rag.corpus import Document
from rag.store.memory import MemoryStore
from tenants.context import TenantContext
from tests.world import DAMAGES, Damage, World

POSTGRESQL_DAILY = False  # tests/properties/test_repair.py does sequences of these damages there


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    world.fill()
    yield world
    world.close()


def _found(report: Report) -> set[tuple[str, str | None, bool]]:
    return {(finding.kind, finding.tenant_id, finding.repaired) for finding in report.findings}


@pytest.mark.parametrize("victim", ["ash", pytest.param("elm", marks=pytest.mark.full)])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found_and_mended_and_the_other_tenant_is_untouched(world: World, damage: Damage, victim: str) -> None:
    tenant_id, [other] = world.contexts[victim].tenant_id, [name for name in world.contexts if name != victim]
    answers, others = world.answer(victim), world.rows(other)
    points = world.vectors(other).page(None, 100)
    damage.do(world, victim)
    damaged = world.snapshot(victim)
    assert {finding.kind for finding in world.reconciler.check(repair=False, quick=True).findings} == damage.kinds
    owner = tenant_id if damage.owned else None
    found = world.reconciler.check(repair=False)
    assert _found(found) == {(kind, owner, False) for kind in damage.kinds}
    assert not found.whole
    assert world.snapshot(victim) == damaged
    mended = world.reconciler.check(repair=True)
    assert _found(mended) == {(kind, owner, True) for kind in damage.kinds}
    assert mended.whole
    assert world.reconciler.check(repair=False).findings == []
    assert world.answer(victim) == answers
    assert world.rows(other) == others
    assert world.vectors(other).page(None, 100) == points
    world.check_invariants()


@pytest.mark.parametrize(
    ("kind", "module", "step"), [("remains", jobs, "being_collected"), ("live_version", accounts, "_set_live")]
)
def test_what_is_deleted_while_it_is_mended_ends_no_repair(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str, module: Any, step: str
) -> None:
    damage = next(damage for damage in DAMAGES if damage.kinds == {kind})
    others, taken = world.rows("elm"), getattr(module, step)
    damage.do(world, "ash")

    def meanwhile(*arguments: Any) -> Any:
        document_id = arguments[2]
        world.of("ash").delete(document_id)
        world.run_jobs()
        assert document_id not in {document.id for document in world.all("ash", Document)}
        return taken(*arguments)

    with monkeypatch.context() as late:
        late.setattr(module, step, meanwhile)
        world.reconciler.check(repair=True)
    assert world.reconciler.check(repair=True).whole
    assert world.rows("elm") == others


def test_what_a_job_collects_while_it_is_looked_at_is_no_damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    damage = next(damage for damage in DAMAGES if damage.kinds == {"remains"})
    others = world.rows("elm")
    damage.do(world, "ash")

    def collected(parts: Parts, context: TenantContext, document_id: str) -> bool:
        [document] = [each for each in world.all("ash", Document) if each.id == document_id]
        parts.collector.collect(context, document.collection_id, document_id, None)
        return False  # its job has ended just now

    with monkeypatch.context() as late:
        late.setattr(jobs, "being_collected", collected)
        assert world.reconciler.check(repair=True).findings == []
    assert world.rows("elm") == others
    world.check_invariants()
