"""What was said, summed up by its own sentences: those that speak of what the others speak of, without a model.

After SumBasic (Nenkova and Vanderwende, 2005): a sentence weighs as much as its words on average, and a word that was
told weighs less afterwards. Pure; equal lines give equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from rag.lexical.analysis import analyse, runs
from rag.splitting.atoms import prose
from rag.tokens import count_tokens

MAX_TOKENS = 120  #: of one summary, as o200k counts them
MAX_SENTENCES = 128  #: that are weighed; further ones of a very long turn are not
MAX_SENTENCE_CHARS, MAX_NAME_CHARS = 400, 40
FEWEST_TOKENS = 6  #: in which a line fits that says something
FEW_WORDS = 4  #: what a sentence is averaged over at least, so that "Yes, books." does not weigh most


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence and who said it."""

    who: str
    text: str

    def __str__(self) -> str:
        return f"{self.who}: {self.text}" if self.who else self.text


def lines_of(who: str, text: str) -> list[Line]:
    """Sentences on one line each, long ones cut at a word."""
    found = (" ".join(text[atom.start : atom.end].split()) for atom in prose(text, whole_sentences=True))
    shown = " ".join(who.split())[:MAX_NAME_CHARS]
    return [Line(shown, _short(sentence)) for sentence in islice(found, MAX_SENTENCES) if sentence]


def extract(lines: Sequence[Line], max_tokens: int = MAX_TOKENS) -> str:
    """The lines that tell most, in their order, within `max_tokens`. If not even one fits, the beginning of the best."""
    lines = lines[:MAX_SENTENCES]
    found = [analyse(runs(line.text)).words for line in lines]
    told = Counter(chain.from_iterable(found))
    total = told.total()
    weights = {word: count / total for word, count in told.items()}
    words = [_Words({*each}, max(FEW_WORDS, len(each))) for each in found]
    weigh = [each.weigh(weights) for each in words]
    left, waiting, chosen = max_tokens, list(range(len(lines))), list[int]()
    while waiting and left >= FEWEST_TOKENS:
        best = max(waiting, key=weigh.__getitem__)  # of equals the first
        waiting.remove(best)
        if (cost := count_tokens(f"{lines[best]}\n")) <= left:
            left -= cost
            chosen.append(best)
        weights |= {word: weights[word] ** 2 for word in words[best].kinds}
        for at in waiting:
            if not words[best].kinds.isdisjoint(words[at].kinds):
                weigh[at] = words[at].weigh(weights)
    if chosen or not lines:
        return "\n".join(str(lines[at]) for at in sorted(chosen))
    return _beginning(str(lines[max(range(len(lines)), key=lambda at: words[at].weigh(weights))]), max_tokens)


class _Words(NamedTuple):
    kinds: set[int]
    divisor: int

    def weigh(self, weights: Mapping[int, float]) -> float:
        return sum(map(weights.__getitem__, self.kinds)) / self.divisor


def _short(sentence: str) -> str:
    if len(sentence) <= MAX_SENTENCE_CHARS:
        return sentence
    cut = sentence[: MAX_SENTENCE_CHARS - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"


def _beginning(line: str, max_tokens: int) -> str:
    while count_tokens(line) > max_tokens:
        line = line[: len(line) // 2] + "…"
    return line
