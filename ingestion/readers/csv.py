"""CSV and TSV: each row a line that names its columns. The delimiter is the one that parts the first rows alike."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from ingestion.readers.base import CannotRead, Draft, Parsed
from ingestion.readers.rows import lines
from ingestion.readers.text import decode

DELIMITERS = ",;\t|"
LOOKED_AT = 50  # rows
LOOKED_AT_CHARS = 64 * 1024
_MARK = "\ufeff"


def read_csv(content: bytes, max_chars: int) -> Parsed:
    text = decode(content).removeprefix(_MARK)
    return _read(text, _delimiter(text), max_chars)


def read_tsv(content: bytes, max_chars: int) -> Parsed:
    return _read(decode(content).removeprefix(_MARK), "\t", max_chars)


def _read(text: str, delimiter: str, max_chars: int) -> Parsed:
    draft = Draft(max_chars)
    try:
        for line in lines(_rows(text, delimiter)):
            draft.add(line, after="\n")
    except csv.Error as error:
        raise CannotRead(f"The table is damaged ({error}); is a quotation mark left open?") from error
    return draft.parsed(markdown=False)


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _delimiter(text: str) -> str:
    """The one with most rows of the same number of cells, more than one; of equals the one with more cells."""
    head = text[:LOOKED_AT_CHARS]
    scores = {}
    for delimiter in DELIMITERS:
        try:
            widths = Counter(len(row) for row in islice(_rows(head, delimiter), LOOKED_AT) if len(row) > 1)
        except csv.Error:
            continue
        if widths:
            width, rows = widths.most_common(1)[0]
            scores[delimiter] = (rows, width)
    return max(scores, key=lambda delimiter: scores[delimiter], default=",")
