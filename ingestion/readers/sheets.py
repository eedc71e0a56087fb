"""Cells of a sheet as text, straight from its XML and without an object for each of them: a million take a third of the time.

What a value means is said by whoever opens the workbook: which styles are dates, and what day a number is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO
from xml.parsers import expat

from ingestion.readers.base import CannotRead
from ingestion.readers.rows import MAX_COLUMNS

_NAMES = "http://schemas.openxmlformats.org/spreadsheetml/2006/main "
_ROW, _CELL, _VALUE = f"{_NAMES}row", f"{_NAMES}c", f"{_NAMES}v"
_ITEM, _TEXT, _SPOKEN = f"{_NAMES}si", f"{_NAMES}t", f"{_NAMES}rPh"
_DIGITS = "0123456789"
_AT_ONCE = 1 << 16  # bytes of XML


@dataclass(frozen=True, slots=True)
class Meaning:
    """What cells refer to. `day_of`: of a number in a cell of a style that shows dates, by that style."""

    strings: Sequence[str]
    day_of: Mapping[str, Callable[[str], str]]
    written_day: Callable[[str], str]  #: of a date that is written out, as ISO 8601 has it


def strings(source: IO[bytes]) -> list[str]:
    """The workbook's table of texts, which cells name by their number."""
    found = _Texts()
    for _ in _parsed(source, found):
        pass
    return found.items


def rows(source: IO[bytes], meaning: Meaning) -> Iterator[list[str]]:
    """Up to each row's last cell; rows that are not there are left out."""
    found = _Cells(meaning)
    for _ in _parsed(source, found):
        yield from found.rows
        found.rows.clear()


class _Texts:
    """Texts without their formatting, and without how East Asian words are pronounced."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self._parts: list[str] = []
        self._heard = self._spoken = False

    def start(self, name: str, _attributes: Mapping[str, str]) -> None:
        self._heard = name == _TEXT and not self._spoken
        self._spoken = self._spoken or name == _SPOKEN

    def text(self, text: str) -> None:
        if self._heard:
            self._parts.append(text)

    def end(self, name: str) -> None:
        self._heard = False
        if name == _ITEM:
            self.items.append("".join(self._parts).replace("x005F_", ""))
            self._parts.clear()
        elif name == _SPOKEN:
            self._spoken = False


class _Cells:
    def __init__(self, meaning: Meaning) -> None:
        self.rows: list[list[str]] = []
        self._meaning, self._values, self._column = meaning, list[str](), 0
        self._kind = self._style = self._value = ""
        self._heard = self._spoken = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == _CELL:
            place = attributes.get("r")
            self._column = _column(place.rstrip(_DIGITS)) if place else self._column + 1
            self._kind, self._style, self._value = attributes.get("t", "n"), attributes.get("s", "0"), ""
        elif name == _VALUE:
            self._heard = self._kind != "inlineStr"
        elif name == _TEXT:
            self._heard = self._kind == "inlineStr" and not self._spoken
        elif name == _SPOKEN:
            self._spoken = True

    def text(self, text: str) -> None:
        if self._heard:
            self._value += text

    def end(self, name: str) -> None:
        self._heard = False
        if name == _CELL:
            self._keep(self._column, _text(self._kind, self._style, self._value, self._meaning) if self._value else "")
        elif name == _ROW:
            self.rows.append(self._values)
            self._values, self._column = [], 0
        elif name == _SPOKEN:
            self._spoken = False

    def _keep(self, column: int, text: str) -> None:
        missing = column - 1 - len(self._values)
        if missing == 0:
            self._values.append(text)
            return
        if column > MAX_COLUMNS:
            if not text:
                return
            raise CannotRead(f"The table has {column} columns, at most {MAX_COLUMNS} are read.")
        self._values += [""] * missing
        self._values[column - 1 : column] = [text]


def _parsed(source: IO[bytes], handler: _Texts | _Cells) -> Iterator[None]:
    """After each piece of the XML; no document type is allowed, so that no entity is ever expanded."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = handler.start, handler.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = handler.text, _refuse
    try:
        while piece := source.read(_AT_ONCE):
            parser.Parse(piece)
            yield
        parser.Parse(b"", True)
        yield
    except expat.ExpatError as error:
        raise CannotRead(f"The file is damaged: its XML breaks off or is wrong ({str(error)[:100]}).") from error


def _refuse(*_declared: object) -> None:
    raise CannotRead("The file's XML declares a document type, which no such file has; save it again.")


def _text(kind: str, style: str, value: str, meaning: Meaning) -> str:
    if kind == "s":
        return meaning.strings[int(value)]
    if kind == "n":
        day = meaning.day_of.get(style)
        return _number(value) if day is None else day(value)
    if kind == "b":
        return "TRUE" if int(value) else "FALSE"
    return meaning.written_day(value) if kind == "d" else value


def _number(value: str) -> str:
    if "." in value or "e" in value or "E" in value:
        return format(float(value), ".15g")  # as many digits as Excel keeps
    return str(int(value))


@lru_cache(4096)
def _column(letters: str) -> int:
    column = 0
    for letter in letters[:4]:
        column = column * 26 + int(letter, 36) - 9
    return max(column, 1)
