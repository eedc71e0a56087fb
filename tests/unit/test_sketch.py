"""How alike texts are estimated to be, against counting."""

from __future__ import annotations

import random
import statistics
import tracemalloc

import pytest

from rag import sketch as sketching
from rag.sketch import BANDS, PERMUTATIONS, bands, from_bytes, similarity, sketch, to_bytes
from tests.support import cpu_seconds

WORDS = [f"word{number}" for number in range(3000)]
FIRST, FIRST_BANDS = [197140921, 324988560, 1520768909], [1588279690812219362, 4746673325375550310]
HAN = [chr(0x4E00 + number) for number in range(2000)]


def _likeness(one: str, other: str) -> float:
    first, second = sketch(one), sketch(other)
    assert first is not None
    assert second is not None
    return similarity(first, second)


def _changed(tokens: list[str], vocabulary: list[str], count: int, chance: random.Random) -> list[str]:
    changed = list(tokens)
    for place in chance.sample(range(len(tokens)), count):
        changed[place] = chance.choice(vocabulary)
    return changed


def _jaccard(one: list[str], other: list[str]) -> float:
    first, second = ({tuple(tokens[at : at + 3]) for at in range(len(tokens) - 2)} for tokens in (one, other))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize(("vocabulary", "between"), [(WORDS, " "), (HAN, "")], ids=["words", "characters"])
def test_the_estimate_is_the_jaccard_similarity_of_shingles(vocabulary: list[str], between: str) -> None:
    chance, errors = random.Random(7), []
    for count in (0, 2, 5, 10, 20, 40) * 3:
        one = chance.choices(vocabulary, k=600)
        other = _changed(one, vocabulary, count, chance)
        errors.append(_likeness(between.join(one), between.join(other)) - _jaccard(one, other))
    assert abs(statistics.mean(errors)) < 0.02
    assert max(map(abs, errors)) < 0.12  # four standard errors of 120 draws


def test_case_blanks_punctuation_and_forms_of_characters_do_not_count() -> None:
    assert _likeness("Books may be kept, for FOUR weeks.", "books  may be\n\nkept for four weeks") == 1
    assert _likeness("caf\u00e9 \uff21\uff22 is open all night", "cafe\u0301 AB is open all night") == 1
    assert _likeness("書籍は四週間借りられます", "書籍は四週間 借りられます。") == 1


def test_other_texts_are_not_alike_and_share_no_band() -> None:
    chance = random.Random(3)
    one, other = (sketch(" ".join(chance.choices(WORDS, k=400))) for _ in range(2))
    assert one is not None
    assert other is not None
    assert similarity(one, other) < 0.1
    assert not {*bands(one)} & {*bands(other)}


def test_what_is_much_alike_shares_a_band() -> None:
    chance, missed = random.Random(5), 0
    for _ in range(60):
        tokens = chance.choices(WORDS, k=300)
        one, other = sketch(" ".join(tokens)), sketch(" ".join(_changed(tokens, WORDS, 10, chance)))  # about 0.82
        assert one is not None
        assert other is not None
        missed += not {*bands(one)} & {*bands(other)}
    assert missed <= 2


def test_signatures_are_the_same_for_ever_and_survive_storing() -> None:
    signature = sketch("Books may be kept for four weeks.")
    assert signature is not None
    assert (len(signature), len({*bands(signature)})) == (PERMUTATIONS, BANDS)
    assert [int(number) for number in signature[:3]] == FIRST
    assert bands(signature)[:2] == FIRST_BANDS
    assert to_bytes(from_bytes(to_bytes(signature))) == to_bytes(signature)


def test_short_texts_have_a_signature_and_texts_without_a_word_none() -> None:
    assert _likeness("yes", "Yes!") == 1
    assert _likeness("yes", "no") < 0.1
    assert _likeness("one two", "two one") < 0.1
    assert sketch(" \n … — !") is None
    assert sketch("") is None


#: Letters that combine, fold or turn into several with their neighbours, and what stands between them.
STRANGE = ["a", "\u0301", "\u0323", "\u03a3", "\u03b1", "\uff76", "\uff9e", "\u30ab", "\u3099", "\u304b", "\u4e00", "\u0e01"]
STRANGE += ["\u0e33", "\ufdfa", "\u1100", "\u1161", "\u11a8", "\u00a8", "\u2003", "\u0085", "-", "'", "_", "7", "\u00b2"]


def test_the_windows_of_a_text_have_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(11)
    texts = ["".join(chance.choices([*STRANGE, " "], k=900)) for _ in range(20)]
    whole = [(sketching._tokens(text), sketch(text)) for text in texts]
    monkeypatch.setattr(sketching, "WINDOW", 256)
    for text, (tokens, signature) in zip(texts, whole, strict=True):
        parts = [*sketching._windows(text)]
        assert len(parts) > 3
        assert "".join(parts) == text
        assert [token for part in parts for token in sketching._tokens(part)] == tokens
        found = sketch(text)
        assert found is not None
        assert signature is not None
        assert [*found] == [*signature]


def test_a_word_longer_than_a_window_has_a_sketch_too() -> None:
    assert sketch("a" * 100_000) is not None
    assert _likeness("a" * 100_000 + " books may be kept", "a" * 100_000 + " books may be kept!") == 1


def test_the_memory_that_a_sketch_takes_does_not_grow_with_the_text() -> None:
    chance = random.Random(9)
    text = " ".join(chance.choices(WORDS, k=150_000))
    tracemalloc.start()
    try:
        sketch(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024, peak


def test_marks_without_end_on_one_letter_take_linear_time() -> None:
    """Sorting them takes the square of their number: 40 s of half a million."""
    few, many = ("a" + "\u0301\u0323" * count for count in (10_000, 250_000))
    assert cpu_seconds(lambda: sketch(many)) < 60 * max(cpu_seconds(lambda: sketch(few)), 0.001)
    assert _likeness("cafe" + "\u0301" * 40 + " is open", "caf\u00e9 is open") == 1
