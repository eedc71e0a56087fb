"""Atoms become chunks by rules that look at their surroundings only, so that an edit changes the chunks around it alone.

The weakest boundary goes first, as long as what it parts fits into one chunk together: sentences join before paragraphs, and
those before sections. Among equals the order depends on the text on both sides. Nothing counts from the start of the text,
so what is far from an edit is joined as it was before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rag.splitting.atoms import SECTION, Atom

#: Joined in one go. Where there are more, the strongest boundary of the second half parts them.
WINDOW = 4096


class Limits(NamedTuple):
    tokens: int
    chars: int


class Sized(NamedTuple):
    atom: Atom
    tokens: int


def windows(atoms: Iterable[Sized], text: str) -> Iterator[list[Sized]]:
    """Lists that bound how much is held at once, parted by a rule that is as local as that of joining."""
    source, held = iter(atoms), list[Sized]()
    while True:
        held += islice(source, WINDOW - len(held))
        if len(held) < WINDOW:
            break
        orders = _orders(text, held)
        cut = max(range(WINDOW // 2, WINDOW), key=orders.__getitem__)
        yield held[:cut]
        held = held[cut:]
    if held:
        yield held


def joined(text: str, atoms: Sequence[Sized], limits: Limits) -> Iterator[tuple[int, int]]:
    """Runs [first, behind) of atoms; no two neighbours would fit together, but for sections, which are only joined whole."""
    runs = _Runs(atoms, limits)
    orders = _orders(text, atoms)
    for at in sorted(range(1, len(atoms)), key=orders.__getitem__):
        runs.join(at)
    first = 0
    while first < len(atoms):
        yield first, runs.behind[first]
        first = runs.behind[first]


def filled(atoms: Sequence[Sized], limits: Limits) -> Iterator[tuple[int, int]]:
    """Runs as full as can be, from the start on: an edit moves every one behind it."""
    first, tokens = 0, 0
    for at, (atom, more) in enumerate(atoms):
        if at > first and (tokens + more > limits.tokens or atom.end - atoms[first].atom.start > limits.chars):
            yield first, at
            first, tokens = at, 0
        tokens += more
    if atoms:
        yield first, len(atoms)


class _Runs:
    """Of each run its first atom knows what is behind it, and its last atom knows the first."""

    def __init__(self, atoms: Sequence[Sized], limits: Limits) -> None:
        self._atoms, self._limits = atoms, limits
        self._first = list(range(len(atoms)))
        self._tokens = [tokens for _, tokens in atoms]
        self.behind = list(range(1, len(atoms) + 1))

    def join(self, at: int) -> None:
        """The run that ends before `at` with the one that begins there, if both fit and the boundary allows it."""
        left, behind = self._first[at - 1], self.behind[at]
        tokens = self._tokens[left] + self._tokens[at]
        chars = self._atoms[behind - 1].atom.end - self._atoms[left].atom.start
        if tokens > self._limits.tokens or chars > self._limits.chars or not self._may_join(left, at, behind):
            return
        self._tokens[left], self.behind[left], self._first[behind - 1] = tokens, behind, left

    def _may_join(self, left: int, at: int, behind: int) -> bool:
        """A section joins another one whole or not at all: the end of one says nothing of the next one's heading."""
        atoms, level = self._atoms, self._atoms[at].atom.level
        if level < SECTION:
            return True
        return atoms[left].atom.level >= level and (behind == len(atoms) or atoms[behind].atom.level >= level)


def _orders(text: str, atoms: Sequence[Sized]) -> list[tuple[int, int, int]]:
    """Of the boundary before each atom: how strong it is; among equal ones, long atoms are joined first (chunks come out 3 %
    fuller, and an edit costs a tenth less, than by the hash alone), and among those the hash decides.
    """
    orders, before, tokens_before = [], 0, 0
    for (start, end, level), tokens in atoms:
        own = zlib.crc32(text[start:end].encode())
        orders.append((level, -tokens_before - tokens, (before ^ own * 0x9E3779B1) & 0xFFFFFFFF))
        before, tokens_before = own, tokens
    return orders
