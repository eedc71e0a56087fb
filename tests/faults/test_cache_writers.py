"""Processes write to one embedding cache past its cap, or die while they do: shares hold, and nothing is half written."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from rag.embedding.cache import CHECKSUM_BYTES, DiskVectorCache
from rag.embedding.cache_shares import row_bytes
from tests.faults.cache_writer import BATCH, SPACE, scope, texts

ROW = row_bytes(CHECKSUM_BYTES + 2 * SPACE.dimensions)
BATCH_BYTES = BATCH * ROW


def _start(repository: Path, folder: Path, tenant: str, cap: int, first: int, batches: int) -> subprocess.Popen[str]:
    arguments = [str(part) for part in (folder, tenant, cap, first, batches)]
    command = [sys.executable, "-m", "tests.faults.cache_writer", *arguments]
    return subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ended(writer: subprocess.Popen[str]) -> tuple[str, int]:
    complaints = writer.communicate(timeout=100)[1].strip()
    return complaints, writer.returncode


def _kept(cache: DiskVectorCache, tenant: str, batch: int) -> int:
    return sum(vector is not None for vector in cache.get(scope(tenant), SPACE, texts(tenant, batch)))


def test_writers_at_once_keep_every_share_and_the_cap(tmp_path: Path, repository: Path) -> None:
    """Four tenants, room for 40 batches: ten are each one's own. Two of them bring a hundred."""
    folder, cap = tmp_path / "cache", 40 * BATCH_BYTES
    quiet = [("quiet", 0, 10), ("small", 0, 4)]
    for tenant, first, batches in quiet:
        assert _ended(_start(repository, folder, tenant, cap, first, batches)) == ("", 0)
    inode, openings = (folder / "cache.db").stat().st_ino, 0
    with ExitStack() as running:
        writers = [
            running.enter_context(_start(repository, folder, tenant, cap, first, batches))
            for tenant, first, batches in (("loud", 0, 100), ("louder", 0, 100), ("small", 4, 6))
        ]
        while any(writer.poll() is None for writer in writers):
            DiskVectorCache(folder, max_bytes=cap).close()  # a process that starts beside them takes the file for what it is
            openings += 1
        assert [_ended(writer) for writer in writers] == [("", 0)] * 3
    assert openings > 3
    assert (folder / "cache.db").stat().st_ino == inode

    with closing(DiskVectorCache(folder, max_bytes=cap)) as cache:
        for tenant in ("quiet", "small"):  # within their shares: nothing of theirs went
            assert [_kept(cache, tenant, batch) for batch in range(10)] == [BATCH] * 10
        sizes = {tenant: cache.stats(scope(tenant)).bytes for tenant in ("quiet", "small", "loud", "louder")}
        assert cap - ROW < sum(sizes.values()) <= cap
        assert abs(sizes["loud"] - sizes["louder"]) <= ROW, "what nobody uses is lent evenly to who asks"
        for tenant in ("loud", "louder"):  # and what they keep is what they stored last
            kept = [_kept(cache, tenant, batch) for batch in range(100)]
            assert sum(kept) * ROW == sizes[tenant]
            assert kept == sorted(kept)
    assert (folder / "cache.db").stat().st_size <= 1.05 * cap


def test_a_writer_killed_in_the_midst_leaves_whole_batches(tmp_path: Path, repository: Path) -> None:
    folder, cap, first = tmp_path / "cache", 30 * BATCH_BYTES, 0
    cut: set[int] = set()  # batches that were under way
    for lines in (1, 2, 9, 35, 50):  # the last ones die while others' rows make room
        with _start(repository, folder, "loud", cap, first, 10_000) as writer:
            if writer.stdout is None:
                raise AssertionError("its lines are read")
            begun = [int(writer.stdout.readline()) for _ in range(lines)]
            writer.kill()
            begun += [int(line) for line in writer.stdout]
        with closing(sqlite3.connect(folder / "cache.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        before = folder.joinpath("cache.db").stat().st_ino
        with closing(DiskVectorCache(folder, max_bytes=cap)) as cache:
            stats = cache.stats(scope("loud"))
            kept = [_kept(cache, "loud", batch) for batch in range(begun[-1] + 1)]
            assert folder.joinpath("cache.db").stat().st_ino == before, "the file was kept"
        assert stats.vectors == sum(kept)
        assert stats.bytes == stats.vectors * ROW <= cap
        cut.add(begun[-1])
        last = range(len(kept))[-20:]  # none of them had to make room yet
        assert all(kept[batch] == BATCH for batch in last if batch not in cut)
        assert all(kept[batch] in (0, BATCH) for batch in last), "whole or not at all"
        first = begun[-1] + 1
