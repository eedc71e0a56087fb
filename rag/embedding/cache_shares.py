"""How tenants share the cache: an account for each, and whose rows go when there are more than fit.

With a cap of C and n tenants that have rows, C/n is each one's own and what is left may be lent. Past the cap the largest
tenant loses what it stored first, row by row: the largest of n that together pass C is over C/n.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

Execute = Callable[..., sqlite3.Cursor]

_ADD = (
    "INSERT INTO Account VALUES (NEW.tag, 1, NEW.size)"
    " ON CONFLICT (tag) DO UPDATE SET vectors = vectors + 1, bytes = bytes + excluded.bytes;"
)
_TAKE = "UPDATE Account SET vectors = vectors - 1, bytes = bytes - OLD.size WHERE tag = OLD.tag;"
#: Kept by triggers, so that they hold whoever deletes or adds rows. `Account` is small: one row a tenant.
ACCOUNTS = (
    "CREATE TABLE IF NOT EXISTS Account (tag BLOB PRIMARY KEY, vectors INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID",
    f"CREATE TRIGGER IF NOT EXISTS Account_insert AFTER INSERT ON Cache FOR EACH ROW BEGIN {_ADD} END",
    f"CREATE TRIGGER IF NOT EXISTS Account_update AFTER UPDATE OF tag, size ON Cache FOR EACH ROW BEGIN {_TAKE} {_ADD} END",
    f"CREATE TRIGGER IF NOT EXISTS Account_delete AFTER DELETE ON Cache FOR EACH ROW BEGIN {_TAKE} END",
)

MAX_EVICTED = 1024  # rows one put may evict: 20 ms. A cap that was lowered is reached within a few puts
PAGE_BYTES = 4096
#: Beside the value in its row: key, tag, size, header, cell pointer; and the row's entries in the indexes, with air.
ROW_BYTES, INDEX_BYTES = 76, 112


def row_bytes(value_bytes: int) -> int:
    """What a row takes in the file: its part of a page that holds whole rows only, and its places in the indexes.

    A row longer than a page fills pages of its own; only what is left over shares one.
    """
    full, rest = divmod(value_bytes + ROW_BYTES, PAGE_BYTES - 4)
    return full * PAGE_BYTES + PAGE_BYTES // (PAGE_BYTES // (rest + 1)) + INDEX_BYTES


def to_evict(sql: Execute, max_bytes: int, limit: int = MAX_EVICTED) -> list[tuple[int]]:
    """Ids of the rows that must go so that the cap holds, at most `limit`. Inside the transaction that deletes them."""
    tenants, total = sql("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM Account WHERE vectors > 0").fetchone()
    if total <= max_bytes:
        return []
    over_share = sql("SELECT bytes, tag FROM Account WHERE vectors > 0 AND bytes > ? ORDER BY tag", (max_bytes // tenants,))
    largest = [(-size, place, tag) for place, (size, tag) in enumerate(over_share)]
    heapq.heapify(largest)
    rows: dict[bytes, Iterator[tuple[int, int]]] = {}
    chosen: list[tuple[int]] = []
    with ExitStack() as cursors:
        while total > max_bytes and largest and len(chosen) < limit:
            size, place, tag = largest[0]
            if tag not in rows:  # read as far as needed: often one row of each of many tenants
                rows[tag] = cursors.enter_context(closing(_oldest_first(sql, tag)))
            row = next(rows[tag], None)
            if row is None:  # an account that says more than there is
                heapq.heappop(largest)
                continue
            chosen.append(row[:1])
            total -= row[1]
            heapq.heapreplace(largest, (size + row[1], place, tag))
    return chosen


def _oldest_first(sql: Execute, tag: bytes) -> sqlite3.Cursor:
    # Ids grow: the order of ids is the order of storing, whatever clocks said.
    return sql("SELECT rowid, COALESCE(CAST(size AS INTEGER), 0) FROM Cache WHERE tag = ? ORDER BY rowid", (tag,))
