"""A collection's counts and the weights that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rag.lexical.analysis import analyse, feature, runs
from rag.lexical.encoder import MAX_FEATURES, encode_chunk, encode_query
from rag.lexical.languages import stem
from rag.lexical.statistics import CollectionStatistics, Counts, terms_of, total


def statistics_of(*texts: str) -> CollectionStatistics:
    return CollectionStatistics((Counts.of_chunks(encode_chunk("", text).terms for text in texts),))


def score(question: str, statistics: CollectionStatistics, text: str, title: str = "") -> float:
    query, chunk = encode_query(question, statistics), encode_chunk(title, text).sparse
    weights = dict(zip(chunk.indices, chunk.values, strict=True))
    return sum(value * weights.get(index, 0.0) for index, value in zip(query.indices, query.values, strict=True))


def word(text: str) -> int:
    return feature(stem(text, "en"))


def test_counts_add_up_and_take_away_and_survive_packing() -> None:
    rng = np.random.default_rng(1)
    chunks = [terms_of(rng.integers(0, 60, 12).tolist(), "en") for _ in range(40)]
    first, second = Counts.of_chunks(chunks[:15]), Counts.of_chunks(chunks[15:])
    whole = Counts.of_chunks(chunks)
    assert total([first, second]) == whole == Counts.unpack(whole.pack())
    assert total([whole, second.negative()]) == first
    assert total([whole, whole.negative()]) == Counts.none() == Counts.of_chunks([]) == total([])
    assert (
        CollectionStatistics((first, second)).frequencies([5, 2**32 - 1]).tolist()
        == whole.at(np.array([5, 2**32 - 1])).tolist()
    )


def test_how_many_chunks_there_are_and_their_languages() -> None:
    statistics = statistics_of("the loan of a book", "the fine for a book", "das Buch und die Frist sind hier")
    assert statistics.chunks == 3
    assert statistics.languages() == ["en", "de"]
    assert statistics.frequencies([word("book"), word("loan"), word("absent")]).tolist() == [2, 1, 0]
    assert statistics_of().languages() == []


def test_rare_words_weigh_more_and_words_that_are_nowhere_nothing() -> None:
    statistics = statistics_of(*(["the shelf of oak"] * 9), "the shelf of pine")
    assert score("pine", statistics, "pine") > score("oak", statistics, "oak") > 0
    assert encode_query("walnut", statistics).indices == ()
    assert encode_query("pine", statistics_of()).indices == ()


def test_counts_below_zero_ask_for_a_repair_and_not_for_an_error() -> None:
    gone = Counts.of_chunks([encode_chunk("", "walnut shelves").terms]).negative()
    there = [Counts.of_chunks([encode_chunk("", text).terms]) for text in ("oak shelves", "oak boards")]
    query = encode_query("walnut oak", CollectionStatistics((*there, gone)))
    assert query.indices == encode_query("oak", CollectionStatistics((*there,))).indices


def test_a_title_counts_and_length_costs() -> None:
    statistics = statistics_of("the oak shelf", "the pine shelf", "nothing of it")
    assert score("oak", statistics, "a shelf", title="Oak") > score("oak", statistics, "oak shelf")
    assert score("oak", statistics, "oak") > score("oak", statistics, "oak " + "board " * 300)


def test_stop_words_of_a_question_are_not_rare_words_of_another_language() -> None:
    # "was" is German for "what"; one chunk is read as English and has a word "wird".
    statistics = statistics_of("der Hund wird gross und die Katze", "the cat was here for the wird of it")
    german = encode_query("was wird der Hund und die Katze", statistics)
    assert word("wird") not in german.indices


def test_a_word_of_two_languages_is_as_rare_as_both_together() -> None:
    statistics = statistics_of(*(["the running of the dogs is on"] * 8), "das Running und die Hunde sind in der Stadt")
    query = encode_query("running", statistics)
    assert len(query.indices) > 2
    assert max(query.values) < encode_query("Stadt", statistics).values[0] / 10


def test_a_long_question_keeps_its_rarest_words() -> None:
    texts = [" ".join(f"word{letter}{n}" for n in range(40)) for letter in "abcdefgh"]
    assert len(encode_query(" ".join(texts), statistics_of(*texts)).indices) == MAX_FEATURES


@dataclass(frozen=True)
class Case:
    text: str
    language: str


@pytest.mark.parametrize("case", [Case("The loans of books", "en"), Case("Die Ausleihe der Bücher ist frei", "de")])
def test_terms_are_the_features_of_a_chunk_and_its_marks(case: Case) -> None:
    encoded = encode_chunk("Title", case.text)
    terms = set(np.frombuffer(encoded.terms, "<u4").tolist())
    assert set(encoded.sparse.indices) < terms
    assert len(terms) == len(encoded.sparse.indices) + 2
    assert set(analyse(runs(case.text), case.language).counts) <= terms
