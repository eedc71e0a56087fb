"""Text becomes chunks with exact offsets: `text[start:end]` is the chunk. Pure; sizes are the embedding model's tokens."""

from __future__ import annotations

import bisect
import functools
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from tokenizers import Tokenizer

from rag.corpus import PIPELINE_VERSION
from rag.splitting.atoms import Atom, prose, words
from rag.splitting.markdown import Headings
from rag.splitting.merging import Limits, Sized, filled, joined, windows
from rag.splitting.syntax import code
from rag.splitting.wordpiece import WordCounts, is_by_word

_POINT_NAMESPACE = uuid.UUID("6c7a4f2e-8a53-5d0b-9a5e-4d2f3f1c9b10")
MAX_CHARS = 4_000  # of one chunk
COUNTED = 256  # atoms in one go

Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large chunks are, in tokens of the embedding model.

    Context (title and headings) and text share the model's window: 40 + 212 + 2 special tokens ≤ 256 of MiniLM.
    """

    text_tokens: int = 212
    context_tokens: int = 40
    overlap_tokens: int = 0  #: at most, of a chunk with the one before it


@dataclass(frozen=True, slots=True)
class Cut:
    """Along what a text is cut."""

    kind: str = "plain"  #: plain, markdown, code, sentence or fixed
    outline: str = ""  #: of code, as `rag.splitting.syntax.outline` makes it

    def atoms(self, text: str) -> Iterator[Atom]:
        if self.kind == "code":
            return code(text, self.outline)
        if self.kind == "fixed":
            return words(text)
        return prose(text, markdown=self.kind == "markdown", whole_sentences=self.kind == "sentence")


PLAIN, MARKDOWN = Cut(), Cut("markdown")


@dataclass(frozen=True, slots=True)
class Page:
    number: int  #: 1-based
    start: int  #: offset of its first character


def embedded_text(context: str, text: str) -> str:
    """What the model reads of a chunk: part of its identity, so a change here is a change of PIPELINE_VERSION."""
    return f"{context}\n\n{text}" if context else text


@dataclass(frozen=True, slots=True)
class Parent:
    """What is returned where a chunk was found; the same for all its chunks but for the gap."""

    start: int
    end: int
    gap: str  #: white space between this chunk and the one before it in the parent


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
    parent: Parent | None = None

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
        # What a chunk repeats of the one before it is part of it.
        self._limits = Limits(self.sizes.text_tokens - self.sizes.overlap_tokens, MAX_CHARS)

    def split(self, text: str, cut: Cut = PLAIN, *, title: str, pages: Sequence[Page] = ()) -> Iterator[Piece]:
        """Yield chunks in reading order; they are trimmed of white space, and no other text lies outside of all."""
        headings = Headings(text) if cut.kind == "markdown" else None
        context_of = functools.lru_cache(maxsize=256)(self._context)
        before: tuple[Span, tuple[str, ...]] | None = None
        for ordinal, (first, end) in enumerate(self._spans(text, cut)):
            path, start = headings.at(first) if headings else (), first
            if before is not None and before[1] == path and self.sizes.overlap_tokens:
                start = self._extended(text, before[0], (first, end), cut)
            before = (first, end), path
            yield Piece(
                ordinal=ordinal,
                start=start,
                end=end,
                text=text[start:end],
                context=context_of((title, *path)),
                headings=path,
                first_page=_page_at(pages, start),
                last_page=_page_at(pages, end - 1),
            )

    def _spans(self, text: str, cut: Cut) -> Iterator[Span]:
        """Chunks without what they repeat."""
        for window in windows(self._sized(text, cut.atoms(text)), text):
            runs = filled(window, self._limits) if cut.kind == "fixed" else joined(text, window, self._limits)
            for first, behind in runs:
                yield from self._fitting(text, window[first:behind])

    def _sized(self, text: str, atoms: Iterator[Atom]) -> Iterator[Sized]:
        """Atoms with their tokens, those that are too large taken apart into words. What is longer than a chunk is not counted:
        a tokenizer took 1.2 GB for 2 MB without a blank.
        """
        while batch := [*islice(atoms, COUNTED)]:
            short = [atom for atom in batch if atom.end - atom.start <= MAX_CHARS]
            counted = dict(zip(short, self._counts([text[atom.start : atom.end] for atom in short]), strict=True))
            for atom in batch:
                tokens = counted.get(atom)
                if tokens is not None and tokens <= self._limits.tokens:
                    yield Sized(atom, tokens)
                    continue
                parts = words(text, *atom[:2], atom.level)
                while some := [*islice(parts, COUNTED)]:
                    yield from map(Sized, some, self._counts([text[part.start : part.end] for part in some]))

    def _fitting(self, text: str, run: Sequence[Sized]) -> Iterator[Span]:
        """The run as a chunk, or in halves: tokenizers may read two texts otherwise when they are joined, and a single atom can
        be too large, so every chunk is counted as it is.
        """
        start, end = run[0].atom.start, run[-1].atom.end
        if (end - start <= MAX_CHARS and self.count(text[start:end]) <= self._limits.tokens) or end - start == 1:
            yield start, end
            return
        if len(run) == 1:
            middle = (start + end) // 2
            halves = [[Sized(trimmed, 0)] for half in ((start, middle), (middle, end)) if (trimmed := _trimmed(text, *half))]
        else:
            halves = [[*run[: len(run) // 2]], [*run[len(run) // 2 :]]]
        for half in halves:
            yield from self._fitting(text, half)

    def _extended(self, text: str, before: Span, span: Span, cut: Cut) -> int:
        """Where the chunk begins with what it repeats of the one before it: sentences, or else words, or nothing."""
        parts = [] if cut.kind == "fixed" else [prose(text[slice(*before)], whole_sentences=cut.kind == "sentence")]
        parts += [] if cut.kind == "sentence" else [words(text[slice(*before)])]
        for atoms in parts:
            begin, tokens = span[0], 0
            for atom in reversed([*atoms][1:]):
                tokens += self.count(text[before[0] + atom.start : before[0] + atom.end])
                if tokens > self.sizes.overlap_tokens:
                    break
                begin = before[0] + atom.start
            if begin < span[0] and self._holds(text, begin, before[1], span[1]):
                return begin
        return span[0]

    def _holds(self, text: str, begin: int, repeated: int, end: int) -> bool:
        fits = end - begin <= MAX_CHARS and self.count(text[begin:end]) <= self.sizes.text_tokens
        return fits and self.count(text[begin:repeated]) <= self.sizes.overlap_tokens

    def count(self, text: str) -> int:
        return self._counts([text])[0]

    def _counts(self, texts: Sequence[str]) -> list[int]:
        if self._words is not None:
            return [*map(self._words.count, texts)]
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _context(self, parts: tuple[str, ...]) -> str:
        """Title and headings, repeated parts once, cut at a token boundary to its share of the window."""
        context = " › ".join(dict.fromkeys(part.strip() for part in parts if part.strip()))
        offsets = self._tokenizer.encode(context, add_special_tokens=False).offsets
        limit = self.sizes.context_tokens
        return context if len(offsets) <= limit else context[: offsets[limit - 1][1] if limit else 0].rstrip()


def _trimmed(text: str, start: int, end: int) -> Atom | None:
    """Without the white space around it; None if nothing else is there."""
    part = text[start:end]
    bare = part.strip()
    first = start + len(part) - len(part.lstrip())
    return Atom(first, first + len(bare), 0) if bare else None


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
