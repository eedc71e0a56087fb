"""Identifiers: a readable prefix, then 48 bits of time and 80 random bits, so that ids sort by creation: by the millisecond,
and those that one process makes within a millisecond in the order in which it makes them.

An id carries no authority: knowing one gives nothing without a key of its tenant.
"""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
ID_LENGTH = 26


_making = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """Return e.g. `doc_01jd3v…`: the prefix, an underscore and 26 characters."""
    value = _next()
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def _next() -> int:
    """Behind the last of the same millisecond by a random step; the first leaves room for 2**15 of them at least."""
    global _last
    with _making:
        now = time.time_ns() // 1_000_000
        _last = _last + 1 + secrets.randbits(64) if now == _last >> 80 else now << 80 | secrets.randbits(79)
        return _last
