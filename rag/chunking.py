"""Text becomes chunks with exact offsets: `text[start:end]` is the chunk. Pure; sizes are the embedding model's tokens."""

from __future__ import annotations

import bisect
import functools
import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from rag.corpus import PIPELINE_VERSION
from rag.wordpiece import WordCounts, is_by_word

_POINT_NAMESPACE = uuid.UUID("6c7a4f2e-8a53-5d0b-9a5e-4d2f3f1c9b10")
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*)")  # no more: a pattern that also trims the end takes cubic time on blanks
_FENCE = re.compile(r" {0,3}(```+|~~~+)(.*)")
MAX_CHARS = 4_000  # of one chunk
WINDOW_CHARS = 20_000  # about 25 chunks of prose, split in one go


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large chunks are, in tokens of the embedding model.

    Context (title and headings) and text share the model's window: 40 + 212 + 2 special tokens ≤ 256 of MiniLM.
    """

    text_tokens: int = 212
    context_tokens: int = 40
    overlap_tokens: int = 0  #: at most, of a chunk with the one before it


@dataclass(frozen=True, slots=True)
class Page:
    number: int  #: 1-based
    start: int  #: offset of its first character


def embedded_text(context: str, text: str) -> str:
    """What the model reads of a chunk: part of its identity, so a change here is a change of PIPELINE_VERSION."""
    return f"{context}\n\n{text}" if context else text


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of a text. `context` is embedded before `text` and is no part of it."""

    ordinal: int
    start: int
    end: int
    text: str
    context: str
    headings: tuple[str, ...]
    first_page: int | None
    last_page: int | None

    @property
    def embedded(self) -> str:
        return embedded_text(self.context, self.text)


class Chunker:
    def __init__(self, tokenizer_json: str, sizes: Sizes | None = None) -> None:
        self.sizes = sizes or Sizes()
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_truncation()  # the bundled file truncates and pads at 128, which would hide a text's length
        self._tokenizer.no_padding()
        self._words = WordCounts(self._tokenizer) if is_by_word(self._tokenizer) else None
        self._markdown, self._plain = self._splitters(MarkdownSplitter), self._splitters(TextSplitter)

    def split(self, text: str, *, markdown: bool, title: str, pages: Sequence[Page] = ()) -> Iterator[Piece]:
        """Yield chunks in reading order; they are trimmed of white space, and no other text lies outside of all."""
        splitters = self._markdown if markdown else self._plain
        headings = _Headings(text) if markdown else None
        context_of = functools.lru_cache(maxsize=256)(self._context)
        pieces = (piece for window in _windows(text) for piece in _capped(splitters, text, window))
        for ordinal, (start, chunk) in enumerate(pieces):
            end = start + len(chunk)
            path = headings.at(start) if headings else ()
            yield Piece(
                ordinal=ordinal,
                start=start,
                end=end,
                text=chunk,
                context=context_of((title, *path)),
                headings=path,
                first_page=_page_at(pages, start),
                last_page=_page_at(pages, end - 1),
            )

    def _splitters(self, kind: type[MarkdownSplitter | TextSplitter]) -> Splitters:
        text, overlap = self.sizes.text_tokens, self.sizes.overlap_tokens
        if self._words is None:
            make = functools.partial(kind.from_huggingface_tokenizer, self._tokenizer)
        else:
            make = functools.partial(kind.from_callback, self._words.count)
        bare = make(text)
        return (make(text, overlap) if overlap else bare), bare

    def _context(self, parts: tuple[str, ...]) -> str:
        """Title and headings, repeated parts once, cut at a token boundary to its share of the window."""
        context = " › ".join(dict.fromkeys(part.strip() for part in parts if part.strip()))
        offsets = self._tokenizer.encode(context, add_special_tokens=False).offsets
        limit = self.sizes.context_tokens
        return context if len(offsets) <= limit else context[: offsets[limit - 1][1] if limit else 0].rstrip()


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Cut a long text where a paragraph, line or word ends: the splitter takes quadratic time where it finds no such place
    (87 s for 320,000 characters of unpunctuated Chinese), and a window bounds that.
    """
    start = 0
    while len(text) - start > WINDOW_CHARS:
        half, end = start + WINDOW_CHARS // 2, start + WINDOW_CHARS
        places = (text.rfind(mark, half, end) + len(mark) for mark in ("\n\n", "\n", " "))
        cut = next((place for place in places if place > half), end)
        yield start, cut
        start = cut
    yield start, len(text)


#: One whose chunks overlap, and one whose chunks do not.
Splitters: TypeAlias = tuple[MarkdownSplitter | TextSplitter, MarkdownSplitter | TextSplitter]


def _capped(splitters: Splitters, text: str, window: tuple[int, int]) -> Iterator[tuple[int, str]]:
    """Cut what the splitter could not bound: to WordPiece a word of 100 characters or a million is one unknown token.

    A cut word can have many tokens where the whole had one, and a window can be blank, so each is split once more. Where
    there is such a word nothing overlaps: of what is cut again, parts would lie within their neighbours.
    """
    first, last = window
    splitter, bare = splitters
    chunks = splitter.chunk_indices(text[first:last])
    if splitter is not bare and any(len(chunk) > MAX_CHARS for _, chunk in chunks):
        chunks = bare.chunk_indices(text[first:last])
    for inside, chunk in chunks:
        start = first + inside
        if len(chunk) <= MAX_CHARS:
            yield start, chunk
            continue
        for offset in range(0, len(chunk), MAX_CHARS):
            for inner, part in bare.chunk_indices(chunk[offset : offset + MAX_CHARS]):
                yield start + offset + inner, part


def _heading(line: str) -> tuple[int, str] | None:
    """Level and name; a closing row of # goes, one that belongs to the name ("C#") stays."""
    match = _HEADING.match(line)
    if match is None:
        return None
    name = match[2].strip()
    opened = name.rstrip("#")
    if opened != name and (not opened or opened[-1].isspace()):
        name = opened.rstrip()
    return (len(match[1]), name) if name else None


def _fence_after(fence: str, line: str) -> str:
    """The fence of code that is open behind this line: only a bare mark closes one, and inline code opens none."""
    mark = _FENCE.match(line)
    if mark is None:
        return fence
    if fence:
        return "" if mark[1].startswith(fence) and not mark[2].strip() else fence
    return "" if mark[1][0] == "`" and "`" in mark[2] else mark[1]


class _Headings:
    """The path of Markdown headings above each offset; fenced code has none."""

    def __init__(self, text: str) -> None:
        self._starts: list[int] = []
        self._paths: list[tuple[str, ...]] = []
        path: list[tuple[int, str]] = []
        fence, offset = "", 0
        for line in text.splitlines(keepends=True):
            before, fence = fence, _fence_after(fence, line)
            if not before and not fence and (heading := _heading(line.rstrip("\r\n").removeprefix("\ufeff"))):
                path = [above for above in path if above[0] < heading[0]] + [heading]
                self._starts.append(offset)
                self._paths.append(tuple(name for _, name in path))
            offset += len(line)

    def at(self, offset: int) -> tuple[str, ...]:
        index = bisect.bisect_right(self._starts, offset)
        return self._paths[index - 1] if index else ()


def _page_at(pages: Sequence[Page], offset: int) -> int | None:
    index = bisect.bisect_right(pages, offset, key=lambda page: page.start)
    return pages[index - 1].number if index else None


@dataclass(frozen=True, slots=True)
class ChunkIdentity:
    """What makes a chunk the same chunk: equal ids need neither embedding nor writing again, wherever the chunk moved.

    `payload` digests the filter fields: a point with other labels or attributes is another point, so that a change of
    either becomes visible in the same switch as the text.
    """

    tenant_id: str
    collection_id: str
    document_id: str
    payload: str

    def ids(self, pieces: Iterable[Piece]) -> list[str]:
        """A UUID for each piece, unique within the document: equal texts are told apart by their occurrence."""
        seen: Counter[str] = Counter()
        ids = []
        for piece in pieces:
            text = hashlib.sha256(f"{len(piece.context)}:{piece.embedded}".encode()).hexdigest()
            parts = (self.tenant_id, self.collection_id, str(PIPELINE_VERSION), self.document_id, self.payload, text)
            ids.append(str(uuid.uuid5(_POINT_NAMESPACE, "\0".join((*parts, str(seen[text]))))))
            seen[text] += 1
        return ids
