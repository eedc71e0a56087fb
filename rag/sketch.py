"""How alike two texts are, without comparing them: MinHash signatures of their shingles, and the bands that find candidates.

The share of equal places in two signatures estimates the Jaccard similarity of the sets of shingles (Broder 1997), with a
standard error of 0.027 at 0.9. Pure.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

#: 20 bands of 6: two texts of similarity 0.8 share a band with probability 0.998, of 0.9 always, of 0.5 with 0.27.
BANDS, ROWS = 20, 6
PERMUTATIONS = BANDS * ROWS
SHINGLE = 3  # tokens; one word changed in 100 leaves 0.94, in 50 0.88
BLOCK = 1024  # shingles at a time: what they become stays in the processor's cache

Signature: TypeAlias = npt.NDArray[np.uint32]
_Numbers: TypeAlias = npt.NDArray[np.uint64]

_WORD = re.compile(r"\w+")
#: Scripts that are written without blanks: of these each character is a token.
_WITHOUT_BLANKS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
#: Before these no normalization and no word reaches: white space, and of scripts without blanks what combines with nothing.
_BOUNDARY = re.compile("[\\s\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff]")
#: More than these are no text, and sorting the marks of one letter takes the square of their number (30: Unicode's UAX 15).
_MARKS = re.compile(r"([^\w\s]{30})[^\w\s]+")
WINDOW = 1 << 15  # characters that are held in more than one form; a word longer than this is cut


def _constants(name: bytes, count: int) -> _Numbers:
    """Odd numbers, the same for ever: signatures are stored."""
    digests = (hashlib.blake2b(b"%s %d" % (name, number), digest_size=8).digest() for number in range(count))
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64) | np.uint64(1)


_MIX, _ORDER = _constants(b"mix", 2), _constants(b"shingle", SHINGLE)
_PERMUTE = _constants(b"permutation", PERMUTATIONS)[:, None]
_BAND, _ROW = _constants(b"band", BANDS), _constants(b"row", ROWS)


def sketch(text: str) -> Signature | None:
    """PERMUTATIONS numbers; None of a text without a word."""
    least, found = np.full(PERMUTATIONS, np.iinfo(np.uint64).max, np.uint64), False
    for shingles in _shingles(text):
        for at in range(0, len(shingles), BLOCK):
            np.minimum(least, (_PERMUTE * shingles[None, at : at + BLOCK]).min(axis=1), out=least)
            found = True
    return (least >> np.uint64(32)).astype(np.uint32) if found else None


def similarity(one: Signature, other: Signature) -> float:
    """0 to 1."""
    return float(np.mean(one == other))


def bands(signature: Signature) -> list[int]:
    """Numbers that fit a signed 64-bit column: texts that are much alike have one in common."""
    rows = signature.astype(np.uint64).reshape(BANDS, ROWS)
    return [int(number) for number in _mixed((rows * _ROW).sum(axis=1, dtype=np.uint64) + _BAND).view(np.int64)]


def to_bytes(signature: Signature) -> bytes:
    return signature.astype("<u4").tobytes()


def from_bytes(stored: bytes) -> Signature:
    return np.frombuffer(stored, "<u4").astype(np.uint32)


def _shingles(text: str) -> Iterator[_Numbers]:
    """Numbers of the runs of SHINGLE tokens, different ones of each window; of a shorter text, of all that it has."""
    held, short = np.zeros(0, np.uint64), True
    for window in _windows(text):
        tokens = _tokens(window)
        known = {token: zlib.crc32(token.encode("utf-8", "surrogatepass")) for token in {*tokens}}
        numbers = np.concatenate([held, np.fromiter(map(known.__getitem__, tokens), np.uint64, len(tokens))])
        held = numbers[1 - SHINGLE :]
        if len(numbers) >= SHINGLE:
            short = False
            yield _numbered(numbers)
    if short and len(held):
        yield _numbered(np.pad(held, (0, SHINGLE - len(held))))


def _numbered(numbers: _Numbers) -> _Numbers:
    windows: Any = np.lib.stride_tricks.sliding_window_view(numbers, SHINGLE)
    return np.unique(_mixed((windows * _ORDER).sum(axis=1, dtype=np.uint64)))


def _windows(text: str) -> Iterator[str]:
    """Parts that have together the tokens of the whole: of 20 million characters all the tokens took hundreds of megabytes."""
    start = 0
    while start < len(text):
        end = _boundary(text, start + WINDOW) if start + WINDOW < len(text) else len(text)
        yield text[start:end]
        start = end


def _boundary(text: str, end: int) -> int:
    """The last one before `end`, or `end` if there is none within a window."""
    for reach in (WINDOW // 128, WINDOW // 8, WINDOW - 1):
        if found := [*_BOUNDARY.finditer(text, end - reach, end)]:
            return found[-1].start()
    return end


def _tokens(text: str) -> list[str]:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _MARKS.sub(r"\1", text))
    text = text.lower()
    if _WITHOUT_BLANKS.search(text):
        text = _WITHOUT_BLANKS.sub(r" \g<0> ", text)
    return _WORD.findall(text)


def _mixed(numbers: _Numbers) -> _Numbers:
    """Every bit of the result depends on every bit of the number (the finalizer of SplitMix64, with other constants)."""
    for multiplier in _MIX:
        numbers = (numbers ^ (numbers >> np.uint64(31))) * multiplier
    mixed: _Numbers = numbers ^ (numbers >> np.uint64(33))
    return mixed
