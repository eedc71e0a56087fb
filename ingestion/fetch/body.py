"""The body of an answer, bounded while it comes: by its size once it is unpacked, and by how far it unpacks. Pure."""

from __future__ import annotations

import zlib
from pathlib import PurePosixPath
from urllib.parse import unquote

from config.errors import FetchFailed, TooLarge, UnsupportedMedia
from ingestion.media import HTML, MARKDOWN, SUFFIXES, TEXT, sniff

MAX_RATIO = 100  # of unpacked to packed bytes; gzip can reach 1,032, text and HTML stay below 30
FREE_BYTES = 1024 * 1024  # unpacked before the ratio counts: small pages of repeated markup are no bombs
ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True}
UNTYPED = ("", "application/octet-stream", "binary/octet-stream")
ALIASES = {"application/xhtml+xml": HTML, "text/x-markdown": MARKDOWN}


class Body:
    def __init__(self, encoding: str, *, max_bytes: int) -> None:
        packed = ENCODINGS.get(encoding)
        if packed is None:
            raise FetchFailed("The site packed its answer in a way that was not asked for.")
        self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed else None
        self._max_bytes, self._received, self._content = max_bytes, 0, bytearray()

    def add(self, part: bytes) -> None:
        """Raise TooLarge or FetchFailed; what is in memory exceeds the bound by one part at most."""
        self._received += len(part)
        self._content += part if self._unpack is None else self._unpacked(self._unpack, part)
        if len(self._content) > self._max_bytes:
            raise TooLarge(f"A document has at most {self._max_bytes} bytes.", field="url", limit=self._max_bytes)
        if len(self._content) > max(FREE_BYTES, MAX_RATIO * self._received):
            raise FetchFailed(f"The answer unpacks to more than {MAX_RATIO} times its size.")

    def content(self) -> bytes:
        """All of it, after the last part."""
        if self._unpack is not None and not self._unpack.eof:
            raise FetchFailed("The packed answer is cut off.")
        return bytes(self._content)

    def _unpacked(self, unpack: zlib._Decompress, part: bytes) -> bytes:
        try:
            unpacked = unpack.decompress(part, self._max_bytes + 1 - len(self._content))
        except zlib.error as error:
            raise FetchFailed("The packed answer is damaged.") from error
        if unpack.unused_data:
            raise FetchFailed("The packed answer goes on after its end.")
        return unpacked


def media_type(content_type: str, path: str, content: bytes) -> str:
    """What to read the content as: as it was declared, unless its bytes say otherwise. Raise UnsupportedMedia."""
    declared = content_type.partition(";")[0].strip().lower()
    declared = ALIASES.get(declared, declared)
    name = PurePosixPath(unquote(path.partition("?")[0])).name
    if declared in UNTYPED:
        return sniff(content, name)
    if declared == TEXT and SUFFIXES.get(PurePosixPath(name).suffix.lower()) == MARKDOWN:
        return sniff(content, name)  # most sites know no type of Markdown
    suffix = next((suffix for suffix, known in SUFFIXES.items() if known == declared), None)
    if suffix is None:
        raise UnsupportedMedia("The site answered with a kind of content that cannot be read.", field="url")
    return sniff(content, f"document{suffix}")
