"""Counting by words gives exactly what the tokenizer counts, and cuts where the tokenizer's own count would."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from rag.embedding.hashing import HashRuntime
from rag.splitting import wordpiece
from rag.splitting.chunking import MARKDOWN, PLAIN, Chunker, Cut, Sizes
from rag.splitting.wordpiece import WordCounts, is_by_word
from tests.support import examples

# Everything that normalising, splitting into words or added tokens could look at across a boundary.
_ODD = [
    " ",
    "\n",
    "\r\n",
    "\t",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\xa0",
    "\u200b",
    "\u2028",
    "\u3000",
    "\ufeff",
    "\x00",
    "\ufffd",
]
_MARKS = ["\u0301", "\u0327", "é", "ǆ", "İ", "ﬁ", "ς", "Σ", "가", "\u1100\u1161", "漢", "字", "👩🏽", "ɬ", "# ", "```\n", "- "]
_ADDED = ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "[", "]", "##s", "can't", "3.14", "_", "-"]
_parts = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="abcdefghij \n", max_size=300),
    st.sampled_from(_ODD + _MARKS + _ADDED),
    st.builds(lambda word, count: word * count, st.sampled_from(["x", "ab ", "7.", "字", "é"]), st.integers(1, 400)),
)
texts = st.lists(_parts, max_size=30).map("".join)


@pytest.fixture(scope="module")
def counts(tokenizer: Tokenizer) -> WordCounts:
    """One for all examples, as one serves all documents."""
    return WordCounts(tokenizer)


@given(text=texts)
@example("a\x0bb a\x1cb a\x85b \u0301a a\u200b b")  # white space to Python that the tokenizer drops, marks after a blank
@example("x" * 100 + " " + "x" * 101)  # the longest word that is not one unknown token, and a longer one
@settings(max_examples=examples(400), deadline=None)
def test_words_count_what_the_tokenizer_counts(counts: WordCounts, tokenizer: Tokenizer, text: str) -> None:
    exact = len(tokenizer.encode(text, add_special_tokens=False).ids)
    assert counts.count(text) == exact == counts.count(text)  # met for the first time, and remembered


@given(text=texts, tokens=st.integers(2, 60), overlap=st.integers(0, 20), cut=st.sampled_from([PLAIN, MARKDOWN]))
@settings(max_examples=examples(60), deadline=None)
def test_texts_are_split_where_the_tokenizer_would_split_them(
    tokenizer_json: str, text: str, tokens: int, overlap: int, cut: Cut
) -> None:
    chunker = Chunker(tokenizer_json, Sizes(tokens, overlap_tokens=min(overlap, tokens // 2)))
    by_word = [*chunker.split(text, cut, title="")]
    chunker._words = None
    assert [*chunker.split(text, cut, title="")] == by_word


def test_a_tokenizer_that_reads_across_blanks_is_not_counted_by_words(tokenizer: Tokenizer) -> None:
    assert is_by_word(tokenizer)
    assert not is_by_word(Tokenizer.from_str(HashRuntime().tokenizer_json))
    across = Tokenizer.from_str(tokenizer.to_str())
    across.add_tokens([AddedToken("New York", normalized=False)])
    assert not is_by_word(across)
    parts = json.loads(tokenizer.to_str()) | {"normalizer": None}
    assert not is_by_word(Tokenizer.from_str(json.dumps(parts)))


def test_remembered_words_are_bounded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpiece, "MAX_WORDS", 100)
    counts = WordCounts(tokenizer)
    text = " ".join(str(number) for number in range(300))
    assert counts.count(text) == len(tokenizer.encode(text, add_special_tokens=False).ids)
    assert counts.count("y" * (wordpiece.MAX_CHARS + 1)) > 0
    assert 0 < len(counts) <= 100
    assert max(map(len, counts)) <= wordpiece.MAX_CHARS
