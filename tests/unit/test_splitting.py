"""What each splitter keeps together, how little an edit changes, and that no text makes splitting slow."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from benchmarks.corpus import Writer
from benchmarks.edits import EditedDocument, Touched
from ingestion.media import LANGUAGES as KNOWN
from rag.splitting.chunking import MARKDOWN, MAX_CHARS, PLAIN, Chunker, Cut, Piece, Sizes
from rag.splitting.grammars import GRAMMARS
from rag.splitting.merging import WINDOW
from rag.splitting.syntax import LANGUAGES, outline


@pytest.fixture(scope="module")
def chunker(tokenizer_json: str) -> Chunker:
    return Chunker(tokenizer_json)


def _texts(tokenizer_json: str, text: str, cut: Cut, tokens: int, overlap: int = 0) -> list[str]:
    return [piece.text for piece in Chunker(tokenizer_json, Sizes(tokens, overlap_tokens=overlap)).split(text, cut, title="")]


# --- sentences

#: What must stay whole, and what may follow it.
SENTENCES = [
    "J. R. Smith measured 3.5 m and left.",
    "Dr. Ash saw vs. Elm (cf. Fig. 3, No. 12) what al. Oak measured.",
    "Herr Prof. Esche nennt z.B. Abb. 4 und bzw. Ulme.",
    "The answer was no.",
    "They drew a fig.",
    "Nobody knows Addr.",
    "He asked: “Is that so?” and went on.",
    "Nobody answered him...",
    "“It is!”",
    "今天天气很好。",
    "我们去公园吧！",
    "雨が降っている。",
    "「本当ですか？」",
    "यह एक वाक्य है।",
    "هل هذا صحيح؟",
    "A line may end in the\nmiddle of a sentence, also before\nSmith or another name.",
]


@pytest.mark.parametrize("seed", range(4))
def test_no_sentence_is_cut(tokenizer_json: str, seed: int) -> None:
    chosen = random.Random(seed).choices(SENTENCES, k=60)
    text = "".join(f"{one}{'' if one[-1] in '。！」' else ' '}" for one in chosen)
    chunks = _texts(tokenizer_json, text, Cut("sentence"), 48)
    assert len(chunks) > 10
    for before in chunks[:-1]:
        assert any(before.endswith(one) for one in SENTENCES), before[-40:]


def test_a_sentence_that_exceeds_the_cap_is_cut_between_words(tokenizer_json: str) -> None:
    text = "Short one. " + "word " * 100 + "end. Another short one."
    chunks = _texts(tokenizer_json, text, Cut("sentence"), 32)
    assert " ".join(chunks).split() == text.split()
    assert chunks[0].startswith("Short one.")


def test_sentences_repeat_whole_or_not_at_all(tokenizer_json: str) -> None:
    text = " ".join(f"Sentence number {number} says something." for number in range(100))
    chunks = _texts(tokenizer_json, text, Cut("sentence"), 48, overlap=12)
    assert all(chunk.startswith("Sentence number") for chunk in chunks)
    assert len(" ".join(chunks)) > 1.1 * len(text)


# --- fixed


def test_fixed_chunks_are_full_and_regard_nothing_but_words(tokenizer_json: str) -> None:
    text = "# One\n\n" + "alpha. beta\n\n" * 200
    sizes = Sizes(40, overlap_tokens=10)
    chunker = Chunker(tokenizer_json, sizes)
    pieces = [*chunker.split(text, Cut("fixed"), title="")]
    assert all(36 <= chunker.count(piece.text) <= 40 for piece in pieces[1:-1])
    assert all(before.end > after.start for before, after in itertools.pairwise(pieces))


# --- code

PYTHON = '''"""Says why."""

import os

LIMIT = 3


class Shelf:
    """Holds books."""

    def add(self, book):
        """Put one more on it."""
        self.books.append(book)
        return len(self.books)

    def remove(self, book):
        """Take one off it."""
        self.books.remove(book)
        return len(self.books)


# Says what it is for.
def loan(book, weeks=4):
    if book.lent:
        raise ValueError(book)
    book.lent = True
    return weeks


def give_back(book):
    book.lent = False
    return book
'''


def test_code_is_cut_before_definitions_and_what_is_said_above_them(tokenizer_json: str) -> None:
    chunks = _texts(tokenizer_json, PYTHON, Cut("code", outline(PYTHON, "python")), 64)
    beginnings = [chunk.splitlines()[0] for chunk in chunks]
    assert {"def remove(self, book):", "# Says what it is for."} <= set(beginnings), beginnings
    whole = next(chunk for chunk in chunks if chunk.startswith("# Says"))
    assert "return weeks" in whole


SAMPLES = {
    "c": "int first(int a) {\n  return a;\n}\n",
    "c++": "class First {\n  int a = 1;\n};\n",
    "csharp": "class First {\n  int a = 1;\n}\n",
    "go": "func first(a int) int {\n\treturn a\n}\n",
    "java": "class First {\n  int a = 1;\n}\n",
    "javascript": "function first(a) {\n  return a;\n}\n",
    "php": "function first($a) {\n  return $a;\n}\n",
    "python": "def first(a):\n    return a\n",
    "ruby": "def first(a)\n  return a\nend\n",
    "rust": "fn first(a: i32) -> i32 {\n  a\n}\n",
    "shell": "first() {\n  echo a\n}\n",
    "typescript": "function first(a: number): number {\n  return a;\n}\n",
}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_each_language_is_known_by_its_syntax(tokenizer_json: str, language: str) -> None:
    """Without blank lines only a syntax tree tells where a definition begins."""
    one = SAMPLES[language].rstrip("\n")
    text = "\n".join(one.replace("irst", f"irst{number}") for number in range(9))
    text = f"<?php\n{text}" if language == "php" else text
    tokens = Chunker(tokenizer_json).count(one) + 8
    chunks = _texts(tokenizer_json, text, Cut("code", outline(text, language)), tokens)
    definitions = [chunk for chunk in chunks if not chunk.startswith("<?php")]
    assert len(definitions) >= 8
    assert all("irst" in chunk.splitlines()[0] for chunk in definitions), chunks
    assert all("irst" not in "".join(chunk.splitlines()[1:]) for chunk in definitions), chunks


def test_there_is_a_grammar_for_each_language_and_a_source_for_each_name() -> None:
    assert set(GRAMMARS) == LANGUAGES == set(SAMPLES)
    assert set(KNOWN) >= LANGUAGES


def test_code_that_takes_too_long_to_parse_is_cut_by_its_lines(chunker: Chunker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.splitting.grammars.MAX_PARSE_S", 0.0)
    text = "x = [\n" * 20_000
    assert outline(text, "python") == ""
    pieces = [*chunker.split(text, Cut("code"), title="")]
    assert " ".join(piece.text for piece in pieces).split() == text.split()


# --- sections


def test_sections_are_joined_whole_or_not_at_all(chunker: Chunker) -> None:
    small = "".join(f"## Small {number}\n\nA few words.\n\n" for number in range(6))
    large = "## Large\n\n" + "Many words stand here. " * 120 + "\n\n"
    pieces = [*chunker.split(f"# Title\n\n{small}{large}{small}", MARKDOWN, title="")]
    assert pieces[0].text.startswith("# Title")
    assert pieces[0].text.count("## Small") > 3
    of_large = [piece for piece in pieces if "Many words" in piece.text]
    assert len(of_large) > 1
    assert of_large[0].text.startswith("## Large")
    assert all("Small" not in piece.text for piece in of_large)


def test_a_heading_stays_with_what_follows_it(chunker: Chunker) -> None:
    text = "\n\n".join(f"## Part {number}\n\n" + "A sentence of some words. " * 45 for number in range(8))
    pieces = [*chunker.split(text, MARKDOWN, title="")]
    assert all(len(piece.text) > 60 for piece in pieces if piece.text.startswith("##"))


# --- differences


def _embedded(chunker: Chunker, text: str, cut: Cut = PLAIN) -> set[str]:
    return {piece.embedded for piece in chunker.split(text, cut, title="")}


@pytest.mark.parametrize("sentences", [4, 2_000])
def test_what_is_far_from_an_edit_keeps_its_chunks(chunker: Chunker, tokenizer_json: str, sentences: int) -> None:
    """Also where nothing but sentences structures the text, and where it has more atoms than are joined in one go."""
    writer = Writer(1, tokenizer_json)
    text = "\n\n".join(" ".join(writer.sentence() for _ in range(sentences)) for _ in range(max(1, 6_000 // sentences)))
    before = _embedded(chunker, text)
    assert len(before) > 300
    for at in (0, len(text) // 2):
        place = text.index(" ", at) + 1
        changed = _embedded(chunker, f"{text[:place]}An inserted sentence of seven words. {text[place:]}") - before
        assert 1 <= len(changed) <= 8


def _charged_over_touched(chunker: Chunker, tokenizer_json: str, *, markdown: bool, documents: int) -> float:
    charged = touched = 0
    for number in range(documents):
        document = EditedDocument.written(Writer(number, tokenizer_json), number, markdown=markdown, paragraphs=80)
        document.headings_change = False
        known: set[str] = set()
        for version in range(4):
            if version:
                document.edit(2)
            text, edits = document.rendered()
            pieces = [*chunker.split(text, document.cut, title="title")]
            counts = [chunker.count(piece.embedded) for piece in pieces]
            if version:
                fresh = {piece.embedded: count for piece, count in zip(pieces, counts, strict=True)}
                charged += sum(count for embedded, count in fresh.items() if embedded not in known)
                touched += edits.tokens(pieces, counts)
            known |= {piece.embedded for piece in pieces}
    return charged / touched


@pytest.mark.parametrize("markdown", [False, True])
def test_a_history_of_edits_changes_little_more_than_it_touches(chunker: Chunker, tokenizer_json: str, markdown: bool) -> None:
    assert _charged_over_touched(chunker, tokenizer_json, markdown=markdown, documents=10) <= 1.3


def test_a_chunk_is_touched_by_what_lies_in_it() -> None:
    pieces = [Piece(n, start, start + 10, "", "", (), None, None) for n, start in enumerate((0, 11, 22))]
    counts = [1, 10, 100]
    assert Touched([(9, 12)], []).tokens(pieces, counts) == 11
    assert Touched([(10, 11)], []).tokens(pieces, counts) == 0
    assert Touched([], [11, 12]).tokens(pieces, counts) == 10
    assert Touched([], [0]).tokens(pieces, counts) == 1
    assert Touched([(22, 23)], [31]).tokens(pieces, counts) == 100


def test_a_changed_heading_touches_what_is_embedded_beneath_it(chunker: Chunker, tokenizer_json: str) -> None:
    document = EditedDocument.written(Writer(7, tokenizer_json), 7, markdown=True, paragraphs=60)
    before = _embedded(chunker, document.rendered()[0], MARKDOWN)
    strict = embedded = 0
    for _ in range(6):
        document.edit(0)
        document._change_heading()
        text, edits = document.rendered()
        pieces = [*chunker.split(text, MARKDOWN, title="")]
        counts = [chunker.count(piece.embedded) for piece in pieces]
        changed = {piece.embedded for piece in pieces} - before
        beneath = [piece for piece in pieces if edits.embedded_tokens([piece], [1])]
        assert all(piece.embedded in changed for piece in beneath)
        strict, embedded = strict + edits.tokens(pieces, counts), embedded + edits.embedded_tokens(pieces, counts)
        before |= changed
    assert 0 < strict < embedded


def test_edits_are_seeded_and_marked_where_they_are(tokenizer_json: str) -> None:
    def history() -> list[tuple[str, Touched]]:
        document = EditedDocument.written(Writer(3, tokenizer_json), 3, markdown=True, paragraphs=20)
        versions = [document.rendered()]
        for _ in range(6):
            document.edit(2)
            versions.append(document.rendered())
        return versions

    versions = history()
    assert versions == history()
    assert versions[0][1] == Touched([], [])
    for (before, _), (after, edits) in itertools.pairwise(versions):
        assert edits.inserted or edits.deleted
        kept = after
        for start, end in sorted(edits.inserted, reverse=True):
            kept = kept[:start] + kept[end:]
        words = iter(before.split())
        assert all(word in words for word in kept.split())  # what is not marked stood there before, in this order


# --- speed

HOSTILE = {
    "one line": "word " * 200_000,
    "one word": "x" * 1_000_000,
    "line ends": "\n" * 1_000_000,
    "short lines": "a\n" * 200_000,
    "marks": ". " * 300_000,
    "dots": "." * 1_000_000,
    "headings": "# a\n" * 100_000,
    "fences": "```\n" * 100_000,
    "brackets": "(" * 300_000,
    "han": "字" * 200_000,
    "blanks": "a" + " " * 1_000_000 + "b",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["plain", "markdown", "sentence", "fixed"])
def test_no_text_takes_quadratic_time(chunker: Chunker, name: str, kind: str) -> None:
    """Twice the text may take three times as long, not four. What else happens may spoil one measurement, not three."""
    seconds = [0.0, 0.0]
    for _ in range(3):
        for nth, part in enumerate((4, 2)):
            text = HOSTILE[name][: len(HOSTILE[name]) // (10 * part)]
            began = time.process_time()
            pieces = [*chunker.split(text, Cut(kind), title="")]
            seconds[nth] = time.process_time() - began
            assert "".join("".join(piece.text.split()) for piece in pieces) == "".join(text.split())
        if seconds[1] < 3 * seconds[0] + 0.3:
            return
    pytest.fail(f"the half takes {seconds[0]:.2f} s, the whole {seconds[1]:.2f} s")


@pytest.mark.parametrize("unit", ["a", "&", "&" * 5_000 + " ", "\u0301", "\ufdfa"])
def test_no_text_longer_than_a_chunk_is_counted(tokenizer_json: str, unit: str) -> None:
    """What a tokenizer holds of a text is hundreds of times as large as the text."""
    chunker, counted = Chunker(tokenizer_json), list[int]()
    count = chunker._counts
    chunker._counts = lambda texts: counted.extend(map(len, texts)) or count(texts)  # type: ignore[func-returns-value, method-assign]
    text = unit * (50_000 // len(unit))
    assert "".join(piece.text for piece in chunker.split(text, title="")) == text.replace(" ", "")
    assert max(counted) <= MAX_CHARS


@pytest.mark.full
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["plain", "markdown", "sentence", "fixed", "code"])
def test_a_million_characters_take_seconds(chunker: Chunker, name: str, kind: str) -> None:
    began = time.process_time()
    cut = Cut(kind, outline(HOSTILE[name], "python") if kind == "code" else "")
    assert len([*chunker.split(HOSTILE[name], cut, title="")]) < 250_000
    assert time.process_time() - began < 30


def test_atoms_beyond_a_window_are_joined_across_it(chunker: Chunker) -> None:
    text = "".join(f"{number}.\n" for number in range(3 * WINDOW))
    pieces = [*chunker.split(text, PLAIN, title="")]
    assert sum(chunker.count(piece.text) < 60 for piece in pieces) < 0.1 * len(pieces)
