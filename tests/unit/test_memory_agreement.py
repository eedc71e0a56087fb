"""Whether two facts are the same or contradict each other: a table of pairs that people might say, and what must not be said of
them. Superseding wrongly is the worse error, so none is allowed; of what contradicts, most must be found.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.memories.agreement import Verdict, compare, is_near, is_same
from rag.memories.validity import Span, Within, fit
from rag.memories.wording import wording

NONE, MAY, YES = Verdict.NONE, Verdict.MAY_CONFLICT, Verdict.CONTRADICTS

CONTRADICTING = (
    ("I live in Berlin", "I live in Paris"),
    ("Anna lives in Berlin.", "Anna lives in Rio de Janeiro"),
    ("She is living in Rome", "She lives in Oslo"),
    ("I work at Acme", "I work at Globex Corporation"),
    ("He works for Siemens", "He works for Bosch"),
    ("My phone number is 555-1234", "My phone number is 555-9876"),
    ("My email is ann@old.org", "My email is ann@new.org"),
    ("My name is Ann", "My name's Anna"),
    ("I am 30 years old", "I'm 31 years old"),
    ("My age is 30", "My age is 31"),
    ("My favorite color is blue", "My favorite color is dark green"),
    ("My favourite drink is tea", "My favourite drink is coffee"),
    ("I eat meat", "I don't eat meat"),
    ("I do not drink coffee", "I drink coffee"),
    ("I smoke", "I no longer smoke"),
    ("Bob has a car", "Bob has no car"),
    ("I have two children", "I have three children"),
    ("She weighs 60 kg", "She weighs 58 kg"),
    ("My wife is Maria", "My wife is Clara"),
    ("Anna's manager is Tom", "Anna's manager is Kim"),
    ("I am married to Sam", "I am married to Alex"),
    ("My address is 5 Main Street", "My address is 12 Oak Road"),
    ("I am allergic to nuts", "I am not allergic to nuts"),
    ("My salary is 50,000", "My salary is 60,000"),
)
#: What both may be true, or speaks of different things, times or possibilities.
COMPATIBLE = (
    ("I like pizza", "I like pasta"),
    ("I like Berlin", "I like Paris"),
    ("I visited Paris", "I visited Rome"),
    ("I have a dog", "I have a cat"),
    ("I have a dog named Rex", "I have a dog named Bello"),
    ("My friend is Anna", "My friend is Ben"),
    ("My sister's name is Anna", "My sister's name is Maria"),
    ("A friend's name is Anna", "A friend's name is Ben"),
    ("One of my favorite movies is Alien", "One of my favorite movies is Heat"),
    ("I lived in Berlin", "I live in Paris"),
    ("I used to live in Berlin", "I used to live in Rome"),
    ("I live in Berlin", "I don't live in Paris"),
    ("I will live in Berlin", "I will live in Rome"),
    ("I live in Berlin", "I live in a small house"),
    ("I live in a house", "I live in Berlin"),
    ("Anna lives in Berlin", "Bob lives in Berlin"),
    ("Anna lives in Berlin", "Bob lives in Paris"),
    ("I work at Acme on Mondays", "I work at Globex on Mondays"),
    ("I ran 5 km", "I ran 10 km"),
    ("The meeting is at 3 pm", "The meeting is at 4 pm"),
    ("I speak German", "I speak French"),
    ("I moved from Berlin to Paris", "I moved from Paris to Berlin"),
    ("I like tea", "I like tea with milk"),
    ("I do not eat meat", "I eat meat on Sundays"),
    ("My dog is brown", "My dog is friendly"),
    ("I bought 2 books", "I bought 3 books"),
    ("John loves Mary", "Mary loves John"),
    ("I might work at Acme", "I might work at Globex"),
    ("My favorite color is blue", "My favorite food is pasta"),
    ("My other phone number is 555-1234", "My other phone number is 555-9876"),
    ("I am a teacher", "I am a father"),
    ("She is tall", "She is kind"),
    ("我住在柏林", "我住在巴黎"),
    ("Ich wohne in Berlin", "Ich wohne in Paris"),
)
CONFLICTING = (
    ("My friend is Anna", "My friend is Ben"),
    ("The meeting is at 3 pm", "The meeting is at 4 pm"),
    ("My sister's name is Anna", "My sister's name is Maria"),
    ("A friend's name is Anna", "A friend's name is Ben"),
)
SAME = (
    ("Anna lives in Berlin", "anna is living in Berlin!"),
    ("I have two dogs", "I have 2 dogs."),
    ("I'm allergic to nuts", "I am really allergic to nuts"),
    ("I don't eat meat", "I do not eat meat"),
    ("My salary is 50,000", "My salary is 50000"),
)
DIFFERENT = (
    ("Anna lives in Berlin", "Anna lived in Berlin"),
    ("John loves Mary", "Mary loves John"),
    ("I moved from Berlin to Paris", "I moved to Berlin from Paris"),
    ("I eat meat", "I do not eat meat"),
    ("He lives here", "She lives here"),
    ("I like tea", "I like tea a lot"),
)


def _compare(old: str, new: str) -> Verdict:
    """As a fact meets the known ones: those that share too little are not looked at."""
    one, other = wording(old), wording(new)
    return compare(one, other) if is_near(one.said, other.said) else NONE


@pytest.mark.parametrize(("old", "new"), CONTRADICTING)
def test_another_value_of_what_has_one_contradicts(old: str, new: str) -> None:
    assert _compare(old, new) is YES
    assert _compare(new, old) is YES


@pytest.mark.parametrize(("old", "new"), COMPATIBLE)
def test_what_may_both_be_true_supersedes_nothing(old: str, new: str) -> None:
    assert _compare(old, new) is not YES
    assert _compare(new, old) is not YES


def test_what_may_contradict_is_told_apart_from_what_does_not() -> None:
    said = {pair for pair in COMPATIBLE if _compare(*pair) is MAY}
    assert said >= set(CONFLICTING)
    assert len(said) <= len(CONFLICTING) + 3, said - set(CONFLICTING)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_in_other_words_that_say_nothing_is_the_same(one: str, other: str) -> None:
    assert is_same(wording(one).said, wording(other).said, 0.95)
    assert not is_same(wording(one).said, wording(other).said, 0.85)
    assert _compare(one, other) is NONE


@pytest.mark.parametrize(("one", "other"), [*DIFFERENT, *CONTRADICTING, *COMPATIBLE])
def test_what_differs_is_not_the_same_however_near(one: str, other: str) -> None:
    assert not is_same(wording(one).said, wording(other).said, 1.0)


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_can_be_compared_and_never_contradicts_itself(one: str, other: str) -> None:
    assert compare(wording(one), wording(one)) is NONE
    assert compare(wording(one), wording(other)) is compare(wording(other), wording(one))


SPANS = st.builds(
    lambda start, length: Span(start, None if length is None else start + length),
    st.integers(0, 30),
    st.none() | st.integers(1, 20),
)


@given(st.lists(SPANS, max_size=12))
def test_at_each_moment_one_span_of_a_key_holds_at_most(asked: list[Span]) -> None:
    held: dict[str, Span] = {}
    for number, span in enumerate(asked):
        before = dict(held)
        try:
            fitted = fit(span, held)
        except Within as within:
            outer = before[within.args[0]]
            assert outer.holds(span.start)
            assert span.end is not None
            assert outer.end is None or outer.end > span.end
            continue
        for name in fitted.ended:
            held[name] = Span(held[name].start, span.start)
        held[str(number)] = fitted.span
        for moment in range(55):
            true = [name for name, each in held.items() if each.holds(moment)]
            assert len(true) <= 1
            if fitted.span.holds(moment):
                assert true == [str(number)]
            else:  # nothing else is touched, but for what ends here
                assert all(name in true or name in fitted.ended for name, each in before.items() if each.holds(moment))
        assert fitted.followed_by is None or before[fitted.followed_by].start == fitted.span.end
