"""What a limit is left at that is not named."""

from __future__ import annotations

import enum


class Unchanged(enum.Enum):
    UNCHANGED = enum.auto()


UNCHANGED = Unchanged.UNCHANGED
