"""Spans of time that a question names: "yesterday", "two weeks ago", "in May", "on 8 May 2023", "since 2023-05-08". Pure.

Words are English; dates in figures are read anywhere. Days begin where those of the moment of asking do, in its zone. A month
or a day without a year is the last one that has begun.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import numpy.typing as npt

MAX_SPANS = 8
MAX_CHARS = 2000  #: of a question, that are looked at
TOLD_LATER_S = 7 * 86_400.0  #: how long after a day it is still told of; after a longer span as long as that was
_FAR = 10**4  #: of whatever unit: nobody means it, and dates end
_FIRST, _LAST = (moment.replace(tzinfo=UTC).timestamp() for moment in (datetime.min, datetime(9999, 12, 31)))  #: that are shown
#: What IGNORECASE takes for a plain letter, and no table of ours has: `fıve days ago`.
_LETTERS = str.maketrans("\u0130\u0131\u017f", "iis")

Stamps = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to before `end`, POSIX seconds. `words`: how the question says it."""

    start: float
    end: float
    words: str = ""

    def holds(self, at: Stamps) -> npt.NDArray[np.bool_]:
        return np.asarray((at >= self.start) & (at < self.end))

    def closeness(self, at: Stamps) -> Stamps:
        """1 within; ½ at its end and ever less behind it, where people tell what happened; 0 before it."""
        later = max(TOLD_LATER_S, self.end - self.start) if np.isfinite(self.start) else TOLD_LATER_S
        behind = np.clip(0.5 * (1 - (at - self.end) / later), 0.0, 0.5)
        return np.where(self.holds(at), 1.0, np.where(at >= self.end, behind, 0.0))


@dataclass(frozen=True, slots=True)
class _Days:
    """Whole days, the last one included."""

    first: date
    last: date


MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FIGURES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS = {word: number for number, word in enumerate(_FIGURES, start=1)} | {
    "a": 1,
    "an": 1,
    "couple of": 2,
    "a couple of": 2,
    "few": 3,
    "a few": 3,
}

_MONTH = "(?P<month>" + "|".join(f"{name[:3]}(?:{name[3:]})?" if name != "may" else name for name in MONTHS) + r"|sept)\b\.?"
_WEEKDAY = "(?P<weekday>" + "|".join(WEEKDAYS) + ")"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_N = (
    r"(?P<n>\d{1,4}|a couple of|couple of|a few|few|"
    + "|".join(sorted(set(NUMBERS) - {"couple of", "few"}, key=len)[::-1])
    + ")"
)
_UNIT = r"(?P<unit>day|week|weekend|month|year)s?"

Reading = Callable[[re.Match[str], date], _Days | None]


def spans(text: str, asked_at: datetime) -> tuple[Span, ...]:
    """Those that the question names, in its order, at most MAX_SPANS. `asked_at`: an aware moment."""
    text = text[:MAX_CHARS].translate(_LETTERS)
    today, rest, found = asked_at.date(), text, list[tuple[int, Span]]()
    for pattern, reading in _READINGS:
        for match in pattern.finditer(rest):
            days = _tried(reading, match, today)
            if days is not None:
                found.append((match.start(), _span(days, match, text, asked_at)))
            # Even if it is none: of 31 June 2023 nobody means June.
            rest = rest[: match.start()] + "\0" * (match.end() - match.start()) + rest[match.end() :]
    return tuple(span for _, span in sorted(found, key=lambda each: each[0])[:MAX_SPANS])


def _tried(reading: Reading, match: re.Match[str], today: date) -> _Days | None:
    """None of what looks like a date and is none: 31 June, a year that no calendar has."""
    try:
        return reading(match, today)
    except (ValueError, OverflowError):
        return None


_OPEN = re.compile(r"\b(?P<word>since|after|before|until|till)\s+(?:the\s+|on\s+|in\s+)?$", re.IGNORECASE)
_AWAY = re.compile(rf"\b(?:the\s+)?(?:{_N}\s+)?{_UNIT}\s+(?P<word>after|before)\s+(?:the\s+)?$", re.IGNORECASE)


def _span(days: _Days, match: re.Match[str], text: str, asked_at: datetime) -> Span:
    start, end = _midnight(days.first, asked_at), _midnight(days.last + timedelta(days=1), asked_at)
    words = match.group()
    if away := _AWAY.search(text, 0, match.start()):
        long = timedelta(days=_DAYS_OF[away["unit"].lower()] * min(_number(away["n"] or "a"), _FAR)).total_seconds()
        before = away["word"].lower() == "before"
        first, last = (max(start - long, _FIRST), end) if before else (start, min(end + long, _LAST))
        return Span(first, last, away.group() + words)
    if opened := _OPEN.search(text, 0, match.start()):
        if opened["word"].lower() in ("since", "after"):
            return Span(start, max(end, asked_at.timestamp()), opened.group() + words)
        return Span(-np.inf, end if opened["word"].lower() != "before" else start, opened.group() + words)
    return Span(start, end, words)


_DAYS_OF = {"day": 1, "weekend": 7, "week": 7, "month": 31, "year": 366}


def _midnight(day: date, asked_at: datetime) -> float:
    return max(datetime.combine(day, time(), asked_at.tzinfo or UTC).timestamp(), _FIRST)


def _number(word: str) -> int:
    return int(word) if word.isdecimal() else NUMBERS[word.lower()]


def _month_number(name: str) -> int:
    return next(number for number, month in enumerate(MONTHS, start=1) if month.startswith(name.lower().rstrip(".")[:3]))


def _month(year: int, month: int) -> _Days:
    following = date(year + month // 12, month % 12 + 1, 1)
    return _Days(date(year, month, 1), following - timedelta(days=1))


def _months_before(today: date, months: int) -> _Days:
    year, month = divmod(today.year * 12 + today.month - 1 - months, 12)
    return _month(year, month + 1)


def _week(day: date) -> _Days:
    monday = day - timedelta(days=day.weekday())
    return _Days(monday, monday + timedelta(days=6))


def _dmy(match: re.Match[str], today: date) -> _Days:
    """A day of a month, with a year or the last that was."""
    month, day = _month_number(match["month"]), int(match["day"])
    if match["year"]:
        found = date(int(match["year"]), month, day)
    else:
        year = today.year
        while (year % 4 and (month, day) == (2, 29)) or date(year, month, day) > today:
            year -= 1
        found = date(year, month, day)
    return _Days(found, found)


def _named_month(match: re.Match[str], today: date) -> _Days:
    month, year = _month_number(match["month"]), match["year"]
    return _month(int(year) if year else today.year - (month > today.month), month)


def _iso(match: re.Match[str], _today: date) -> _Days:
    year, month = int(match["year"]), int(match["month"])
    if match["day"] is None:
        return _month(year, month)
    return _Days(*[date(year, month, int(match["day"]))] * 2)


def _figures(match: re.Match[str], _today: date) -> _Days:
    """8.5.2023 is in May everywhere; 5/8/2023 in May or in August, and both days lie within what is answered."""
    first, second, year = int(match["day"]), int(match["month"]), int(match["year"])
    readings = {(second, first)} if match["mark"] == "." else {(second, first), (first, second)}
    days = sorted(date(year, month, day) for month, day in readings if month <= 12)
    return _Days(days[0], days[-1])


def _year(match: re.Match[str], _today: date) -> _Days:
    return _Days(date(int(match["year"]), 1, 1), date(int(match["year"]), 12, 31))


def _ago(match: re.Match[str], today: date) -> _Days:
    number, unit = _number(match["n"]), match["unit"].lower()
    if unit == "month":
        return _months_before(today, number)
    if unit == "year":
        return _Days(date(today.year - number, 1, 1), date(today.year - number, 12, 31))
    day = today - timedelta(days=number * (1 if unit == "day" else 7))
    return _Days(day, day) if unit == "day" else _weekend(day) if unit == "weekend" else _week(day)


def _weekend(day: date) -> _Days:
    week = _week(day)
    return _Days(week.last - timedelta(days=2), week.last)  # from Friday: its evening belongs to it


def _last(match: re.Match[str], today: date) -> _Days:
    """The week, month or year before this one; of several, those days that end today."""
    if match["n"]:
        return _Days(today - timedelta(days=_DAYS_OF[match["unit"].lower()] * min(_number(match["n"]), _FAR)), today)
    return _unit(match["unit"].lower(), today, 1)


def _this(match: re.Match[str], today: date) -> _Days:
    return _unit(match["unit"].lower(), today, 0)


def _unit(unit: str, today: date, back: int) -> _Days:
    if unit == "month":
        return _months_before(today, back)
    if unit == "year":
        return _Days(date(today.year - back, 1, 1), date(today.year - back, 12, 31))
    if unit == "day":
        return _Days(*[today - timedelta(days=back)] * 2)
    day = today - timedelta(days=7 * back)
    return _weekend(day) if unit == "weekend" else _week(day)


def _last_weekday(match: re.Match[str], today: date) -> _Days:
    back = (today.weekday() - WEEKDAYS.index(match["weekday"].lower())) % 7 or 7
    return _Days(*[today - timedelta(days=back)] * 2)


def _back(days: int) -> Reading:
    return lambda _match, today: _Days(*[today - timedelta(days=days)] * 2)


def _after(*words: str) -> str:
    """One of these words and a blank must stand before; what precedes it decides whether May is a month."""
    return "(?:" + "|".join(f"(?<=\\b{word} )" for word in words) + ")"


_EDGES = ("during", "since", "until", "till", "before", "after", "of", "from")


def _readings() -> Iterator[tuple[str, Reading]]:
    yield rf"(?<![\w-]){_YEAR}-(?P<month>[01]?\d)(?:-(?P<day>[0-3]?\d))?\b(?!-)", _iso
    yield r"\b(?P<day>\d\d?)(?P<mark>[./])(?P<month>\d\d?)(?P=mark)(?P<year>(?:19|20)\d\d)\b", _figures
    yield rf"\b{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR}\b)?", _dmy
    yield rf"\b{_MONTH}\s+{_DAY}\b(?:,?\s+{_YEAR}\b)?", _dmy
    yield rf"\b{_MONTH},?\s+(?:of\s+)?{_YEAR}\b", _named_month
    yield rf"\b{_after('in', 'early', 'late', 'mid', 'last', 'this', *_EDGES)}{_MONTH}(?P<year>)", _named_month
    yield r"\bthe day before yesterday\b", _back(2)
    yield r"\b(?:yesterday|last night)\b", _back(1)
    yield r"\b(?:today|tonight|this (?:morning|afternoon|evening))\b", _back(0)
    yield rf"\b{_N}\s+{_UNIT}\s+(?:ago|back|earlier)\b", _ago
    yield rf"\b(?:last|past|previous)\s+(?:{_N}\s+)?{_UNIT}\b", _last
    yield rf"\b(?:this|current)\s+{_UNIT}\b", _this
    yield rf"\b{_after('on', 'last', 'past', *_EDGES)}{_WEEKDAY}\b", _last_weekday
    yield rf"\b{_after('in', 'year', *_EDGES)}{_YEAR}\b", _year


_READINGS = [(re.compile(pattern, re.IGNORECASE), reading) for pattern, reading in _readings()]
