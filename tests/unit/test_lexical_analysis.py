"""Which features a text has, and in which language it is read."""

from __future__ import annotations

import pytest

from rag.lexical.analysis import MAX_WORD, Analysed, analyse, feature, has_unspaced, runs
from rag.lexical.encoder import encode_chunk
from rag.lexical.languages import STOP_WORDS, language_of


def of(text: str, language: str | None = None) -> Analysed:
    return analyse(runs(text), language)


def finds(question: str, text: str, language: str) -> bool:
    return bool(of(question, language).counts.keys() & of(text, language).counts.keys())


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The loans that are made for four weeks", "en"),
        ("Die Bücher dürfen für vier Wochen entliehen werden", "de"),
        ("Les livres sont prêtés pour quatre semaines", "fr"),
        ("Los libros se prestan por cuatro semanas a los lectores", "es"),
        ("Книги выдаются на четыре недели", "ru"),
        ("تعار الكتب لمدة أربعة أسابيع", "ar"),
        ("Τα βιβλία δανείζονται", "el"),
        ("図書館の本は四週間借りられます", "en"),
        ("1 (1956), 12-14", "en"),
        ("pgcli -u root -d taxi", "en"),
    ],
)
def test_a_language_is_told_by_its_commonest_words_and_its_script(text: str, language: str) -> None:
    assert language_of([run.lower() for run in runs(text)]) == language


@pytest.mark.parametrize(
    ("question", "text", "language"),
    [
        ("renewing loans", "a loan is renewed", "en"),
        ("Häuser", "das Haus", "de"),
        ("Hauser", "Häuser", "de"),
        ("bibliothèques", "la bibliotheque", "fr"),
        ("книги", "книгу", "ru"),
        ("المكتبات", "مكتبة", "ar"),
        ("Bibliotheksordnung", "Ordnung", "de"),  # by the parts of compounds
        ("図書館", "東京都の図書館は", "en"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width", "en"),
        ("iPhone", "苹果iPhone手机", "en"),
        ("get user name", "def getUserName(self):", "en"),
        ("user_id", "WHERE user_id = 7", "en"),
        ("http server", "HTTPServer", "en"),
        ("config.settings", "import config.settings as s", "en"),
        ("1000", "it costs 1,000 a year", "en"),
        ("email", "send an e-mail", "en"),
        ("C++", "written in C++", "en"),
        ("USA", "in the U.S.A.", "en"),
    ],
)
def test_a_word_is_found_by_its_other_forms(question: str, text: str, language: str) -> None:
    assert finds(question, text, language)


@pytest.mark.parametrize(
    ("question", "text"),
    [("ERR-4711", "ERR-4712"), ("v2.3.1", "v2.3.2"), ("1000", "1001"), ("user_id", "user_ip"), ("C++", "C#")],
)
def test_codes_and_identifiers_are_exact(question: str, text: str) -> None:
    def whole(of_text: str) -> set[int]:
        return set(of(of_text).words)

    assert whole(question)
    assert not whole(question) & whole(text)


def test_an_identifier_is_kept_whole_and_its_parts_weigh_less() -> None:
    analysed = of("getUserName", "en")
    assert analysed.words == [feature("getusernam")]
    assert {feature(part) for part in ("get", "user", "name")} == analysed.beside
    assert analysed.weight(analysed.words[0]) == 1
    assert {analysed.weight(part) for part in analysed.beside} == {0.5}


def test_stop_words_are_no_features_and_each_language_has_some() -> None:
    assert not of("where is the", "en").counts
    assert all(len(words) > 20 for words in STOP_WORDS.values())


def test_pairs_of_characters_where_words_are_not_separated() -> None:
    assert of("図書館").words == [feature("図書"), feature("書館")]
    assert of("茶").beside == {feature("茶")}
    assert has_unspaced("the 図 sign")
    assert not has_unspaced("Übergröße")


@pytest.mark.parametrize("text", ["", " ", "...", "\u0301", "a" * 100_000, "x." * 5_000, "_" * 1_000, "ٱ" * 500, "日" * 5_000])
def test_nothing_that_can_be_a_text_breaks_or_blows_up(text: str) -> None:
    encoded = encode_chunk(text, text)
    assert len(encoded.sparse.indices) == len(set(encoded.sparse.indices)) <= 3 * MAX_WORD + len(text)
    assert all(0 < value < 2.2 for value in encoded.sparse.values)
