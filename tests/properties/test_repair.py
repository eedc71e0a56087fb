"""Whatever is damaged, and however it adds up: after a repair everything agrees, and every answer is what it was."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from config.database import Database
from rag.store.memory import MemoryStore
from tests.postgresql import database_url
from tests.support import examples
from tests.world import DAMAGES, TENANTS, Damage, World

STEPS = st.tuples(st.sampled_from(TENANTS), st.sampled_from(DAMAGES))


SEQUENCES = st.lists(STEPS, min_size=1, max_size=8)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=SEQUENCES, quick=st.booleans())
def test_any_damage_is_mended_by_one_run(steps: list[tuple[str, Damage]], quick: bool) -> None:
    _mended("sqlite", steps, quick=quick)


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=SEQUENCES, quick=st.booleans())
def test_the_same_on_postgresql(steps: list[tuple[str, Damage]], quick: bool) -> None:
    """Fewer: a look at each folder of contents takes ten times as long there."""
    _mended("postgresql", steps, quick=quick)


def _mended(kind: str, steps: list[tuple[str, Damage]], *, quick: bool) -> None:
    folder = Path(tempfile.mkdtemp(prefix="carrel-repair-"))
    with database_url(kind, folder) as url:
        _damage_and_repair(Database(url, synchronous="off"), folder, steps, quick=quick)
    shutil.rmtree(folder)


def _damage_and_repair(database: Database, folder: Path, steps: list[tuple[str, Damage]], *, quick: bool) -> None:
    world = World(database, MemoryStore(), folder)
    try:
        world.fill()
        answers = {name: world.answer(name) for name in TENANTS}
        for name, damage in steps:
            damage.do(world, name)
        # A quick look counts: as many lost points as points of nothing would escape it.
        counted = {name for name, damage in steps if "point_without_chunk" in damage.kinds}
        world.reconciler.check(repair=True, quick=quick and not counted)
        world.check_invariants()
        assert world.reconciler.check(repair=False).findings == []
        assert {name: world.answer(name) for name in TENANTS} == answers
    finally:
        world.close()
        database.close()
