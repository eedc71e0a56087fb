"""Times that questions name: what people write is read, and nothing that is written can break it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.recall.times import MAX_SPANS, MONTHS, NUMBERS, TOLD_LATER_S, WEEKDAYS, Span, spans

ASKED = datetime(2026, 3, 11, 15, 30, tzinfo=UTC)  # a Wednesday


def _days(text: str, asked_at: datetime = ASKED) -> list[tuple[str, str]]:
    """First and last day of each span."""

    def day(at: float, back: int = 0) -> str:
        return "-" if np.isinf(at) else str((datetime.fromtimestamp(at, asked_at.tzinfo) - timedelta(seconds=back)).date())

    return [(day(span.start), day(span.end, 1)) for span in spans(text, asked_at)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What did I say yesterday?", [("2026-03-10", "2026-03-10")]),
        ("the day before yesterday", [("2026-03-09", "2026-03-09")]),
        ("what was that this morning", [("2026-03-11", "2026-03-11")]),
        ("two days ago", [("2026-03-09", "2026-03-09")]),
        ("3 weeks ago", [("2026-02-16", "2026-02-22")]),
        ("a couple of months ago", [("2026-01-01", "2026-01-31")]),
        ("three months ago", [("2025-12-01", "2025-12-31")]),
        ("2 years ago", [("2024-01-01", "2024-12-31")]),
        ("last week", [("2026-03-02", "2026-03-08")]),
        ("last weekend", [("2026-03-06", "2026-03-08")]),
        ("last month and this year", [("2026-02-01", "2026-02-28"), ("2026-01-01", "2026-12-31")]),
        ("in the last 3 days", [("2026-03-08", "2026-03-11")]),
        ("on Monday", [("2026-03-09", "2026-03-09")]),
        ("last Wednesday", [("2026-03-04", "2026-03-04")]),
        ("in May", [("2025-05-01", "2025-05-31")]),
        ("in March", [("2026-03-01", "2026-03-31")]),
        ("since February", [("2026-02-01", "2026-03-11")]),
        ("in late May 2023", [("2023-05-01", "2023-05-31")]),
        ("on 8 May 2023", [("2023-05-08", "2023-05-08")]),
        ("on the 8th of May, 2023, or May 9th", [("2023-05-08", "2023-05-08"), ("2025-05-09", "2025-05-09")]),
        ("Sept. 3 2024", [("2024-09-03", "2024-09-03")]),
        ("29 February", [("2024-02-29", "2024-02-29")]),
        ("in 2023", [("2023-01-01", "2023-12-31")]),
        ("2023-05-08", [("2023-05-08", "2023-05-08")]),
        ("2023-05", [("2023-05-01", "2023-05-31")]),
        ("was war am 8.5.2023?", [("2023-05-08", "2023-05-08")]),
        ("5/8/2023", [("2023-05-08", "2023-08-05")]),
        ("5/18/2023", [("2023-05-18", "2023-05-18")]),
        ("before 8 May 2023", [("-", "2023-05-07")]),
        ("until 8 May 2023", [("-", "2023-05-08")]),
        ("since 2026-03-02", [("2026-03-02", "2026-03-11")]),
        ("the week before 3 August 2023", [("2023-07-27", "2023-08-03")]),
        ("two days after 3 August 2023", [("2023-08-03", "2023-08-05")]),
        ("fıve days ago, or İN MAY", [("2026-03-06", "2026-03-06"), ("2025-05-01", "2025-05-31")]),
        ("laſt auguſt", [("2025-08-01", "2025-08-31")]),
        ("2500 years before 8 May 2023", [("0001-01-01", "2023-05-08")]),
        ("9000 years after 8 May 2023", [("2023-05-08", "9999-12-30")]),
        ("31 June 2023", []),
        ("I may march with you; a second, please", []),
        ("call 555-2023-1 about order 12345", []),
        ("what does she like?", []),
    ],
)
def test_what_people_write(text: str, expected: list[tuple[str, str]]) -> None:
    assert _days(text) == expected


def test_days_are_those_of_the_zone_of_asking() -> None:
    asked = datetime(2026, 3, 11, 1, 0, tzinfo=timezone(timedelta(hours=9)))
    assert _days("today", asked) == [("2026-03-11", "2026-03-11")]
    assert spans("today", asked)[0].start == datetime(2026, 3, 10, 15, tzinfo=UTC).timestamp()


MOMENTS = st.datetimes(timezones=st.just(UTC))
PIECES = (*MONTHS, *WEEKDAYS, *NUMBERS, *("last", "ago", "in", "on", "since", "before", "the week", "days", "years", "99", "0"))
DATES = st.dates(date(1900, 1, 1), date(2099, 12, 31))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=8) | DATES.map(str), max_size=30), st.datetimes(timezones=st.just(UTC))
)
def test_whatever_is_written_spans_are_few_and_have_a_length(pieces: list[str], asked_at: datetime) -> None:
    found = spans(" ".join(pieces), asked_at)
    assert len(found) <= MAX_SPANS
    assert all(span.end >= span.start and not np.isnan([span.start, span.end]).any() for span in found)
    assert spans(" ".join(pieces), asked_at) == found


@given(DATES, st.sampled_from(["{0:%Y-%m-%d}", "{0.day} {0:%B} {0.year}", "{0:%B} {0.day}, {0.year}", "{0:%d.%m.%Y}"]))
def test_a_whole_date_is_one_day_however_it_is_written(day: date, form: str) -> None:
    assert _days(f"What was said on {form.format(day)}?") == [(str(day), str(day))]


@given(st.integers(1, 9999))
def test_ago_is_a_day_for_every_number_that_the_calendar_has(number: int) -> None:
    assert _days(f"{number} days ago") == [(str((ASKED - timedelta(days=number)).date()),) * 2]


@given(st.floats(-1e9, 1e9), st.floats(0, 1e8), st.floats(-1e10, 1e10))
def test_closeness_is_whole_within_and_falls_behind(start: float, long: float, at: float) -> None:
    span = Span(start, start + long)
    inside, near = span.holds(np.array([at]))[0], span.closeness(np.array([at]))[0]
    assert (near == 1.0) == inside
    assert 0.0 <= near <= (1.0 if inside else 0.5)
    if at < start or at > span.end + max(TOLD_LATER_S, long) * 1.0001 + 1:
        assert near == 0.0
