"""When facts of one key are true: spans that never overlap, so that at each moment there is one at most. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` until before `end`, in Unix milliseconds; None has no end. One that ends where it starts holds never."""

    start: int
    end: int | None = None

    def holds(self, at: int) -> bool:
        return self.start <= at and (self.end is None or at < self.end)

    def overlaps(self, other: Span) -> bool:
        if self.is_empty or other.is_empty:
            return False
        return (other.end is None or self.start < other.end) and (self.end is None or other.start < self.end)

    @property
    def is_empty(self) -> bool:
        return self.end is not None and self.end <= self.start


class Within(ValueError):
    """The new span would leave another one in two pieces. `args`: the other's id."""


@dataclass(frozen=True, slots=True)
class Fitted:
    span: Span
    followed_by: str | None  #: what begins where it had to end
    ended: tuple[str, ...]  #: those that end where it begins


def fit(new: Span, others: Mapping[str, Span]) -> Fitted:
    """A span among others that do not overlap: it ends what it begins in, and ends where the next one begins.

    Raise Within for one with an end of its own that lies inside another.
    """
    later = {span.start: name for name, span in others.items() if new.overlaps(span) and span.start > new.start}
    following = min(later, default=None)
    fitted = new if following is None else Span(new.start, following)
    ended = []
    for name, span in others.items():
        if span.start > new.start or not span.holds(new.start) or fitted.is_empty:
            continue
        if fitted.end is not None and (span.end is None or span.end > fitted.end):
            raise Within(name)
        ended.append(name)
    return Fitted(fitted, None if following is None else later[following], tuple(sorted(ended)))
