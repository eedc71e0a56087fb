"""Identifiers: a readable prefix, then 48 bits of time and 80 random bits, so that ids sort by creation.

An id carries no authority: knowing one gives nothing without a key of its tenant.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
ID_LENGTH = 26


def new_id(prefix: str) -> str:
    """Return e.g. `doc_01jd3v…`: the prefix, an underscore and 26 characters."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
