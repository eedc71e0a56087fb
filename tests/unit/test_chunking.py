"""Chunks are exact slices of the text, lose nothing but white space, and always fit the model's window."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rag.splitting.chunking import MARKDOWN, MAX_CHARS, PLAIN, Chunker, ChunkIdentity, Page, Piece, Sizes
from tests.support import cpu_seconds, examples

WINDOW = 256  # tokens that the bundled model reads

_MARKS = ["# ", "## ", "\n\n", "\r\n", "\r", "```\n", "- ", "    ", "* a\n", "\u2028", "\x0c", "é", "👩🏽", "ﬁ", "\x00", "\xa0"]
_REPEATED = ["x", "ɬ", "7.", "ab ", " ", "\n", "字", "#", "-x", "é"]
_words = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="abcdefghij ", max_size=400),
    st.text(alphabet="漢字仮名交じり文，。", max_size=120),
    st.sampled_from(_MARKS),
    st.builds(lambda word, count: word * count, st.sampled_from(_REPEATED), st.integers(1, 9000)),
)
texts = st.lists(_words, max_size=12).map("".join)


@pytest.fixture(scope="module")
def chunker(tokenizer_json: str) -> Chunker:
    return Chunker(tokenizer_json)


@pytest.fixture(scope="module")
def small(tokenizer_json: str) -> Chunker:
    """Makes a chunk of a few words, so that each line is one."""
    return Chunker(tokenizer_json, Sizes(text_tokens=4))


def _split(chunker: Chunker, text: str, *, markdown: bool = False, title: str = "", pages: Sequence[Page] = ()) -> list[Piece]:
    return list(chunker.split(text, MARKDOWN if markdown else PLAIN, title=title, pages=pages))


@given(text=texts, markdown=st.booleans(), title=st.text(max_size=600))
@example(text="q" * 4099 + " q" * 205, markdown=False, title="")  # a cut word has tokens, where the whole was one unknown
@example(text="a" + " " * 9000 + "b", markdown=False, title="")  # whole windows of blanks
@example(text="# " + "q" * 4200 + "\n" + "x " * 300, markdown=True, title="é" * 300)
@example(text="\x1f", markdown=False, title="")
@settings(max_examples=examples(120), deadline=None)
def test_chunks_are_exact_ordered_complete_and_fit_the_model(
    chunker: Chunker, tokenizer: Tokenizer, text: str, markdown: bool, title: str
) -> None:
    pieces = _split(chunker, text, markdown=markdown, title=title)
    assert [piece.ordinal for piece in pieces] == list(range(len(pieces)))
    # The splitter trims Unicode's white space; Python's `strip` also takes the separators \x1c to \x1f, which are text to it.
    assert all(text[piece.start : piece.end] == piece.text and re.sub(r"[^\S\x1c-\x1f]", "", piece.text) for piece in pieces)
    edges = [0, *(edge for piece in pieces for edge in (piece.start, piece.end)), len(text)]
    assert edges == sorted(edges)
    assert not "".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)).strip()
    assert all(len(piece.text) <= MAX_CHARS for piece in pieces)
    assert all(len(tokenizer.encode(piece.embedded).ids) <= WINDOW for piece in pieces)


def test_an_empty_or_blank_text_has_no_chunks(chunker: Chunker) -> None:
    assert _split(chunker, "") == _split(chunker, " \r\n\t\u2003\n") == []


def test_a_line_of_many_blanks_is_read_in_linear_time(chunker: Chunker) -> None:
    began = time.process_time()
    _split(chunker, "# a" + " " * 3_000 + "b" + "#" * 3_000 + " " * 3_000 + "c\n\ntext", markdown=True)
    assert time.process_time() - began < 10  # a cubic pattern takes minutes


NESTED = """preface

# One

under one

## Two

under two

```python
# no heading
```

after the code

# Three

under three
"""
EXPECTED = {
    "preface": (),
    "under one": ("One",),
    "under two": ("One", "Two"),
    "after the code": ("One", "Two"),
    "under three": ("Three",),
}


def test_each_chunk_has_the_path_of_headings_above_it(small: Chunker) -> None:
    pieces = _split(small, NESTED, markdown=True)
    paths = {word: piece.headings for piece in pieces for word in EXPECTED if word in piece.text}
    assert paths == EXPECTED


@pytest.mark.parametrize(
    ("line", "name"),
    [("# C#", "C#"), ("# a ##", "a"), ("#\ta #b\t", "a #b"), ("###### six", "six"), ("# # #", "#"), ("# über \u2028", "über")],
)
def test_a_heading_is_named_without_its_marks(chunker: Chunker, line: str, name: str) -> None:
    assert _split(chunker, f"{line}\r\ntext", markdown=True)[0].headings == (name,)


FENCED = ["~~~\n# fenced", "````\n```\n# fenced", "```\n```python\n# fenced", "```\n~~~\n# fenced"]


@pytest.mark.parametrize("line", ["#no blank", "####### seven", "# ", "#", "    # code", *FENCED])
def test_what_is_no_heading_names_nothing(small: Chunker, line: str) -> None:
    pieces = _split(small, f"before\n\n{line}\n\nthe text that follows", markdown=True)
    assert len(pieces) > 1
    assert all(piece.headings == () for piece in pieces)


@pytest.mark.parametrize("opening", ["```code``` in a line", "~~~\n~~~", "```\n````", "```sh\n# no\n```  "])
def test_headings_after_code_count_again(small: Chunker, opening: str) -> None:
    pieces = _split(small, f"{opening}\n\n# Heading\n\nthe text that follows", markdown=True)
    assert pieces[-1].headings == ("Heading",)


def test_plain_text_has_no_headings(chunker: Chunker) -> None:
    assert _split(chunker, "# One\n\ntext")[0].headings == ()


def test_the_title_and_headings_are_embedded_once_each_before_the_text(chunker: Chunker) -> None:
    piece = _split(chunker, "# Rules\n\n## Loans\n\nfour weeks", markdown=True, title=" Rules ")[-1]
    assert piece.embedded.startswith("Rules")
    assert piece.context.split(" › ") == list(dict.fromkeys(["Rules", *piece.headings]))


def test_a_long_context_is_cut_to_its_share(chunker: Chunker, tokenizer: Tokenizer) -> None:
    context = _split(chunker, "text", title="antidisestablishmentarianism " * 30)[0].context
    assert len(tokenizer.encode(context, add_special_tokens=False).ids) == chunker.sizes.context_tokens


def test_chunks_carry_the_pages_that_they_span(tokenizer_json: str) -> None:
    first, second, third = "alpha " * 50, "beta " * 50, "gamma " * 50
    text = first + second + third
    pages = [Page(1, 0), Page(2, len(first)), Page(3, len(first + second))]
    pieces = _split(Chunker(tokenizer_json), text, pages=pages)
    words = ["alpha", "beta", "gamma"]
    spans = [[number for number, word in enumerate(words, 1) if word in piece.text] for piece in pieces]
    assert [(piece.first_page, piece.last_page) for piece in pieces] == [(span[0], span[-1]) for span in spans]
    assert any(len(span) > 1 for span in spans)


def test_text_without_pages_names_none(chunker: Chunker) -> None:
    piece = _split(chunker, "text")[0]
    assert (piece.first_page, piece.last_page) == (None, None)


def _piece(text: str, ordinal: int = 0, context: str = "") -> Piece:
    return Piece(ordinal, ordinal * 100, ordinal * 100 + len(text), text, context, (), None, None)


HERE = ChunkIdentity("tenant", "collection", "document", "payload")


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from(["x", "y", "b\n\nx"]))))
@settings(deadline=None)
def test_ids_are_unique_in_a_document_and_stable(contents: list[tuple[str, str]]) -> None:
    pieces = [_piece(text, ordinal, context) for ordinal, (context, text) in enumerate(contents)]
    ids = HERE.ids(pieces)
    assert len(set(ids)) == len(pieces)
    assert ids == HERE.ids(pieces)


@pytest.mark.parametrize("field", ["tenant_id", "collection_id", "document_id", "payload"])
def test_ids_differ_by_everything_that_places_a_chunk(field: str) -> None:
    assert HERE.ids([_piece("x")]) != replace(HERE, **{field: "other"}).ids([_piece("x")])


def test_a_chunk_that_moved_keeps_its_id() -> None:
    before = HERE.ids([_piece("x", 0), _piece("y", 1)])
    after = HERE.ids([_piece("new", 0), _piece("y", 1), _piece("x", 2)])
    assert before == [after[2], after[1]]


def test_context_and_text_cannot_trade_places() -> None:
    together, apart = _piece("a\n\nx"), _piece("x", context="a")
    assert together.embedded == apart.embedded
    assert HERE.ids([together]) != HERE.ids([apart])


@pytest.mark.parametrize("unit", ["\u4e2d", "a.", "> ", "[a]: b\n", "word ", "# H\n\ntext\n\n"])
def test_a_long_text_without_places_to_cut_is_split_in_linear_time_and_loses_nothing(chunker: Chunker, unit: str) -> None:
    """Quadratic before: 87 s for 320,000 characters of Chinese. Four times the text may take nine times as long."""
    seconds = {}
    for length in (30_000, 120_000):
        text = unit * (length // len(unit))
        pieces = list(chunker.split(text, MARKDOWN, title=""))
        seconds[length] = cpu_seconds(lambda text=text: [*chunker.split(text, MARKDOWN, title="")])  # type: ignore[misc]
        assert all(text[piece.start : piece.end] == piece.text for piece in pieces)
        covered = "".join("".join(piece.text.split()) for piece in pieces)
        assert covered == "".join(text.split())
    assert seconds[120_000] < 9 * seconds[30_000] + 0.5
