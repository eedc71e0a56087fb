"""The cache against a plain model of its shares, whatever tenants store, in whatever sizes, under whatever cap."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rag.embedding.cache import CHECKSUM_BYTES, CacheStats, DiskVectorCache
from rag.embedding.cache_shares import row_bytes
from rag.store.base import Space
from tests.support import FakeScope

TENANTS = [FakeScope(name, f"salt of {name}".encode()) for name in "abcd"]
SPACES = [Space(f"sp_{dimensions}", dimensions) for dimensions in (4, 384, 1024, 3072)]
CAPS = st.sampled_from([2_000, 9_000, 30_000, 100_000])
Row = tuple[Space, str]


class Shares(RuleBasedStateMachine):
    """Beside the cache: each tenant's rows, oldest first, with what they take."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="carrel-cache-"))
        self.rows: dict[FakeScope, dict[Row, int]] = {tenant: {} for tenant in TENANTS}

    @initialize(cap=CAPS)
    def open(self, cap: int) -> None:
        self.cap, self.cache = cap, DiskVectorCache(self.folder, max_bytes=cap)

    def teardown(self) -> None:
        self.cache.close()
        shutil.rmtree(self.folder)

    def size(self, tenant: FakeScope) -> int:
        return sum(self.rows[tenant].values())

    def evict(self) -> None:
        while sum(map(self.size, TENANTS)) > self.cap:
            sharing = [tenant for tenant in TENANTS if self.rows[tenant]]
            largest = max(sharing, key=self.size)
            # A tie is decided by the account's name in the file, which the model does not know: either may go.
            tied = [tenant for tenant in sharing if self.size(tenant) == self.size(largest)]
            assert self.size(largest) * len(sharing) > self.cap, "only who is over its share loses anything"
            tenant = next((one for one in tied if self.lost(one)), largest)
            self.rows[tenant].pop(next(iter(self.rows[tenant])))

    def lost(self, tenant: FakeScope) -> bool:
        return self.cache.stats(tenant).bytes < self.size(tenant)

    @rule(tenant=st.sampled_from(TENANTS), space=st.sampled_from(SPACES), names=st.sets(st.integers(0, 30), min_size=1))
    def put(self, tenant: FakeScope, space: Space, names: set[int]) -> None:
        texts = [str(name) for name in names]
        self.cache.put(tenant, space, {text: np.full(space.dimensions, 0.5, np.float32) for text in texts})
        for text in texts:
            self.rows[tenant].pop((space, text), None)
            self.rows[tenant][space, text] = row_bytes(CHECKSUM_BYTES + 2 * space.dimensions)
        self.evict()

    @rule(tenant=st.sampled_from(TENANTS))
    def forget(self, tenant: FakeScope) -> None:
        assert self.cache.forget(tenant) == len(self.rows[tenant])
        self.rows[tenant] = {}

    @rule(cap=CAPS)
    def open_again_with_another_cap(self, cap: int) -> None:
        self.cache.close()
        self.open(cap)

    @invariant()
    def the_cache_holds_exactly_what_the_model_holds(self) -> None:
        for tenant in TENANTS:
            assert self.cache.stats(tenant) == CacheStats(len(self.rows[tenant]), self.size(tenant))
            for space in SPACES:
                texts = [str(name) for name in range(31)]
                found = self.cache.get(tenant, space, texts)
                held = {text for text, vector in zip(texts, found, strict=True) if vector is not None}
                assert held == {text for kind, text in self.rows[tenant] if kind == space}


TestShares = Shares.TestCase
TestShares.settings = settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_larger_value_never_takes_less(small: int, more: int) -> None:
    assert small < row_bytes(small) <= row_bytes(small + more)
