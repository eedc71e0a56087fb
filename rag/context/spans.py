"""Which runs of turns a long conversation is summed up by. Pure.

A recap of the first level covers eight turns, one of the next level eight of those, and so on. Which there are depends on
the turns' numbers alone, so a session that grows adds recaps and changes none, whoever asks with whatever budget; and ten
thousand turns are covered by some two dozen of them, the older the coarser.
"""

from __future__ import annotations

from dataclasses import dataclass

FAN = 8


@dataclass(frozen=True, slots=True, order=True)
class Span:
    first: int
    last: int
    level: int  #: 0: fewer turns than a recap that is kept covers

    @property
    def key(self) -> tuple[int, int]:
        return self.first, self.last


def cover(last: int) -> list[Span]:
    """Turns 1 to `last`, oldest first: at each place the longest run that begins there and is complete."""
    spans, at = list[Span](), 1
    while at <= last:
        level = 0
        while (at - 1) % FAN ** (level + 1) == 0 and at - 1 + FAN ** (level + 1) <= last:
            level += 1
        end = at - 1 + FAN**level if level else last
        spans.append(Span(at, end, level))
        at = end + 1
    return spans


def within(span: Span) -> list[Span]:
    """All that it is made of, and itself: those of the first level first."""
    return [
        Span(at, at - 1 + FAN**level, level)
        for level in range(1, span.level + 1)
        for at in range(span.first, span.last, FAN**level)
    ]
