"""Which texts go to the provider together. Pure."""

from __future__ import annotations

from collections.abc import Sequence

Batch = Sequence[int]  #: places of texts in the call


def plan(tokens: Sequence[int], *, count: int, most_tokens: int) -> list[Batch]:
    """Batches in the order of the texts, of at most `count` texts and `most_tokens`; a longer text is one of its own."""
    batches: list[list[int]] = []
    total = 0
    for place, size in enumerate(tokens):
        if not batches or len(batches[-1]) == count or total + size > most_tokens:
            batches.append([])
            total = 0
        batches[-1].append(place)
        total += size
    return list(batches)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Of a batch of two or more."""
    middle = len(batch) // 2
    return batch[:middle], batch[middle:]
