"""The words of a short text as they are compared: without what makes no difference, names and numbers told apart. Pure.

English is read closely. Of other languages words are compared as they are written, which finds less and nothing wrong.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: With or without them a text says the same. Not among them: `was` and `were`, and words of direction, as `from` and `to`.
FILLERS = words_of("a an the is are am be being that really very just actually please well oh yes indeed")
INDEFINITE = words_of("a an some any one")
NEGATIONS = words_of("not never no longer anymore")
_AUXILIARY = words_of("do does did")  # `do not eat` denies `eat`
_NUMBER_WORDS = "two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS.split(), 2)}
_CONTRACTED = (
    (re.compile(r"\b(ca)n't\b"), "can not"),
    (re.compile(r"\b(wo)n't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\bany ?more\b"), "anymore"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"\b(it|he|she|that|there|where|who|what|name|number|birthday|address|email|job|age)'s\b"), r"\1 is"),
    (re.compile(r"(?<=\w)'s\b"), " 's"),
)
_AROUND = '.,;:!?"“”„«»()[]{}…'
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_NUMBER = re.compile(r"[$€£]?\d[\d.:/-]*(?:%|st|nd|rd|th|am|pm|km|kg|cm|m)?")


@dataclass(frozen=True, slots=True)
class Word:
    base: str  #: by which it is compared
    value: bool  #: a number, a name, or another sign for one thing, as an address
    number: bool


@dataclass(frozen=True)
class Wording:
    words: tuple[Word, ...]  #: without fillers
    indefinite: bool  #: of something that there may be several of

    @cached_property
    def said(self) -> str:
        return " ".join(word.base for word in self.words)

    @cached_property
    def positive(self) -> tuple[Word, ...]:
        """Without what denies."""
        if not self.negated:
            return self.words
        return tuple(word for word in self.words if word.base not in NEGATIONS and word.base not in _AUXILIARY)

    @property
    def negated(self) -> bool:
        return any(word.base in NEGATIONS for word in self.words)


def wording(text: str) -> Wording:
    plain = unicodedata.normalize("NFKC", text).replace("’", "'")
    for pattern, written_out in _CONTRACTED:
        plain = pattern.sub(written_out, plain) if "'" in plain or "more" in plain else plain
    tokens = [token for token in (each.strip(_AROUND) for each in _THOUSANDS.sub("", plain).split()) if token]
    words = tuple(_word(token, first=place == 0) for place, token in enumerate(tokens) if token.casefold() not in FILLERS)
    return Wording(words, any(token.casefold() in INDEFINITE for token in tokens))


def _word(token: str, *, first: bool) -> Word:
    lower = token.casefold()
    lower = _NUMBERS.get(lower, lower)
    if _NUMBER.fullmatch(lower):
        return Word(lower, True, True)
    sign = "@" in lower or any(character.isdecimal() for character in lower)
    name = not first and token[0].isupper() and lower != "i"
    return Word(lower if sign else _base(lower), sign or name, False)


def _base(word: str) -> str:
    """`live`, `lives` and `living` are one word, `lived` is another: what was is not what is."""
    if not (word.isascii() and word.isalpha()) or len(word) < 4:
        return word
    if word.endswith("ing") and len(word) > 5:
        word = word[:-3]
    elif word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 3 else word
