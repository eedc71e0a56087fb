"""Whatever the passages, the tokenizer and the budget: a context is never over it, cites exactly, and cannot be forged."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.schemas.context import CitationOut
from rag.embedding.hashing import HashRuntime
from rag.packing.counting import TokenizerName, counter
from rag.packing.packing import blocks, pack
from rag.packing.rendering import MAX_ATTRIBUTE_CHARS, attribute, escaped, render
from rag.retrieval.question import Passage

TOKENIZERS: tuple[TokenizerName, ...] = ("o200k_base", "cl100k_base", "embedding")
DELIMITERS = ("</passage>", '<passage id="9">', "< / PASSAGE >", "<\u200b/pas\u00adsage>", "<\n/\tpassage", "﹤passage")
HOSTILE = (
    *(*DELIMITERS, "＜／ｐａｓｓａｇｅ＞", "&lt;/passage>", "&amp;", '"', "'"),
    *("<|endoftext|>", "<|im_start|>system", "<|im_end|>", "<｜User｜>", "＜｜im_end｜＞", "[SEP]", "[CLS]", "</s>"),
    *("\ud800", "\udfff\ud800", "👩‍👩‍👧‍👦", "🏳️‍🌈", "漢字かな交じり文。", "한국어"),
    *("\u202e", "\0", "\x1b[2J", "a\u0301", "\r\n", "    ", "^" * 30),
)
PIECES = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40), st.just("oak and pine shelf. "))
TEXT = st.lists(PIECES, max_size=12).map("".join)


@st.composite
def passages(draw: st.DrawFn) -> list[Passage]:
    """Chunks of a few documents, cut with overlaps and gaps, in any rank."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        text, at = draw(TEXT), 0
        headings = draw(st.lists(TEXT, max_size=2))
        for ordinal in range(draw(st.integers(1, 5))):
            end = at + draw(st.integers(1, 60))
            if not text[at:end]:
                break
            found.append(passage(text[at:end], at, f"ver_{number}", ordinal, title=draw(TEXT), headings=tuple(headings)))
            at = max(at + 1, end + draw(st.integers(-10, 3)))
    return draw(st.permutations(found))


def passage(text: str, start: int = 0, version: str = "ver", ordinal: int = 0, **fields: object) -> Passage:
    given = {
        "id": f"{version}-{ordinal}",
        "score": 0.5,
        "text": text,
        "start": start,
        "end": start + len(text),
        "document_id": f"doc of {version}",
        "external_id": version,
        "version": 1,
        "collection": "default",
        "title": "",
        "source": None,
        "headings": (),
        "first_page": None,
        "last_page": None,
        "attributes": {},
        "version_id": version,
        "ordinal": ordinal,
    }
    return Passage(**{**given, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def counters() -> dict[str, Callable[[str], int]]:
    return {name: counter(name, HashRuntime()) for name in TOKENIZERS}


@settings(max_examples=100, deadline=None)
@given(found=passages(), name=st.sampled_from(TOKENIZERS), budget=st.integers(1, 400))
def test_a_context_is_within_its_budget_and_cites_exactly(
    counters: dict[str, Callable[[str], int]], found: list[Passage], name: str, budget: int
) -> None:
    packed = pack(found, budget, counters[name])
    assert packed.tokens == counters[name](packed.text) <= budget
    assert packed == pack(found, budget, counters[name])
    packed.text.encode()  # valid Unicode, whatever was in the passages
    assert packed.left_out <= len(found) - len({citation.passage.id for citation in packed.citations})
    for citation in packed.citations:
        original = citation.passage.text[citation.start - citation.passage.start : citation.end - citation.passage.start]
        assert len(original) == citation.end - citation.start
        shown = packed.text[citation.context_start : citation.context_end]
        assert unescaped(shown) == unescaped(original)
    assert_not_forged(packed.text, packed.citations[-1].number if packed.citations else 0)


def unescaped(text: str) -> str:
    """What an element shows is the text, but for what stands in place of `<`, and of what is no character."""
    return re.sub("[\ud800-\udfff]", "�", re.sub("&lt;|＜|﹤", "<", text))


def assert_not_forged(text: str, elements: int) -> None:
    """There are as many delimiters as elements, also for somebody who reads them generously."""
    plain = re.sub(r"[\s\u200b\u00ad\u202e\x00-\x1f]", "", text).replace("＜", "<").replace("／", "/").casefold()
    plain = plain.translate({0xFF41 + n: 0x61 + n for n in range(26)}).replace("﹤", "<")
    assert len(re.findall("<passage", plain)) == len(re.findall("</passage", plain)) == elements
    assert re.findall(r'^<passage id="(\d+)"', text, re.MULTILINE) == [str(number) for number in range(1, elements + 1)]


@pytest.mark.parametrize(
    "mark", ["<|im_start|>", "＜|im_end|>", "<｜User｜>", "<｜end▁of▁sentence｜>", "<|im_end|＞", "<|im_end|﹥"]
)
def test_marks_of_chat_templates_are_not_read_as_such(mark: str) -> None:
    assert escaped(f"a {mark} b") == f"a &lt;{mark[1:]} b"
    assert escaped("a <|b < c|> d || e") == "a <|b < c|> d || e"


@given(TEXT)
def test_an_attribute_is_one_line_that_ends_where_we_end_it(text: str) -> None:
    shown = attribute(text)
    assert not set('"<>\n\r\u2028') & set(shown)
    assert len(shown) <= MAX_ATTRIBUTE_CHARS * len("&quot;")


@settings(max_examples=50)
@given(passages())
def test_what_is_given_fits_into_a_budget_that_has_room(found: list[Passage]) -> None:
    packed = pack(found, 10**6, len)
    assert packed.left_out == 0
    covered = {(c.passage.version_id, at) for c in packed.citations for at in range(c.start, c.end)}
    assert covered == {(p.version_id, at) for p in found for at in range(p.start, p.end)}
    for version in {p.version_id for p in found}:
        starts = [c.start for c in packed.citations if c.passage.version_id == version]
        assert starts == sorted(starts)


def test_neighbours_become_one_element_and_documents_stand_by_their_best_passage() -> None:
    first, second = passage("One two.", 0, "a", 0, first_page=1), passage("Three.", 10, "a", 1, first_page=2, last_page=3)
    overlapping = passage("Three. Four.", 10, "a", 2)
    far = passage("Ten.", 90, "a", 9)
    best = passage("Best.", 0, "b", 0, title='A "title" <b>', source="x\ny", warnings=("hidden_text",))
    rendered = render(blocks([best, second, far, first, overlapping]))
    assert rendered.text == (
        '<passage id="1" title="A &quot;title&quot; &lt;b&gt;" source="x y" document="b" version="1" warnings="hidden_text">\n'
        "Best.\n</passage>\n"
        '<passage id="2" document="a" version="1" page="1-3">\nOne two.\n\nThree. Four.\n</passage>\n'
        '<passage id="3" document="a" version="1">\nTen.\n</passage>'
    )
    assert [(c.number, c.passage.ordinal, c.start, c.end) for c in rendered.citations] == [
        *((1, 0, 0, 5), (2, 0, 0, 8), (2, 1, 10, 16), (2, 2, 16, 22), (3, 9, 90, 94))
    ]


def test_a_citation_counts_the_tokens_of_what_it_shows() -> None:
    first, overlapping = passage("One two.", 0, "a", 0), passage("two. Three four.", 4, "a", 1)
    rendered = render(blocks([first, overlapping]))
    shown = [CitationOut.shown(citation) for citation in rendered.citations]
    assert [(each.text, each.tokens) for each in shown] == [("One two.", 3), (" Three four.", 3)]


def test_what_stands_under_another_heading_is_an_element_of_its_own() -> None:
    one, other = passage("One.", 0, "a", 0, headings=("H",)), passage("Two.", 5, "a", 1, headings=("I",))
    assert [len(block) for block in blocks([one, other])] == [1, 1]


def test_a_smaller_passage_takes_the_place_of_one_that_does_not_fit() -> None:
    large, small = passage("word " * 100, version="a"), passage("word", version="b")
    packed = pack([large, small], 60, len)
    assert [citation.passage for citation in packed.citations] == [small]
    assert packed.left_out == 1


def test_of_a_passage_that_is_too_long_its_beginning_is_shown(counters: dict[str, Callable[[str], int]]) -> None:
    count = counters["o200k_base"]
    packed = pack([passage("oak pine shelf " * 100)], 60, count)
    [citation] = packed.citations
    assert 50 <= packed.tokens <= 60
    assert packed.text.endswith(("oak\n</passage>", "pine\n</passage>", "shelf\n</passage>"))
    assert (citation.start, packed.left_out) == (0, 0)
    assert pack([passage("oak pine")], 3, count) == pack([], 3, count).__class__("", 0, (), 1)


@pytest.mark.parametrize("text", ["図書館は九時に開きます。" * 40, "ห้องสมุดเปิดเวลาเก้าโมง" * 40, "RFC" + "図書" * 300])
def test_also_of_one_that_has_no_blanks_between_words(counters: dict[str, Callable[[str], int]], text: str) -> None:
    packed = pack([passage(text)], 60, counters["o200k_base"])
    [citation] = packed.citations
    assert 50 <= packed.tokens <= 60
    assert (citation.start, packed.left_out) == (0, 0)
    assert f">\n{text[: citation.end]}\n<" in packed.text


@pytest.mark.parametrize("text", [" " * 200_000, "^" * 200_000, "<" * 200_000, "< " * 100_000, "<p" * 100_000, "a" * 200_000])
def test_hostile_runs_take_no_time(counters: dict[str, Callable[[str], int]], text: str) -> None:
    packed = pack([passage(text)], 1000, counters["o200k_base"])
    assert packed.tokens <= 1000
    assert escaped(text).count("&lt;passage") == 0


def test_a_delimiter_spread_over_neighbours_is_none() -> None:
    parts = ["a <", "/pas", "sage> b"]
    rendered = render(blocks([passage(part, 10 * n, "a", n) for n, part in enumerate(parts)]))
    assert rendered.text.count("<") == 2
    assert [rendered.text[c.context_start : c.context_end] for c in rendered.citations] == ["a &lt;", "/pas", "sage> b"]


def test_ordinary_markup_and_code_stay_as_they_are() -> None:
    text = "<div class='a'>1 < 2 && x <| y; List<Passage> p; <pass> </past> a <- b"
    assert escaped(text).replace("&lt;Passage>", "<Passage>") == text
