"""Money is counted in whole picodollars (1e-12 $), so that sums are exact; it is rounded only where it is shown.

Micro-dollars for a million tokens are picodollars for one token: a cost is `tokens * price`, without a division.
"""

from __future__ import annotations

PICO_IN_MICRO = 1_000_000
#: Micro-dollars for a million tokens, nine dollars. 1e12 tokens (a month's budget at most) cost 9e18 at this price, and a
#: database's column holds 9.22e18.
MAX_PRICE = 9_000_000


def micro_usd(picodollars: int) -> int:
    """Whole micro-dollars; a half is rounded up."""
    return (picodollars + PICO_IN_MICRO // 2) // PICO_IN_MICRO
