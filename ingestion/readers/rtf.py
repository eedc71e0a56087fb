"""RTF: its text without its formatting. Paragraphs and cells are kept; headings are styles there and are not known."""

from __future__ import annotations

import re
from encodings.aliases import aliases
from itertools import groupby

from ingestion.readers.base import CannotRead, Draft, Parsed

_TOKEN = re.compile(r"\\([A-Za-z]{1,32})(-?\d{1,9})? ?|\\'([0-9A-Fa-f]{2})|\\(.)|([{}])|[\r\n]+|([^\\{}\r\n]+)|.", re.DOTALL)
_CODECS = {*aliases.values()}
_NOT_SHOWN = re.compile(
    r"fonttbl|colortbl|stylesheet|info|pict|object|header[lrf]?|footer[lrf]?|listtable|listoverridetable|revtbl|rsidtbl"
    r"|generator|themedata|datastore|fldinst|\*"
)
_CHARACTERS = {"tab": "\t", "cell": " | ", "line": "\n", "emdash": "—", "endash": "–", "bullet": "•", "~": "\xa0", "_": "-"}
_CHARACTERS |= {"lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "\\": "\\", "{": "{", "}": "}"}
_CHARACTERS |= dict.fromkeys(("par", "sect", "page", "row", "\n", "\r"), "\n\n")


def read_rtf(content: bytes, max_chars: int) -> Parsed:
    if not content.lstrip().startswith(b"{\\rtf"):
        raise CannotRead("The file is no RTF document.")
    draft = Draft(max_chars)
    for paragraph in _Reading().text(content.decode("latin-1")).split("\n\n"):
        draft.add(paragraph.strip().removesuffix("|").rstrip())
    return draft.parsed(markdown=False)


class _Reading:
    """Groups save and give back whether their text is shown, and how many characters repeat a \\u for old readers."""

    def __init__(self) -> None:
        self._codec, self._shown, self._repeats, self._passed = "cp1252", True, 1, 0
        self._groups: list[tuple[bool, int]] = []
        self._out: list[bytes | str] = []

    def text(self, source: str) -> str:
        at = 0
        while match := _TOKEN.match(source, at):
            word, number, byte, sign, brace, plain = match.groups()
            at = match.end() + (max(0, int(number or 0)) if word == "bin" else 0)
            if brace == "{":
                self._groups.append((self._shown, self._repeats))
            elif brace and self._groups:
                self._shown, self._repeats = self._groups.pop()
            elif word or sign:
                self._control(word or sign, int(number or 0))
            elif byte or plain:
                self._add(bytes.fromhex(byte) if byte else plain.encode("latin-1"))
        if self._groups:
            raise CannotRead("The RTF document is cut off; send it again.")
        # Bytes that follow each other are decoded together, since characters can have two; so are halves of UTF-16 pairs.
        pieces: list[str] = []
        for _, run in groupby(self._out, type):
            parts = [*run]
            raw = b"".join(part for part in parts if isinstance(part, bytes))
            pieces += [raw.decode(self._codec, "replace"), *(part for part in parts if isinstance(part, str))]
        return "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")

    def _control(self, word: str, number: int) -> None:
        if _NOT_SHOWN.fullmatch(word):
            self._shown = False
        elif word == "u":
            self._passed = 0
            self._add(chr(number % 0x10000))
            self._passed = self._repeats
        elif word == "uc":
            self._repeats = max(0, number)
        elif word == "ansicpg":
            self._codec = f"cp{number}" if f"cp{number}" in _CODECS else "cp1252"
        elif word in _CHARACTERS:
            self._add(_CHARACTERS[word])

    def _add(self, piece: bytes | str) -> None:
        dropped, self._passed = self._passed, max(0, self._passed - len(piece))
        if self._shown and dropped < len(piece):
            self._out.append(piece[dropped:])
