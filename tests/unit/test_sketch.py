"""How alike texts are estimated to be, against counting."""

from __future__ import annotations

import random
import statistics

import pytest

from rag.sketch import BANDS, PERMUTATIONS, bands, from_bytes, similarity, sketch, to_bytes

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
