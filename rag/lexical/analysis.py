"""Text becomes features: stemmed words, identifiers whole and in parts, numbers and codes exactly, and pairs of characters
where words are not separated. A feature is a 32-bit hash, so that a sparse vector can carry it. Pure.

Whoever changes which features a text has adds a migration that empties `chunks.terms`; repairs then analyse anew.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

from rag.lexical.languages import STOP_WORDS, language_of, language_of_word, stem

BESIDE = 0.5  #: what parts of identifiers, 4-grams and single characters weigh beside a word
COMPOUNDING = frozenset({"de", "ar"})  #: languages that gain by 4-grams; English loses
GRAM_CHARS = 4
MAX_WORD = 64  # characters; what is longer is no word, but data
KEPT_WORDS = 32_768  # whose terms are kept: half a kilobyte each at worst


@lru_cache(maxsize=KEPT_WORDS)
def feature(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "little")


def _marks() -> str:
    """Signs that are part of words and that `\\w` leaves out: vowels of Indic scripts and Thai, accents of their own."""
    codes = [code for code in range(0x300, 0x1C00) if unicodedata.category(chr(code)).startswith("M")]
    return "".join(map(re.escape, map(chr, codes)))


_LETTER = rf"[\w{_marks()}]"
_RUN = re.compile(rf"{_LETTER}+(?:(?:[.'’\-/@,&]|::?){_LETTER}+)*(?:\+\+|#(?!\w))?")
#: Scripts without blanks between words, and Hangul, whose endings pairs see through.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}々ー]+")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_SEPARATORS = re.compile(rf"(?:(?!{_LETTER}).)+|_+")


@dataclass(frozen=True, slots=True)
class Term:
    """What one run of characters is looked up by."""

    words: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()  #: of less weight


@dataclass(slots=True)
class Analysed:
    """A text's features and how often each occurs."""

    language: str
    words: list[int] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    beside: set[int] = field(default_factory=set)  #: those of them that are no words of it

    def weight(self, feature: int) -> float:
        return BESIDE if feature in self.beside else 1.0


def has_unspaced(text: str) -> bool:
    """Whether some of it is in a script without blanks between words."""
    return not text.isascii() and _UNSPACED_RUN.search(text) is not None


def runs(text: str) -> list[str]:
    return _RUN.findall(text if text.isascii() else unicodedata.normalize("NFKC", text))


def analyse(found: Sequence[str], language: str | None = None) -> Analysed:
    """Of the runs of a text."""
    result = Analysed(language or language_of([run.lower() for run in found]))
    words, beside = result.words, list[int]()
    for run in found:
        term = term_of(run, result.language)
        words += term.words
        beside += term.beside
    result.counts.update(words)
    result.beside.update(beside)
    result.beside.difference_update(result.counts)
    result.counts.update(beside)
    return result


def term_of(run: str, language: str) -> Term:
    """Whatever the text around it: the same run always has the same features."""
    if not run.isascii() and _UNSPACED_RUN.search(run):
        return _unspaced(run, language)
    return _kept(run, language) if len(run) <= MAX_WORD else _spaced(run, language)


def _spaced(run: str, language: str) -> Term:
    plain = run.isalpha() and len(run) <= MAX_WORD and not _HUMP.search(run)
    return _word(run.lower(), language) if plain else _compound(run, language)


_kept = lru_cache(maxsize=KEPT_WORDS)(_spaced)


def _word(word: str, language: str) -> Term:
    if word in STOP_WORDS.get(language, ()):
        return Term()
    language = language_of_word(word, language)
    stemmed = stem(word, language)
    grams = _grams(stemmed) if language in COMPOUNDING else ()
    return Term((feature(stemmed),), tuple(feature(f"\1{gram}") for gram in grams))


def _grams(word: str) -> Iterator[str]:
    return (word[at : at + GRAM_CHARS] for at in range(len(word) - GRAM_CHARS + 1))


def _unspaced(run: str, language: str) -> Term:
    """Pairs of characters, and the characters; what stands between (Latin words, numbers) as everywhere."""
    words: list[int] = []
    beside: list[int] = []
    at = 0
    for match in _UNSPACED_RUN.finditer(run):
        _append(run[at : match.start()], language, words, beside)
        block = match.group()
        words += [feature(block[i : i + 2]) for i in range(len(block) - 1)]
        beside += map(feature, block)
        at = match.end()
    _append(run[at:], language, words, beside)
    return Term(tuple(words), tuple(beside))


def _append(rest: str, language: str, words: list[int], beside: list[int]) -> None:
    for part in _RUN.findall(rest):
        term = term_of(part, language)
        words += term.words
        beside += term.beside


def _compound(run: str, language: str) -> Term:
    """An identifier, a code, a number, or words that a hyphen or an apostrophe joins."""
    whole = run.lower()[:MAX_WORD]
    if _NUMBER.fullmatch(run):
        return Term((feature(whole.replace(",", "")),))
    parts = [part for part in _SEPARATORS.split(run) if part]
    if len(parts) > 1 and "_" not in run and all(part.isalpha() and not _HUMP.search(part) for part in parts):
        return _joined(parts, run, language)
    exact = feature(stem(whole, language) if run.isalpha() else whole)
    pieces = (piece.lower() for part in parts for piece in _HUMP.split(part) if len(piece) > 1 or piece.isdecimal())
    others = dict.fromkeys(word for piece in pieces for word in _piece(piece, language) if word != exact)
    return Term((exact,), tuple(others))


def _piece(piece: str, language: str) -> tuple[int, ...]:
    return _word(piece, language).words if piece.isalpha() else (feature(piece),)


def _joined(parts: list[str], run: str, language: str) -> Term:
    """`state-of-the-art`, `user's`, `and/or`, `U.S.A`, `example.com`: the words, and what they are together."""
    if all(len(part) == 1 for part in parts):
        return Term((feature("".join(parts).lower()),))
    terms = [_word(part.lower(), language) for part in parts if len(part) > 1]
    words = tuple(word for term in terms for word in term.words)
    beside = [extra for term in terms for extra in term.beside]
    if not _APART.search(run):
        beside.append(feature("".join(parts).lower()))
    return Term(words, tuple(beside))


_APART = re.compile("['’/,&]")  # words on both sides of these are two
