"""Random calls that name another tenant's things learn nothing, change nothing and cost nothing."""

from __future__ import annotations

import pytest

from tests.isolation.probes import judge, probes
from tests.isolation.world import CONTENT, SEED, World


def _probe(world: World, count: int, seed: int) -> None:
    wrong = {str(probe): found for probe in probes(world, count, seed) if (found := judge(world, probe))}
    assert wrong == {}
    assert world.changed() == []


def test_a_thousand_probes_learn_nothing(world: World) -> None:
    _probe(world, 1_000, SEED)


def test_the_log_has_no_key_and_no_content(world: World) -> None:
    world.door.send("GET /v1/usage", {}, world.wrong_secret(world.members[0]))
    assert world.logged, "refusals are logged, so there is something to look at"
    secret = [credential.partition(" ")[2] for member in world.members for credential in member.credentials.values()]
    content = [word for kind in CONTENT for word in world.members[0].pool(kind)]
    lines = "\n".join(world.logged)
    assert [word for word in (*secret, *content) if word in lines] == []


@pytest.mark.full
def test_ten_thousand_probes_learn_nothing(world: World) -> None:
    _probe(world, 10_000, SEED + 1)
